export type Resolve = (lsn: number) => void;
export type Reject = (reason: unknown) => void;

/**
 * Those who wait for one level of one frame. Reused; `count` says how much of the arrays is alive. What was settled is
 * forgotten at once: a stale function would keep its promise alive and make the garbage collector carry it along.
 */
export class WaiterList {
  count = 0;
  readonly #resolve: (Resolve | undefined)[] = [];
  readonly #reject: (Reject | undefined)[] = [];
  readonly #index: number[] = [];

  /** `index`: the place of the waiter's first record in the frame. */
  add(resolve: Resolve, reject: Reject, index: number): void {
    const i = this.count++;
    this.#resolve[i] = resolve;
    this.#reject[i] = reject;
    this.#index[i] = index;
  }

  resolveAll(firstLsn: number): number {
    const { count } = this;
    for (let i = 0; i < count; i++) {
      this.#resolve[i]!(firstLsn + this.#index[i]);
      this.#resolve[i] = undefined;
      this.#reject[i] = undefined;
    }
    this.count = 0;
    return count;
  }

  rejectAll(reason: unknown): number {
    const { count } = this;
    for (let i = 0; i < count; i++) {
      this.#reject[i]!(reason);
      this.#resolve[i] = undefined;
      this.#reject[i] = undefined;
    }
    this.count = 0;
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
