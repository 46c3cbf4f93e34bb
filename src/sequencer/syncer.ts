import type { StorageFile } from '../storage/storage.js';

/** Somebody who syncs a file while the sequencer goes on writing to it. One sync at a time. */
export interface Syncer {
  /** Begins to sync everything that was written to the file by now. False: it cannot, so it has to be done here. */
  begin(file: StorageFile): boolean;
  /** How long the sync took that was begun, in milliseconds; undefined while it is under way. Throws when it failed. */
  over(): number | undefined;
  /** Waits until it is over. Otherwise as {@link over}. */
  finish(): number;
}

/**
 * Syncs that take less than this are not worth another thread: to wake it costs about as much, and its processor may be
 * asleep, which costs 250 µs.
 */
export const WORTH_HANDING_OVER_MS = 0.1;
/** How long after a record that asked for less than `disk` the levels count as mixed. */
const MIXED_FOR_MS = 1000;
/** Weight of the newest observation in a running mean. */
const NEWEST = 1 / 16;

/**
 * When to let the syncer sync: while some records ask for less than `disk`, so that they do not wait for a sync that they
 * did not want. When all want it, the sync is what all wait for, and nobody is quicker at it than who is awake already.
 */
export class SyncPolicy {
  readonly #worthMs: number;
  #mixedUntil = Number.NEGATIVE_INFINITY;
  #meanMs = 0;

  constructor(worthMs: number) {
    this.#worthMs = worthMs;
  }

  /** A record asked for less than `disk`, at this time in milliseconds. */
  wantedLess(now: number): void {
    this.#mixedUntil = now + MIXED_FOR_MS;
  }

  observe(ms: number): void {
    this.#meanMs += (ms - this.#meanMs) * NEWEST;
  }

  /** Whether some records ask for less than `disk`, or did a moment ago. */
  isMixed(now: number): boolean {
    return now < this.#mixedUntil;
  }

  handsOver(now: number): boolean {
    return this.isMixed(now) && this.#meanMs >= this.#worthMs;
  }
}
