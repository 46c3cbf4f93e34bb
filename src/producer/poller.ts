import { availableParallelism } from 'node:os';
import { type Ring, RingSlot } from '../ring/ring.js';

/** Commits quicker than this are worth looking for; a message takes tens of microseconds to arrive. */
const WORTH_POLLING_MS = 0.25;
/** Weight of the newest commit in the running mean of their latency. */
const NEWEST = 0.1;

/**
 * Finds out when the actor's counters moved. While commits are quick it looks once each turn of the event loop, which
 * costs neither side a message; when they take longer it sleeps and lets the actor post one.
 */
export class Poller {
  readonly #ring: Ring;
  /** Takes in what moved; returns whether there is more to wait for. */
  readonly #look: () => boolean;
  readonly #maxPolling = availableParallelism() > 1 ? WORTH_POLLING_MS : 0;
  #meanLatency = 0;
  #scheduled = false;
  #asleep = false;
  #since = 0;

  constructor(ring: Ring, look: () => boolean) {
    this.#ring = ring;
    this.#look = look;
  }

  /** Something was published. */
  start(): void {
    if (this.#scheduled || this.#asleep) return;
    this.#since = performance.now();
    this.#schedule();
  }

  /** A commit took this many milliseconds. */
  observe(latency: number): void {
    this.#meanLatency += (latency - this.#meanLatency) * NEWEST;
    this.#since = performance.now();
  }

  /** A message from the actor came. */
  woken(): void {
    this.#asleep = false;
    if (this.#look()) this.start();
  }

  #schedule(): void {
    this.#scheduled = true;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    this.#scheduled = false;
    if (this.#asleep || !this.#look()) return;
    const polling = Math.min(this.#maxPolling, this.#meanLatency * 4);
    if (performance.now() - this.#since < polling) this.#schedule();
    else this.#sleep();
  };

  #sleep(): void {
    this.#asleep = true;
    // First say that a message is wanted, then look once more: the actor does it the other way round.
    Atomics.store(this.#ring.head, RingSlot.wantsWake, 1);
    if (!this.#look()) {
      this.#asleep = false;
      Atomics.store(this.#ring.head, RingSlot.wantsWake, 0);
    }
  }
}
