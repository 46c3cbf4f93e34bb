export type Resolve = (lsn: number) => void;
export type Reject = (reason: unknown) => void;

/** Waiters for records that follow each other: they are answered together, by one promise for the frame's first LSN. */
class Run {
  readonly answered: Promise<number>;
  resolve!: Resolve;
  reject!: Reject;
  #index: number;

  constructor(index: number) {
    this.#index = index;
    this.answered = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }

  /** Called for each waiter in the order in which they came, which is the order of their records. */
  readonly next = (firstLsn: number): number => firstLsn + this.#index++;
}

/**
 * Those who wait for one level of one frame.
 *
 * Each promise that a caller gets is derived from that of its run. A promise made with a function needs two more functions
 * and their context, and a place to keep them until it is settled: 130 bytes more of garbage for each record of 1,000 in
 * flight (`node dist/bench/profile.js`).
 */
export class WaiterList {
  count = 0;
  readonly #runs: Run[] = [];
  #run: Run | undefined;
  /** What the next record of the run would have as its index. */
  #following = 0;

  /** A promise for the LSN of the record at `index` in the frame. */
  wait(index: number): Promise<number> {
    if (this.#run === undefined || index !== this.#following) this.#begin(index);
    this.#following = index + 1;
    this.count++;
    return this.#run!.answered.then(this.#run!.next);
  }

  /** The same with functions to call. */
  add(resolve: Resolve, reject: Reject, index: number): void {
    if (this.#run === undefined) this.#begin(index);
    this.count++;
    void this.#run!.answered.then((firstLsn) => resolve(firstLsn + index), reject);
  }

  resolveAll(firstLsn: number): number {
    for (const run of this.#runs) run.resolve(firstLsn);
    return this.#forget();
  }

  rejectAll(reason: unknown): number {
    for (const run of this.#runs) run.reject(reason);
    return this.#forget();
  }

  #begin(index: number): void {
    this.#run = new Run(index);
    this.#runs.push(this.#run);
  }

  #forget(): number {
    const { count } = this;
    this.count = 0;
    this.#runs.length = 0;
    this.#run = undefined;
    return count;
  }
}

/** The producer's book about one frame, from its first record until all its waiters know. */
export class PendingFrame {
  /** Waiters for memory, os and disk. */
  readonly waiters = [new WaiterList(), new WaiterList(), new WaiterList()];
  firstLsn = 0;
  /** Where the ring may be reused up to once the frame is written. */
  end = 0;
  /** `performance.now()` at its first record, and when it was published. */
  startedAt = 0;
  publishedAt = 0;

  get unsettled(): number {
    return this.waiters[0].count + this.waiters[1].count + this.waiters[2].count;
  }

  rejectAll(reason: unknown): number {
    return this.waiters[0].rejectAll(reason) + this.waiters[1].rejectAll(reason) + this.waiters[2].rejectAll(reason);
  }
}
