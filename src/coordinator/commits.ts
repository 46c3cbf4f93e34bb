import { WalError } from '../errors.js';
import { LEVEL_NAMES, Level, type LevelName } from '../format/levels.js';
import { onAbort } from '../producer/on-abort.js';
import { type Control, FOLLOWED, Slot } from '../ring/control.js';
import type { Lsn } from '../types.js';

/** One advance of one watermark. Events of a level are contiguous: each begins where the one before ended. */
export interface CommitEvent {
  level: LevelName;
  /** The new watermark. */
  lsn: Lsn;
  /** The first LSN of this advance. */
  first: Lsn;
  records: number;
  /** Encoded bytes of these records. */
  bytes: number;
  /** Milliseconds since the epoch. */
  at: number;
}

interface Waiter {
  lsn: Lsn;
  /** It has read everything before `lsn`. */
  reader: boolean;
  resolve: () => void;
  reject: (error: unknown) => void;
}

const LEVELS = 3;

/**
 * Turns watermarks in shared memory into events and promises. The actor posts one message when a watermark moves that
 * somebody is interested in; however many commits happened by the time it is read, they come out as one advance. So a
 * slow thread costs the log no memory.
 */
export class Commits {
  readonly #control: Control;
  readonly #emit: (event: CommitEvent) => void;
  readonly #hold: (busy: boolean) => void;
  readonly #last: { lsn: Lsn; bytes: number }[];
  readonly #waiters: Set<Waiter>[] = Array.from({ length: LEVELS }, () => new Set());
  /** How many of the waiters are readers. */
  #readers = 0;
  /** Reads that follow the log, whether they wait or have some to catch up with. */
  #followers = 0;
  /** Levels that somebody listens to. */
  #listened = 0;

  /** `hold`: whether somebody waits for a record that is on its way, so that the process must stay alive. */
  constructor(control: Control, emit: (event: CommitEvent) => void, hold: (busy: boolean) => void) {
    this.#control = control;
    this.#emit = emit;
    this.#hold = hold;
    this.#last = Array.from({ length: LEVELS }, (_, level) => control.readCommit(level));
  }

  /** Whether anybody listens or waits. */
  get interested(): boolean {
    return this.#interest() !== 0;
  }

  /** Bits of the levels whose events somebody listens to. */
  setListened(levels: number): void {
    // Advances from before somebody listened are nobody's.
    for (let level = 0; level < LEVELS; level++) {
      if ((levels & ~this.#listened & (1 << level)) !== 0) this.#last[level] = this.#control.readCommit(level);
    }
    this.#listened = levels;
    this.#updateInterest();
  }

  waitFor(level: number, lsn: Lsn, signal?: AbortSignal, reader = false): Promise<void> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.#delete(level, waiter);
        this.#updateInterest();
        this.#updateHold();
        reject(signal!.reason);
      };
      const done = (settle: () => void) => {
        settled?.();
        settle();
      };
      const waiter: Waiter = {
        lsn,
        reader,
        resolve: () => done(resolve),
        reject: (error) => done(() => reject(error)),
      };
      const settled = signal && onAbort(signal, abort);
      this.#add(level, waiter);
      this.#updateInterest();
      // It may have been reached before the actor knew of our interest.
      this.look();
    });
  }

  /** Somebody begins to follow the log; the result says that it is over, once. */
  follow(): () => void {
    this.#followers++;
    this.#updateInterest();
    return () => {
      this.#followers--;
      this.#updateInterest();
    };
  }

  /** The actor's message came: see how far it is. */
  look(): void {
    // Cleared before the watermarks are read: an advance after this posts another message.
    Atomics.store(this.#control.slots, Slot.openerWake, 0);
    for (let level = 0; level < LEVELS; level++) {
      if ((this.#listened & (1 << level)) !== 0) this.#emitAdvance(level);
      if (this.#waiters[level].size > 0) this.#settle(level);
    }
    this.#updateHold();
  }

  /** The log was cut behind `lsn`: what comes next is news again. */
  wentBack(lsn: Lsn): void {
    for (const last of this.#last) last.lsn = Math.min(last.lsn, lsn);
    for (let level = 0; level < LEVELS; level++) {
      for (const waiter of this.#waiters[level]) {
        if (!waiter.reader || waiter.lsn <= lsn + 1) continue;
        this.#delete(level, waiter);
        waiter.reject(cutBehind(lsn, waiter.lsn));
      }
    }
    this.#updateInterest();
    this.#updateHold();
  }

  rejectAll(error: unknown): void {
    for (const waiters of this.#waiters) {
      for (const waiter of waiters) waiter.reject(error);
      waiters.clear();
    }
    this.#readers = 0;
    this.#updateInterest();
    this.#updateHold();
  }

  #emitAdvance(level: number): void {
    const { lsn, bytes, at } = this.#control.readCommit(level);
    const last = this.#last[level];
    if (lsn <= last.lsn) return;
    this.#last[level] = { lsn, bytes };
    const records = lsn - last.lsn;
    this.#emit({ level: LEVEL_NAMES[level], lsn, first: last.lsn + 1, records, bytes: bytes - last.bytes, at });
  }

  #settle(level: number): void {
    const watermark = this.#control.watermark(level);
    for (const waiter of this.#waiters[level]) {
      if (waiter.lsn > watermark) continue;
      this.#delete(level, waiter);
      waiter.resolve();
    }
    this.#updateInterest();
  }

  /** A record that was not even appended may never be: waiting for it is no reason to stay alive. */
  #updateHold(): void {
    const appended = this.#control.watermark(Level.Memory);
    for (const waiters of this.#waiters) {
      for (const { lsn } of waiters) if (lsn <= appended) return this.#hold(true);
    }
    this.#hold(false);
  }

  /** Bits of the levels that somebody listens to or waits for. */
  #interest(): number {
    let levels = this.#listened;
    for (let level = 0; level < LEVELS; level++) if (this.#waiters[level].size > 0) levels |= 1 << level;
    return levels;
  }

  #updateInterest(): void {
    Atomics.store(
      this.#control.slots,
      Slot.interest,
      this.#interest() | (this.#readers + this.#followers > 0 ? FOLLOWED : 0),
    );
  }

  #add(level: number, waiter: Waiter): void {
    this.#waiters[level].add(waiter);
    if (waiter.reader) this.#readers++;
  }

  #delete(level: number, waiter: Waiter): void {
    if (this.#waiters[level].delete(waiter) && waiter.reader) this.#readers--;
  }
}

function cutBehind(lsn: Lsn, next: Lsn): WalError {
  const message = `The log was cut behind LSN ${lsn}, and this reader had gone as far as LSN ${next - 1}.`;
  return new WalError('ERR_WAL_TRUNCATED', message, { lsn: next });
}
