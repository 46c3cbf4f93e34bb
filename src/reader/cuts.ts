import type { Lsn } from '../types.js';

/** Where a log was cut while somebody was reading it. One number for each cut: they are rare. */
export class Cuts {
  readonly #lsns: Lsn[] = [];

  get count(): number {
    return this.#lsns.length;
  }

  add(lsn: Lsn): void {
    this.#lsns.push(lsn);
  }

  /** The last LSN that no cut took, of those after the first `mark` ones; Infinity when there were none. */
  keptSince(mark: number): Lsn {
    let lowest = Number.POSITIVE_INFINITY;
    for (let i = mark; i < this.#lsns.length; i++) lowest = Math.min(lowest, this.#lsns[i]);
    return lowest;
  }
}
