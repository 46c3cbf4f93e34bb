import type { WalRecord } from 'ringwal';
import type { Acknowledgement, Notes } from './notes.js';
import { type Identity, identify, labelOf } from './records.js';

interface Cut {
  lsn: number;
  /** The era during it. */
  era: number;
  done: boolean;
}

interface Found extends Identity {
  lsn: number;
  label: string;
}

/**
 * Everything that is known of one log, and what it must therefore hold. {@link took} after each death, with what the
 * process noted; then {@link judge} what is in the log.
 */
export class Ledger {
  /** What must be in the log, by LSN: everything that was found in it or acknowledged, and not cut off or cleaned up. */
  readonly #promised = new Map<number, string>();
  /** Of this death: acknowledged at `memory`. They are there if anything is behind them. */
  #hoped = new Map<number, string>();
  /** Labels that were cut off. None may ever be seen again. */
  readonly #cutOff = new Set<string>();
  /** LSNs behind which something was cut off: a series may jump, and a batch end there. */
  readonly #cutAt = new Set<number>();
  /** A cut that was under way at the death, and what it would take away. */
  #undecided: { lsn: number; labels: Map<number, string> } | undefined;
  /** Bounds of the checkpoint and of the subscription's position. */
  #checkpoint = { least: 0, most: 0 };
  #position = { least: 0, most: 0 };
  #firstLsn = 1;
  #closed = false;
  acknowledged = 0;
  cuts = 0;

  /** The last process closed the log before it ended. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Takes what a process noted. Throws when that contradicts itself. */
  took(notes: Notes): void {
    const cuts = this.#takeEvents(notes);
    this.#closed = notes.events.at(-1)?.what === 'closed';
    this.#hoped = new Map();
    this.#undecided = undefined;
    // What was there before, the first cut takes away.
    const before: Acknowledgement[] = [...this.#promised].map(([lsn, label]) => {
      return { lsn, label, level: 'disk', from: -1, to: -1 };
    });
    this.#promised.clear();
    for (const acknowledgement of [...before, ...notes.acknowledgements]) this.#take(acknowledgement, cuts);
    this.acknowledged += notes.acknowledgements.length;
  }

  #takeEvents({ events }: Notes): Cut[] {
    const cuts: Cut[] = [];
    // The cut may be made long before that is noted: what is asked for meanwhile may be meant for what came behind it.
    let during = 0;
    for (const { what, lsn } of events) {
      if (what === 'checkpointing') this.#checkpoint.most = Math.max(this.#checkpoint.most, lsn);
      else if (what === 'checkpointed') this.#checkpoint.least = lsn;
      else if (what === 'subscribed') this.#subscribedAt(lsn);
      else if (what === 'asked') {
        this.#position.most = Math.max(this.#position.most, lsn);
        during = Math.max(during, lsn);
      } else if (what === 'acknowledged') this.#position.least = lsn;
      else if (what === 'cutting') {
        cuts.push({ lsn, era: cuts.length * 2 + 1, done: false });
        this.#cutAt.add(lsn);
        during = 0;
        this.#position.least = Math.min(this.#position.least, lsn);
      } else if (what === 'cut') {
        cuts[cuts.length - 1].done = true;
        this.#position.least = Math.min(this.#position.least, lsn);
        this.#position.most = Math.max(during, Math.min(this.#position.most, lsn));
        this.cuts++;
      }
    }
    // It may have been made before that could be noted.
    const last = cuts.at(-1);
    if (last?.done === false) this.#position.least = Math.min(this.#position.least, last.lsn);
    return cuts;
  }

  #subscribedAt(lsn: number): void {
    const { least, most } = this.#position;
    if (lsn < least || lsn > most) throw new Error(`The consumer is at LSN ${lsn}, not between ${least} and ${most}.`);
    this.#position.least = lsn;
  }

  /** Whether it is promised depends on the cuts that may have come after it. */
  #take({ lsn, label, level, from, to }: Acknowledgement, cuts: readonly Cut[]): void {
    for (const cut of cuts) {
      // It was appended when the cut was made already, or lies below it.
      if (from > cut.era || lsn <= cut.lsn) continue;
      if (to >= cut.era) return;
      if (!cut.done) {
        if (level === 'memory') return;
        this.#undecided ??= { lsn: cut.lsn, labels: new Map() };
        this.#undecided.labels.set(lsn, label);
        return;
      }
      this.#cutOff.add(label);
      return;
    }
    const where = level === 'memory' && !this.#closed ? this.#hoped : this.#promised;
    const known = this.#promised.get(lsn) ?? this.#hoped.get(lsn);
    if (known !== undefined && known !== label)
      throw new Error(`LSN ${lsn} was given to '${known}' and to '${label}'.`);
    where.set(lsn, label);
  }

  /** Compares the log with all of that; throws what is wrong. What was found is promised from now on. */
  judge(records: readonly WalRecord[]): void {
    const found = records.map((record) => {
      const identity = identify(record);
      return { ...identity, lsn: record.lsn, label: labelOf(identity) };
    });
    this.#checkRun(found);
    this.#checkBeginning(found);
    const byLsn = new Map(found.map(({ lsn, label }) => [lsn, label]));
    const last = this.#lastOf(found);
    this.#decide(byLsn);
    this.#checkPromises(byLsn, last);
    this.#checkSeries(found);
    for (const { lsn, label } of found) {
      if (this.#cutOff.has(label)) throw new Error(`LSN ${lsn} is '${label}', which had been cut off.`);
    }
    this.#promised.clear();
    for (const { lsn, label } of found) this.#promised.set(lsn, label);
  }

  #lastOf(found: readonly Found[]): number {
    return found.at(-1)?.lsn ?? this.#firstLsn - 1;
  }

  #checkRun(found: readonly Found[]): void {
    found.forEach(({ lsn }, i) => {
      if (lsn !== found[0].lsn + i) throw new Error(`LSN ${found[0].lsn + i} is missing; ${lsn} is there instead.`);
    });
  }

  /** Clean-up goes forward, and takes nothing above the checkpoint or what the consumer acknowledged. */
  #checkBeginning(found: readonly Found[]): void {
    const first = found[0]?.lsn;
    if (first === undefined) return;
    if (first < this.#firstLsn) throw new Error(`LSN ${first} is there, and had been cleaned up.`);
    const limit = Math.min(this.#checkpoint.most, this.#position.most);
    if (first - 1 > limit) throw new Error(`The log begins at LSN ${first}; only up to ${limit} might be cleaned up.`);
    this.#firstLsn = first;
  }

  /** Was the cut made that was under way? Either all of it is gone or all of it is there. */
  #decide(found: ReadonlyMap<number, string>): void {
    if (this.#undecided === undefined) return;
    const labels = [...this.#undecided.labels];
    if (labels.length === 0) return;
    const there = labels.filter(([lsn, label]) => lsn < this.#firstLsn || found.get(lsn) === label);
    if (there.length === 0) for (const [, label] of labels) this.#cutOff.add(label);
    else if (there.length < labels.length) {
      const [lsn, label] = labels.find(([at, name]) => found.get(at) !== name)!;
      throw new Error(`Half a cut at LSN ${this.#undecided.lsn}: LSN ${lsn} is not '${label}' any more.`);
    }
    this.#undecided = undefined;
  }

  #checkPromises(found: ReadonlyMap<number, string>, last: number): void {
    for (const [lsn, label] of this.#promised) {
      if (lsn < this.#firstLsn) continue;
      const there = found.get(lsn);
      if (there !== label)
        throw new Error(`LSN ${lsn} should be '${label}' and is '${there}'; the log ends at ${last}.`);
    }
    for (const [lsn, label] of this.#hoped) {
      if (lsn >= this.#firstLsn && lsn <= last && found.get(lsn) !== label) {
        throw new Error(`LSN ${lsn} was '${label}' in memory and is '${found.get(lsn)}'.`);
      }
    }
  }

  /** Each producer in its own order, nothing left out but what was cut off, batches whole. */
  #checkSeries(found: readonly Found[]): void {
    const lastOf = new Map<string, Found>();
    for (const record of found) {
      const before = lastOf.get(record.name);
      lastOf.set(record.name, record);
      const expected = before === undefined ? undefined : before.number + 1;
      const whole = before === undefined || before.place === before.size - 1;
      if (before !== undefined && record.number === expected) {
        if (whole ? record.place === 0 : record.place === before.place + 1 && record.lsn === before.lsn + 1) continue;
      }
      // The first of its name may be behind the clean-up, which takes whole frames.
      if (before === undefined && record.place === 0) continue;
      const jumps = before === undefined || record.number > expected!;
      if (!jumps || record.place !== 0 || !this.#wasCutBetween(before?.lsn ?? 0, record.lsn)) {
        throw new Error(`LSN ${record.lsn} is '${record.label}', which does not follow '${before?.label}'.`);
      }
    }
    for (const { lsn, label, place, size } of lastOf.values()) {
      if (place < size - 1 && !this.#wasCutBetween(lsn, lsn + 1))
        throw new Error(`The batch of '${label}' is not whole.`);
    }
  }

  /** Whether something was cut off behind an LSN of `[from, to)`. */
  #wasCutBetween(from: number, to: number): boolean {
    for (let lsn = from; lsn < to; lsn++) if (this.#cutAt.has(lsn)) return true;
    return false;
  }

  /** What a log that was opened says of itself. */
  opened(checkpoint: number, position: number): void {
    const { least, most } = this.#checkpoint;
    if (checkpoint < least || checkpoint > most) {
      throw new Error(`The checkpoint is at LSN ${checkpoint}, not between ${least} and ${most}.`);
    }
    this.#subscribedAt(position);
  }
}
