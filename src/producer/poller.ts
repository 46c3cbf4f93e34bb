import { availableParallelism } from 'node:os';
import type { Control } from '../ring/control.js';
import { type Ring, RingSlot } from '../ring/ring.js';

const PROCESSORS = availableParallelism();

/**
 * Commits that are quicker than this on average are worth looking for: a message takes a good part of it to arrive. Above what
 * they take while this thread sleeps, on disks where looking makes a difference: on one of 0.13 ms that is 0.24.
 */
const WORTH_POLLING_MS = 0.3;
/**
 * How long to look for one of them. Much longer than they take, because a virtual processor that fell asleep takes some
 * 250 µs to wake up: once both threads sleep between two commits, each commit costs that, and nothing ends it.
 */
const LONGEST_POLL_MS = 1;
/**
 * And not longer than so many times the mean: the actor may be waiting for the very processor that this thread looks on, the
 * other one idle, and does not get it before this thread sleeps: a busy Linux of few processors does not look for a free one
 * when it wakes a thread up. Without this the p99 of one append in flight is 1.1 ms in such times.
 */
const PATIENCE = 4;
const SHORTEST_POLL_MS = 0.1;
/**
 * One commit that took very long counts as so many times the mean, lest it make this thread sleep through dozens of quick ones.
 * Not less: where others want the processors too, it is such commits that say so, and looking makes it worse.
 */
const MOST_COUNTED = 4;
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
  readonly #control: Control;
  #meanLatency = 0;
  #scheduled = false;
  #asleep = false;
  #since = 0;

  constructor(ring: Ring, control: Control, look: () => boolean) {
    this.#ring = ring;
    this.#control = control;
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
    const counted = Math.min(latency, MOST_COUNTED * (this.#meanLatency || latency));
    this.#meanLatency += (counted - this.#meanLatency) * NEWEST;
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
    if (this.#pays && performance.now() - this.#since < this.#patience) this.#schedule();
    else this.#sleep();
  };

  /** Whether commits come quickly, and looking for them keeps no other producer, and not the actor, from a processor. */
  get #pays(): boolean {
    // At least this one, whether the actor has counted it yet or not.
    const producers = Math.max(1, this.#control.activeProducers);
    return this.#meanLatency < WORTH_POLLING_MS && producers < PROCESSORS;
  }

  get #patience(): number {
    return Math.min(LONGEST_POLL_MS, Math.max(SHORTEST_POLL_MS, PATIENCE * this.#meanLatency));
  }

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
