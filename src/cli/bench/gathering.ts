/**
 * What every program without a log does in some way: gathers what is pending, commits it in one go, and resolves the
 * promises; what comes meanwhile is the next group.
 */
export class Gathering<T> {
  readonly #commit: (items: T[]) => void | Promise<void>;
  readonly #most: number;
  #items: T[] = [];
  #resolve: ((failure?: Promise<never>) => void)[] = [];
  #busy = false;

  /** `most`: items of one group at most. */
  constructor(commit: (items: T[]) => void | Promise<void>, most = Number.POSITIVE_INFINITY) {
    this.#commit = commit;
    this.#most = most;
  }

  append(item: T): Promise<void> {
    return new Promise((resolve) => {
      this.#items.push(item);
      this.#resolve.push(resolve as (failure?: Promise<never>) => void);
      if (!this.#busy) this.#schedule();
    });
  }

  #schedule(): void {
    this.#busy = true;
    setImmediate(this.#run);
  }

  readonly #run = (): void => {
    const items = this.#items;
    const resolve = this.#resolve;
    this.#items = items.length > this.#most ? items.splice(this.#most) : [];
    this.#resolve = resolve.length > this.#most ? resolve.splice(this.#most) : [];
    const finish = (failure?: Promise<never>): void => {
      if (this.#items.length > 0) this.#schedule();
      else this.#busy = false;
      for (const done of resolve) done(failure);
    };
    const fail = (error: unknown): void => finish(Promise.reject(error));
    try {
      const committing = this.#commit(items);
      if (committing === undefined) finish();
      else committing.then(() => finish(), fail);
    } catch (error) {
      fail(error);
    }
  };
}
