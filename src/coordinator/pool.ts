import PQueue from 'p-queue';
import { Piscina } from 'piscina';
import { fromPlainError } from '../errors.js';
import type { Control } from '../ring/control.js';
import { FrameState, type Ring } from '../ring/ring.js';
import { encodeFrame } from './encode-frame.js';
import type { CompactionTask, EncodeTask, MaintenanceTask, TaskResult } from './messages.js';

const ENCODER = new URL('../../workers/encoder.js', import.meta.url).href;
const MAINTENANCE = new URL('../../workers/maintenance.js', import.meta.url).href;
/** Threads end after this long without work. */
const IDLE_MS = 5000;

/**
 * The Piscina pool and the two queues in front of it: frames to encode, as many at once as there are encoders and one
 * more in waiting each, and slow work on files, one at a time. Threads start when there is work for them.
 */
export class Pool {
  readonly #pool: Piscina;
  readonly #frames: PQueue;
  readonly #slow = new PQueue({ concurrency: 1 });

  constructor(encoders: number) {
    // One for each encoder, one for the slow work, and one for a compaction, which may take long.
    this.#pool = new Piscina({ minThreads: 0, maxThreads: encoders + 2, idleTimeout: IDLE_MS, execArgv: [] });
    this.#frames = new PQueue({ concurrency: encoders * 2 });
  }

  /**
   * Encodes a frame of the opening thread's ring. Bounded by the ring: a frame waits here only while it lies there.
   * An encoder that dies takes nothing with it; the frame is encoded again, at last in this thread.
   */
  encode(ring: Ring, control: Control, frame: number): Promise<void> {
    const task: EncodeTask = { ring: ring.memory, control: control.memory, frame };
    const done = () => ring.state(frame) !== FrameState.Encoding;
    return this.#frames.add(async () => {
      for (let attempt = 0; attempt < 2 && !done(); attempt++) {
        await this.#run(ENCODER, task).catch(() => undefined);
      }
      if (!done()) encodeFrame(ring, control, frame);
    }) as Promise<void>;
  }

  /** Slow work, one at a time and in order: a task for the pool, or work that uses {@link maintain} itself. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    return this.#slow.add(work) as Promise<T>;
  }

  maintain<T>(task: MaintenanceTask | CompactionTask): Promise<T> {
    return this.#run(MAINTENANCE, task) as Promise<T>;
  }

  async close(): Promise<void> {
    await this.#slow.onIdle();
    await this.#frames.onIdle();
    await this.#pool.destroy();
  }

  async #run(filename: string, task: unknown): Promise<unknown> {
    const result = (await this.#pool.run(task, { filename })) as TaskResult<unknown>;
    if (result.ok) return result.value;
    throw fromPlainError(result.error);
  }
}
