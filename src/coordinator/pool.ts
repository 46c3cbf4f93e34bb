import PQueue from 'p-queue';
import { Piscina } from 'piscina';
import { fromPlainError, WalError } from '../errors.js';
import type { FrameEncoding } from '../producer/encode-in-ring.js';
import type { Control } from '../ring/control.js';
import { FrameState, type Ring } from '../ring/ring.js';
import { encodeFrame } from './encode-frame.js';
import type { CompactionTask, EncodeTask, MaintenanceTask, TaskResult } from './messages.js';

const ENCODER = new URL('../../workers/encoder.js', import.meta.url).href;
const MAINTENANCE = new URL('../../workers/maintenance.js', import.meta.url).href;
/** Threads end after this long without work. */
const IDLE_MS = 5000;
/** Asked anew for each attempt: no two of them may encrypt with the same number. */
type HowToEncode = () => FrameEncoding | undefined;
/** How often a task is handed to a thread. One that dies takes its task with it. */
const ATTEMPTS = 2;

/**
 * The Piscina pool and the two queues in front of it: frames to encode, as many at once as there are encoders and one
 * more in waiting each, and slow work on files, one at a time. Threads start when there is work for them.
 */
export class Pool {
  readonly #pool: Piscina;
  readonly #frames: PQueue;
  readonly #slow = new PQueue({ concurrency: 1 });
  /** Of the tasks that the pool has, queued or running. */
  readonly #tasks = new Set<AbortController>();

  constructor(encoders: number) {
    // One for each encoder, one for the slow work, and one for a compaction, which may take long.
    this.#pool = new Piscina({ minThreads: 0, maxThreads: encoders + 2, idleTimeout: IDLE_MS, execArgv: [] });
    this.#frames = new PQueue({ concurrency: encoders * 2 });
    // A thread that dies between two tasks: the next task starts another.
    this.#pool.on('error', () => {});
    this.#pool.on('workerDestroy', () => setImmediate(() => this.#takeBack()));
  }

  /**
   * Encodes a frame of the opening thread's ring. Bounded by the ring: a frame waits here only while it lies there.
   * An encoder that dies takes nothing with it; the frame is encoded again, at last in this thread.
   */
  encode(ring: Ring, control: Control, frame: number, how: HowToEncode = () => undefined): Promise<void> {
    return this.#frames.add(async () => {
      const done = () => ring.state(frame) !== FrameState.Encoding;
      for (let attempt = 0; attempt < ATTEMPTS && !done(); attempt++) {
        const task: EncodeTask = { ring: ring.memory, control: control.memory, frame, encoding: how() };
        await this.#run(ENCODER, task).catch(() => undefined);
      }
      if (!done()) encodeFrame(ring, control, frame, how());
    }) as Promise<void>;
  }

  /** Slow work, one at a time and in order: a task for the pool, or work that uses {@link maintain} itself. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    return this.#slow.add(work) as Promise<T>;
  }

  /** Each of these tasks can be done again when a thread died in the middle of it. */
  async maintain<T>(task: MaintenanceTask | CompactionTask): Promise<T> {
    let cause: unknown;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      let result: TaskResult<T>;
      try {
        result = await this.#run<T>(MAINTENANCE, task);
      } catch (error) {
        cause = error;
        continue;
      }
      if (result.ok) return result.value;
      throw fromPlainError(result.error);
    }
    const what = 'A thread that works on files died, and so did the one that took its place. Try again';
    throw new WalError('ERR_WAL_FAILED', `${what}: ${(cause as Error).message}.`, { cause });
  }

  async close(): Promise<void> {
    await this.#slow.onIdle();
    await this.#frames.onIdle();
    await this.#pool.destroy();
  }

  /** Rejects when the thread died. */
  async #run<T>(filename: string, task: unknown): Promise<TaskResult<T>> {
    const controller = new AbortController();
    this.#tasks.add(controller);
    try {
      return (await this.#pool.run(task, { filename, signal: controller.signal })) as TaskResult<T>;
    } finally {
      this.#tasks.delete(controller);
    }
  }

  /** A task stays queued for ever when the last thread dies before it was ready to take one; so it is taken back. */
  #takeBack(): void {
    if (this.#pool.threads.length > 0 || this.#pool.queueSize === 0) return;
    for (const controller of this.#tasks) controller.abort();
  }
}
