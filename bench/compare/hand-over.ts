import { once } from 'node:events';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Work } from '../../src/cli/bench/contenders.js';
import type { Contender } from '../../src/cli/bench/load.js';

/** Far enough apart not to share a cache line. */
const APART = 32;

/**
 * What the two threads share beside the bytes. Each slot is written by the one that its comment names, through Atomics;
 * places and bytes plainly, before the Atomics.store of `handedOver` by which the other learns of them.
 */
export const Shared = {
  /** Groups handed over so far. Written by the one that appends; its bytes and places below are there before it moves. */
  handedOver: 0,
  /** Groups synced so far, or written where nothing is synced. Written by the other. */
  done: APART,
  /** 1 while the other sleeps on `handedOver`, or is about to. Written by it. */
  sleeps: 2 * APART,
  /** 1 once it is to end. Written by the one that appends. */
  over: 3 * APART,
  /** Of the last {@link GROUPS} groups: where it begins, then its bytes. Written by the one that appends. */
  places: 4 * APART,
} as const;

/** More than there are ever under way: a group is handed over when one was answered, and the first are one or two. */
export const GROUPS = 64;

export interface HandOverData {
  slots: Int32Array;
  bytes: SharedArrayBuffer;
  file: string;
  /** Answers come behind a sync; false: behind the write. */
  syncs: boolean;
  /** Size of a file that is made beforehand and written over again and again. Undefined: it grows. */
  fileBytes: number | undefined;
}

/** From so many in flight on, half of them are handed over at a time, so that both threads have something to do. */
const WORTH_HALVING = 500;
const STAGE_BYTES = 16 * 1024;

/**
 * The least that any log does whose I/O is in a thread of its own: copies records into shared memory, hands groups of them
 * over, has the other thread write them at the end of a file, and sync it at `disk`, and answers. In the quickest way that ringwal
 * knows of, too, and with all in flight known beforehand; but with no checksums, frames or LSNs, no second producer, no
 * segments, no limit on what waits and no failures. Nothing that can be read again.
 */
export class HandOver implements Contender {
  readonly #worker: Worker;
  readonly #slots = new Int32Array(new SharedArrayBuffer(4 * (Shared.places + 2 * GROUPS)));
  readonly #ring: Buffer;
  readonly #stage = Buffer.allocUnsafeSlow(STAGE_BYTES);
  readonly #payload: Buffer;
  readonly #syncs: boolean;
  readonly #most: number;
  readonly #groupBytes: number;
  readonly #groups: Group[] = [];
  #group = new Group();
  #staged = 0;
  #start = 0;
  #cursor = 0;
  #handedOver = 0;
  #scheduled = false;
  #polling = false;

  /** `fileBytes`: it writes over a file of this size, made beforehand, again and again; without it the file grows. */
  static async open(work: Work, directory: string, fileBytes?: number): Promise<HandOver> {
    const handOver = new HandOver(work, directory, fileBytes);
    await once(handOver.#worker, 'message');
    return handOver;
  }

  private constructor({ inFlight, recordBytes, level }: Work, directory: string, fileBytes: number | undefined) {
    this.#syncs = level === 'disk';
    this.#payload = Buffer.alloc(recordBytes, 'x');
    this.#most = inFlight >= WORTH_HALVING && inFlight <= 2 * WORTH_HALVING ? Math.ceil(inFlight / 2) : inFlight;
    this.#groupBytes = this.#most * recordBytes + 8;
    // Each group begins behind the one before: with room for four, none is written over before it is synced.
    const bytes = new SharedArrayBuffer(4 * this.#groupBytes + 2 * STAGE_BYTES);
    this.#ring = Buffer.from(bytes);
    const file = path.join(directory, 'handed-over');
    const data: HandOverData = { slots: this.#slots, bytes, file, syncs: this.#syncs, fileBytes };
    this.#worker = new Worker(new URL('./hand-over-thread.js', import.meta.url), { workerData: data });
  }

  append(): Promise<unknown> {
    const payload = this.#payload;
    if (this.#staged + payload.length > STAGE_BYTES) this.#spill();
    this.#stage.set(payload, this.#staged);
    this.#staged += payload.length;
    const appended = this.#group.wait();
    if (!this.#scheduled) {
      this.#scheduled = true;
      process.nextTick(this.#flush);
    }
    if (this.#group.count === this.#most) this.#handOver();
    return appended;
  }

  syncs(): number {
    return this.#syncs ? Atomics.load(this.#slots, Shared.done) : 0;
  }

  async close(): Promise<void> {
    const ended = once(this.#worker, 'exit');
    Atomics.store(this.#slots, Shared.over, 1);
    Atomics.notify(this.#slots, Shared.handedOver);
    await ended;
  }

  readonly #flush = (): void => {
    this.#scheduled = false;
    if (this.#group.count > 0) this.#handOver();
  };

  #handOver(): void {
    while (this.#staged % 8 !== 0) this.#stage[this.#staged++] = 0;
    this.#spill();
    const place = Shared.places + 2 * (this.#handedOver % GROUPS);
    this.#slots[place] = this.#start;
    this.#slots[place + 1] = this.#cursor - this.#start;
    this.#groups.push(this.#group);
    this.#group = new Group();
    if (this.#cursor + this.#groupBytes + STAGE_BYTES > this.#ring.length) this.#cursor = 0;
    this.#start = this.#cursor;
    Atomics.store(this.#slots, Shared.handedOver, ++this.#handedOver);
    // The other one says that it sleeps, then looks at `handedOver` once more, in Atomics.wait.
    if (Atomics.load(this.#slots, Shared.sleeps) === 1) Atomics.notify(this.#slots, Shared.handedOver);
    if (this.#polling) return;
    this.#polling = true;
    setImmediate(this.#poll);
  }

  #spill(): void {
    this.#ring.set(this.#stage.subarray(0, this.#staged), this.#cursor);
    this.#cursor += this.#staged;
    this.#staged = 0;
  }

  readonly #poll = (): void => {
    const unanswered = this.#handedOver - Atomics.load(this.#slots, Shared.done);
    while (this.#groups.length > unanswered) this.#groups.shift()!.answer();
    this.#polling = this.#groups.length > 0;
    if (this.#polling) setImmediate(this.#poll);
  };
}

/** Those who wait for one group. */
class Group {
  count = 0;
  answer!: () => void;
  readonly #answered = new Promise<void>((resolve) => {
    this.answer = resolve;
  });

  wait(): Promise<number> {
    this.count++;
    return this.#answered.then(lsn);
  }
}

const lsn = () => 1;
