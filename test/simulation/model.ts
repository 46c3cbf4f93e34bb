import type { WalRecord } from '../../src/format/record.js';
import { EMPTY_STATE, type LogState } from '../../src/format/state.js';
import { idOf } from './records.js';
import type { Progress, SentFrame } from './ring-producer.js';

/** A promise of the log was broken. `invariant`: its name in the list of invariants. */
export class Violation extends Error {
  readonly invariant: string;

  constructor(invariant: string, message: string) {
    super(`${invariant}: ${message}`);
    this.name = 'Violation';
    this.invariant = invariant;
  }
}

export function hold(condition: boolean, invariant: string, message: () => string): asserts condition {
  if (!condition) throw new Violation(invariant, message());
}

/** No append has more records. */
export const APPEND_RECORDS = 64;

interface Place {
  id: number;
  producer: number;
  /** Last LSN of the atomic append that the record belongs to. */
  lastOfAppend: number;
}

/** What the log promised so far, and what it must never show again. */
export class Model implements Progress {
  /** By LSN - 1: what was given that LSN. */
  readonly #places: Place[] = [];
  /** Numbers of records that were cut off or refused. */
  readonly #buried = new Set<number>();
  /** Highest LSNs acknowledged at `os` and at `disk`. */
  os = 0;
  disk = 0;
  /** The state as it is on disk, and as it was acknowledged since then: only handed to the kernel. */
  state: LogState = EMPTY_STATE;
  handed: LogState[] = [];
  /** The state as it may be if a change of it was cut short. */
  attempted: LogState | undefined;
  /** A clean-up was cut short: its mark may be there, wherever it is allowed to be. */
  cleaning = false;
  /** A cut of the log was cut short: it may end here. */
  attemptedEnd: number | undefined;
  /** LSNs that damage took, and that a repair gave up. */
  readonly #gaps = new Set<number>();

  /** The highest LSN ever given that may still be there. */
  get last(): number {
    return this.#places.length;
  }

  sequenced(frame: SentFrame): void {
    const ends = [...frame.appends.slice(1), frame.ids.length];
    let append = 0;
    frame.ids.forEach((id, i) => {
      if (i === ends[append]) append++;
      const lsn = frame.firstLsn + i;
      hold(this.#places[lsn - 1] === undefined, 'Forward', () => `LSN ${lsn} was given twice`);
      const lastOfAppend = frame.firstLsn + ends[append] - 1;
      this.#places[lsn - 1] = { id, producer: frame.producer, lastOfAppend };
    });
  }

  rejected(frame: SentFrame): void {
    for (const id of frame.ids) this.#buried.add(id);
  }

  written(frame: SentFrame): void {
    this.os = Math.max(this.os, frame.firstLsn + frame.ids.length - 1);
  }

  synced(frame: SentFrame): void {
    this.disk = Math.max(this.disk, frame.firstLsn + frame.ids.length - 1);
  }

  /** Recovery says that the log ends at `last`: may it? */
  checkEnd(last: number, promised: number): void {
    if (last === this.attemptedEnd) return;
    hold(last >= promised, 'Durable', () => `the log ends at LSN ${last}, LSN ${promised} had been promised`);
    hold(last <= this.last, 'Honest', () => `the log ends at LSN ${last}, only ${this.last} were given`);
    const { lastOfAppend } = this.#places[last - 1] ?? { lastOfAppend: 0 };
    hold(lastOfAppend <= last, 'Whole', () => `an atomic append up to LSN ${lastOfAppend} ends at ${last}`);
  }

  /** `lost`: what was only handed to the kernel may be gone. */
  checkState(state: LogState, lost: boolean): void {
    const known = lost ? [this.state, ...this.handed] : [this.handed.at(-1) ?? this.state];
    if (this.attempted !== undefined) known.push(this.attempted);
    const limit = Math.min(state.checkpoint, ...Object.values(state.subscriptions).map((one) => one.acknowledged)) + 1;
    const allowed = known.map((candidate) => {
      const cleaned = this.cleaning && state.low >= candidate.low && state.low <= limit;
      return textOf(cleaned ? { ...candidate, low: state.low } : candidate);
    });
    const found = textOf(state);
    hold(allowed.includes(found), 'Durable', () => `the state is ${found} and should be ${allowed.join(' or ')}`);
  }

  /** A change of state was acknowledged: durably, or handed to the kernel. */
  changed(state: LogState, durable: boolean): void {
    if (durable) {
      this.state = state;
      this.handed = [];
    } else this.handed.push(state);
    this.attempted = undefined;
    this.cleaning = false;
  }

  /** A change was refused, and left no trace. */
  refused(): void {
    this.attempted = undefined;
    this.attemptedEnd = undefined;
    this.cleaning = false;
  }

  /** Everything that was handed to the kernel is on disk by now. */
  allSynced(): void {
    this.state = this.handed.at(-1) ?? this.state;
    this.handed = [];
  }

  /** The LSN behind `lsn`, without what a repair gave up. */
  after(lsn: number): number {
    let next = lsn + 1;
    while (this.#gaps.has(next)) next++;
    return next;
  }

  isGap(lsn: number): boolean {
    return this.#gaps.has(lsn);
  }

  /** What was read must be exactly `[first, last]`, without what a repair gave up. */
  checkRecords(records: readonly WalRecord[], first: number, last: number): void {
    const lastIds = new Map<number, number>();
    let next = this.after(first - 1);
    for (const record of records) {
      hold(record.lsn === next, 'Prefix', () => `LSN ${record.lsn} stands where LSN ${next} should`);
      const { id, producer } = this.checkRecord(record);
      const before = lastIds.get(producer) ?? 0;
      hold(id > before, 'Honest', () => `record ${id} of producer ${producer} comes after its record ${before}`);
      lastIds.set(producer, id);
      next = this.after(next);
    }
    const end = this.after(Math.max(last, first - 1));
    hold(next === end, 'Prefix', () => `reading ends before LSN ${next} and should before ${end}`);
  }

  /** A record that was read must be the one that was appended there, byte for byte. */
  checkRecord(record: WalRecord): { id: number; producer: number } {
    const { lsn } = record;
    const id = idOf(record);
    hold(id !== undefined, 'Honest', () => `LSN ${lsn} was never appended like this`);
    hold(!this.#buried.has(id), 'Buried', () => `record ${id} came back as LSN ${lsn}`);
    const place = this.#places[lsn - 1];
    hold(place?.id === id, 'Honest', () => `LSN ${lsn} is record ${id}, it should be ${place?.id}`);
    return { id, producer: place.producer };
  }

  /** A repair gave these up, and said so. */
  gaveUp(lsns: Iterable<number>): void {
    for (const lsn of lsns) this.#gaps.add(lsn);
  }

  /** The log goes on from here: everything behind `last` is cut off for good, and everything before it is promised. */
  recovered(last: number, state: LogState): void {
    for (const place of this.#places.splice(last)) this.#buried.add(place.id);
    for (const lsn of this.#gaps) if (lsn > last) this.#gaps.delete(lsn);
    // A cut may go through an atomic append: whoever cuts says where.
    for (const place of this.#places.slice(-APPEND_RECORDS)) place.lastOfAppend = Math.min(place.lastOfAppend, last);
    this.os = last;
    this.disk = last;
    this.changed(state, true);
    this.attemptedEnd = undefined;
  }
}

/** The order of keys is no matter. */
function textOf({ subscriptions, ...rest }: LogState): string {
  const names = Object.keys(subscriptions).sort();
  const positions = names.map((name) => [name, subscriptions[name].acknowledged, subscriptions[name].level]);
  return JSON.stringify({ ...rest, subscriptions: positions });
}
