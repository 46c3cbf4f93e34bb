import type { Control } from '../ring/control.js';
import { Counter } from '../ring/control.js';

const Cell = { stop: 0 } as const;
/** Work between two looks at the world. */
const STEP_BYTES = 256 * 1024;
/** While others append, a rest is so many times as long as the work before it. */
const REST_FACTOR = 4;
const LONGEST_REST_MS = 100;

/** Thrown in the middle of a compaction that was told to stop. */
export class Stopped extends Error {
  constructor() {
    super('The compaction was stopped.');
  }
}

/**
 * What the opening thread and the one that compacts share. The opening thread alone writes `stop`, once, and the other one
 * looks; the other one alone writes how far it is, and the opening thread looks. Nothing else depends on either.
 */
export class CompactionSignals {
  readonly memory: SharedArrayBuffer;
  readonly #cells: Int32Array;
  readonly #done: Float64Array;

  constructor(memory = new SharedArrayBuffer(32)) {
    this.memory = memory;
    this.#cells = new Int32Array(memory, 0, 2);
    this.#done = new Float64Array(memory, 8, 3);
  }

  get stopped(): boolean {
    return Atomics.load(this.#cells, Cell.stop) === 1;
  }

  stop(): void {
    Atomics.store(this.#cells, Cell.stop, 1);
    Atomics.notify(this.#cells, Cell.stop);
  }

  get progress(): { bytes: number; totalBytes: number; records: number } {
    const [bytes, records, totalBytes] = this.#done;
    return { bytes, totalBytes, records };
  }

  expect(bytes: number): void {
    this.#done[2] += bytes;
  }

  did(bytes: number, records: number): void {
    this.#done[0] += bytes;
    this.#done[1] += records;
  }

  rest(ms: number): void {
    Atomics.wait(this.#cells, Cell.stop, 0, ms);
  }
}

/** Called now and then by the work: notes how far it is, ends it when it is to stop, and leaves others their share. */
export class Pace {
  readonly #signals: CompactionSignals | undefined;
  readonly #control: Control | undefined;
  #bytes = 0;
  #records = 0;
  #appended = 0;
  #startedAt = performance.now();

  /** Without signals, as in a test: nobody stops it, and it never rests. */
  constructor(signals?: CompactionSignals, control?: Control) {
    this.#signals = signals;
    this.#control = control;
    this.#appended = control?.get(Counter.records) ?? 0;
  }

  expect(bytes: number): void {
    this.#signals?.expect(bytes);
  }

  step(bytes: number, records: number): void {
    this.#bytes += bytes;
    this.#records += records;
    if (this.#bytes >= STEP_BYTES) this.look();
  }

  look(): void {
    this.#signals?.did(this.#bytes, this.#records);
    this.#bytes = 0;
    this.#records = 0;
    if (this.#signals?.stopped) throw new Stopped();
    const appended = this.#control?.get(Counter.records) ?? 0;
    if (appended !== this.#appended) {
      this.#appended = appended;
      this.#signals?.rest(Math.min((performance.now() - this.#startedAt) * REST_FACTOR, LONGEST_REST_MS));
    }
    this.#startedAt = performance.now();
  }
}
