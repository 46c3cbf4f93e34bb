import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { median } from '../../src/cli/bench/load.js';

/** Far enough apart not to share a cache line. */
const APART = 32;

/** Each slot is written by the one that its comment names, through Atomics. */
export const Ball = {
  /** Written by the one that measures. */
  thrown: 0,
  /** What it was, once the other one saw it. Written by that one. */
  caught: APART,
} as const;

/** As `thrown`: it is over. */
export const OVER = -1;

const ROUNDS = 9;
const TRIPS = 5_000;

/**
 * Nanoseconds that a word takes from this thread's processor to another thread's and back, by way of their caches: some
 * 200 where they are neighbours, more than 1,000 where they sit in different sockets. Which of the two holds may change
 * from second to second on a virtual machine, and every hand-over between threads takes its part of it.
 */
export async function measureCrossing(): Promise<number> {
  const slots = new Int32Array(new SharedArrayBuffer(8 * APART));
  const worker = new Worker(new URL('./crossing-thread.js', import.meta.url), { workerData: slots });
  const ended = once(worker, 'exit');
  await once(worker, 'message');
  roundTrip(slots);
  const trips = Array.from({ length: ROUNDS }, () => roundTrip(slots));
  Atomics.store(slots, Ball.thrown, OVER);
  await ended;
  return median(trips);
}

function roundTrip(slots: Int32Array): number {
  const before = performance.now();
  for (let i = 0; i < TRIPS; i++) {
    const ball = Atomics.add(slots, Ball.thrown, 1) + 1;
    while (Atomics.load(slots, Ball.caught) !== ball);
  }
  return ((performance.now() - before) / TRIPS) * 1e6;
}
