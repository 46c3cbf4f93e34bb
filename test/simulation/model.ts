import { RecordKind, type WalRecord } from '../../src/format/record.js';
import { EMPTY_STATE, type LogState } from '../../src/format/state.js';
import { apply, type Effect, effectsOf, type Place, placeOf, type State } from './places.js';
import { idOf, isRecord } from './records.js';
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

/** What the caller of a transaction knows of it. `writing`: it is being prepared or decided about, and may be either. */
export type Phase = 'open' | 'writing' | 'prepared' | 'decided';

/** A transaction of more than one frame. */
export interface Told {
  /** The numbers of its operations, in order. */
  ids: number[];
  phase: Phase;
  /** It was prepared behind this LSN. */
  preparedAt: number;
  /** What became of it lasts, whatever crash comes. */
  durable: boolean;
  /** Operations of it that were handed to the log. */
  published: number;
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
  attempted: LogState[] = [];
  /** The commit of a transaction that was cut short: it may have this LSN. */
  attemptedCommit: { lsn: number; id: string } | undefined;
  /** The state as a segment that is begun now has it, when that says more. */
  noted: (state: LogState) => LogState = (state) => state;
  /** How often the log was cut while it was open. */
  cuts = 0;
  /** By their ids. */
  readonly transactions = new Map<string, Told>();
  /** Where operations of transactions lie that something else commits. */
  readonly #parts = new Map<string, number[]>();
  /** And the LSNs at which they were committed. */
  readonly #commits = new Map<string, number>();
  /** Up to here compaction may have taken records out. */
  #compacted = 0;
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
      const place = placeOf(id, frame.producer, frame.firstLsn + ends[append] - 1);
      this.#places[lsn - 1] = place;
      if (frame.transaction === undefined) return;
      place.transaction = frame.transaction.id;
      place.part = !frame.transaction.whole;
      if (place.part) this.#partsOf(place.transaction).push(lsn);
    });
  }

  #partsOf(id: string): number[] {
    let parts = this.#parts.get(id);
    if (parts === undefined) {
      parts = [];
      this.#parts.set(id, parts);
    }
    return parts;
  }

  /** The commit of a transaction whose operations lie before it. */
  committed(lsn: number, id: string): void {
    hold(lsn === this.last + 1, 'Forward', () => `a commit got LSN ${lsn} behind LSN ${this.last}`);
    this.#places.push({ ...placeOf(0, -1, lsn), transaction: id });
    this.#commits.set(id, lsn);
    this.attemptedCommit = undefined;
  }

  /** After a crash: a commit that was under way may be there. */
  commitInFlight(): void {
    const { attemptedCommit } = this;
    if (attemptedCommit?.lsn === this.last + 1) this.committed(attemptedCommit.lsn, attemptedCommit.id);
    this.attemptedCommit = undefined;
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
    if (last === this.attemptedEnd) return this.#cutThrough(last);
    hold(last >= promised, 'Durable', () => `the log ends at LSN ${last}, LSN ${promised} had been promised`);
    hold(last <= this.last, 'Honest', () => `the log ends at LSN ${last}, only ${this.last} were given`);
    const { lastOfAppend } = this.#places[last - 1] ?? { lastOfAppend: 0 };
    hold(lastOfAppend <= last, 'Whole', () => `an atomic append up to LSN ${lastOfAppend} ends at ${last}`);
  }

  /** `lost`: what was only handed to the kernel may be gone. */
  checkState(state: LogState, lost: boolean): void {
    const known = lost ? [this.state, ...this.handed] : [this.handed.at(-1) ?? this.state];
    known.push(...this.attempted);
    const limit = Math.min(this.keepFrom(state), this.neededByTransactions(state));
    const allowed = known.map((candidate) => {
      const cleaned = this.cleaning && state.low >= candidate.low && state.low <= limit;
      return cleaned ? { ...candidate, low: state.low } : candidate;
    });
    const texts = [...allowed, ...allowed.map(this.noted)].map(textOf);
    const found = textOf(state);
    hold(texts.includes(found), 'Durable', () => `the state is ${found} and should be ${texts.join(' or ')}`);
  }

  /** What clean-up must keep for consumers, and behind the checkpoint: everything from here on. */
  keepFrom({ checkpoint, subscriptions }: LogState): number {
    return Math.min(checkpoint, ...Object.values(subscriptions).map(({ acknowledged }) => acknowledged)) + 1;
  }

  /** What it must keep for transactions: those that are not decided, and those that a replay has still to commit. */
  neededByTransactions({ checkpoint }: LogState): number {
    let least = Number.POSITIVE_INFINITY;
    for (const [id, [first]] of this.#parts) {
      if (this.transactions.get(id)?.phase !== 'decided' || this.#commitOf(id) > checkpoint) {
        least = Math.min(least, first ?? least);
      }
    }
    return least;
  }

  #commitOf(id: string): number {
    return this.#commits.get(id) ?? 0;
  }

  /** A change of state was acknowledged: durably, or handed to the kernel. */
  changed(state: LogState, durable: boolean): void {
    if (durable) {
      this.state = state;
      this.handed = [];
    } else this.handed.push(state);
    this.#compacted = Math.max(this.#compacted, state.compacted ?? 0);
    this.attempted = [];
    this.cleaning = false;
  }

  /** A change was refused, and left no trace. */
  refused(): void {
    this.attempted = [];
    this.attemptedCommit = undefined;
    this.attemptedEnd = undefined;
    this.cleaning = false;
  }

  /** Everything that was handed to the kernel is on disk by now, up to this state. */
  stateSynced(newest = this.handed.at(-1)): void {
    const at = newest === undefined ? -1 : this.handed.indexOf(newest);
    if (at < 0) return;
    this.state = this.handed[at];
    this.handed = this.handed.slice(at + 1);
  }

  /** The LSN behind `lsn`, without what a repair gave up or compaction took out. */
  after(lsn: number): number {
    let next = lsn + 1;
    while (this.isAbsent(next)) next++;
    return next;
  }

  isGap(lsn: number): boolean {
    return this.#gaps.has(lsn);
  }

  isAbsent(lsn: number): boolean {
    return this.#gaps.has(lsn) || this.#places[lsn - 1]?.gone === true;
  }

  /** The same, or compaction may have taken it out by now: nobody has looked yet. */
  mayBeAbsent(lsn: number, compacted = this.#compacted): boolean {
    const place = this.#places[lsn - 1];
    return this.isAbsent(lsn) || (lsn <= compacted && place !== undefined && place.kind !== RecordKind.Data);
  }

  /**
   * What was read must be exactly `[first, last]`, without what a repair gave up, and what compaction took out: returns
   * what of that was there before.
   */
  checkRecords(records: readonly WalRecord[], first: number, last: number): number[] {
    const lastIds = new Map<number | string, number>();
    const gone: number[] = [];
    let next = this.after(first - 1);
    const skip = (to: number) => {
      for (; next < to; next = this.after(next)) {
        hold(this.mayBeAbsent(next), 'Prefix', () => `LSN ${next} is missing before LSN ${to}`);
        gone.push(next);
      }
    };
    for (const record of records) {
      skip(record.lsn);
      hold(record.lsn === next, 'Prefix', () => `LSN ${record.lsn} stands where LSN ${next} should`);
      const { id, producer, transaction } = this.checkRecord(record);
      const whose = transaction ?? producer;
      const before = lastIds.get(whose) ?? 0;
      // A commit is no record of anybody's.
      hold(id === 0 || id > before, 'Honest', () => `record ${id} of ${whose} comes after its record ${before}`);
      lastIds.set(whose, id);
      next = this.after(next);
    }
    const end = this.after(Math.max(last, first - 1));
    skip(end);
    hold(next === end, 'Prefix', () => `reading ends before LSN ${next} and should before ${end}`);
    return gone;
  }

  /** A record that was read must be the one that was appended there, byte for byte. */
  checkRecord(record: WalRecord): Place {
    const { lsn } = record;
    const place = this.#places[lsn - 1];
    if (place === undefined || !isPlace(record, place)) {
      const id = idOf(record);
      hold(id === undefined || !this.#buried.has(id), 'Buried', () => `record ${id} came back as LSN ${lsn}`);
      throw new Violation('Honest', `LSN ${lsn} is record ${id ?? record.kind}, it should be ${place?.id}`);
    }
    return place;
  }

  /** The state that the operations from `from` to `last` make of the one that those before it made. */
  stateAt(from: number, last: number): { before: State; after: State } {
    const effects = effectsOf(this.#places, this.#parts, last, (lsn) => this.#gaps.has(lsn));
    const first = effects.findIndex(({ at }) => at >= from);
    const split = first < 0 ? effects.length : first;
    const before = apply(effects.slice(0, split), new Map());
    const after = apply(
      effects.slice(split).filter(({ place }) => !place.gone),
      new Map(before),
    );
    return { before, after };
  }

  /** Compaction took these out: each of them must have been of no use any more. */
  took(gone: readonly number[], { checkpoint, compacted = 0, deletesGone = 0 }: LogState): void {
    if (gone.length === 0) return;
    const last = Math.min(compacted, this.last);
    const counting = effectsOf(this.#places, NO_PARTS, last, () => false);
    const newest = newestOf(counting);
    for (const lsn of gone) {
      const place = this.#places[lsn - 1];
      const replaced = lsn < Math.max(newest.get(place.key) ?? 0, newest.get(CLEAR) ?? 0);
      const hidesNothing = place.kind !== RecordKind.Put && lsn <= Math.max(checkpoint, deletesGone);
      const dead = place.part && this.#commitOf(place.transaction!) === 0 && this.isDecided(place.transaction!);
      hold(dead || (!place.part && (replaced || hidesNothing)), 'Durable', () => {
        return `compaction took out LSN ${lsn}, record ${place.id}, which is needed`;
      });
      place.gone = true;
    }
  }

  isDecided(id: string): boolean {
    return this.transactions.get(id)?.phase === 'decided';
  }

  /** Whether some operations of a transaction are not there any more. */
  lacksParts(id: string): boolean {
    return (this.#parts.get(id) ?? []).some((lsn) => this.isAbsent(lsn));
  }

  /** A repair gave these up, and said so. */
  gaveUp(lsns: Iterable<number>): void {
    for (const lsn of lsns) if (!this.isAbsent(lsn)) this.#gaps.add(lsn);
  }

  /** A cut may go through an atomic append: whoever cuts says where. */
  #cutThrough(last: number): void {
    for (const place of this.#places.slice(Math.max(0, last - APPEND_RECORDS), last)) {
      if (place.lastOfAppend <= last) continue;
      place.lastOfAppend = last;
      // The end of its only frame was its commit.
      if (place.transaction !== undefined) place.part = true;
    }
  }

  /** The log goes on from here: everything behind `last` is cut off for good, and everything before it is promised. */
  recovered(last: number, state: LogState): void {
    for (const place of this.#places.splice(last)) this.#buried.add(place.id);
    for (const lsn of this.#gaps) if (lsn > last) this.#gaps.delete(lsn);
    this.#cutThrough(last);
    for (const [id, lsns] of this.#parts) {
      const left = lsns.filter((lsn) => lsn <= last);
      if (left.length > 0) this.#parts.set(id, left);
      else this.#parts.delete(id);
    }
    for (const [id, lsn] of this.#commits) if (lsn > last) this.#commits.delete(id);
    for (const [id, told] of this.transactions) {
      const known = state.transactions?.prepared[id];
      told.phase = known === undefined ? 'decided' : 'prepared';
      told.preparedAt = known?.prepared ?? 0;
      told.durable = true;
    }
    this.os = last;
    this.disk = last;
    this.#compacted = 0;
    this.changed(state, true);
    this.attemptedEnd = undefined;
    this.attemptedCommit = undefined;
  }
}

function isPlace(record: WalRecord, { id, transaction }: Place): boolean {
  if (record.transaction !== transaction) return false;
  return id === 0 ? record.kind === 'data' && record.payload.byteLength === 0 : isRecord(record, id);
}

const CLEAR = '(clear)';
const NO_PARTS: ReadonlyMap<string, number[]> = new Map();

/** By key, and of clears, where the newest operation lies that counts. */
function newestOf(effects: readonly Effect[]): Map<string, number> {
  return new Map(effects.map(({ lsn, place }) => [place.kind === RecordKind.Clear ? CLEAR : place.key, lsn]));
}

/** The order of keys is no matter, but for that in which transactions were prepared. */
function textOf(state: LogState): string {
  const { transactions, ...rest } = state;
  const holds = transactions?.holds.map(({ first, commit }) => [first, commit]) ?? [];
  const prepared = Object.entries(transactions?.prepared ?? {}).map(([id, known]) => [id, sorted(known)]);
  return JSON.stringify([sorted(rest), prepared, holds]);
}

function sorted(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([, inner]) => inner !== undefined);
  return entries.sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, inner]) => [name, sorted(inner)]);
}
