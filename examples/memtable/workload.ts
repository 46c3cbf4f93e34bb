import { createHash } from 'node:crypto';
import type { BatchOperation } from 'ringwal';

/** Each lane works on keys of its own, one step after the other; so what it has done is told by one number. */
export const LANES = 16;
const KEYS = 40;

/** What a lane does in its n-th step: mostly puts, some deletes, some batches and transactions. The same in every run. */
export function stepOf(lane: number, n: number): { atomic?: 'batch' | 'transaction'; operations: BatchOperation[] } {
  const random = createHash('sha256').update(`${lane} ${n}`).digest();
  const operation = (i: number): BatchOperation => {
    const key = `lane ${lane} key ${random[i] % KEYS}`;
    if (random[i + 8] < 50) return { type: 'del', key };
    return { type: 'put', key, value: `${n}.${i} ${'.'.repeat(random[i + 16])}` };
  };
  if (n % 10 === 3) return { atomic: 'batch', operations: [0, 1, 2].map(operation) };
  if (n % 10 === 7) return { atomic: 'transaction', operations: [0, 1, 2, 3, 4].map(operation) };
  return { operations: [operation(0)] };
}

/** What a lane's keys hold after its first `steps` steps. Only goes forward. */
export class LaneModel {
  readonly cells = new Map<string, string>();
  readonly #lane: number;
  steps = 0;

  constructor(lane: number) {
    this.#lane = lane;
  }

  goTo(steps: number): void {
    while (this.steps < steps) {
      for (const operation of stepOf(this.#lane, this.steps++).operations) {
        if (operation.type === 'put') this.cells.set(String(operation.key), String(operation.value));
        else this.cells.delete(String(operation.key));
      }
    }
  }

  holds(cells: ReadonlyMap<string, string>): boolean {
    return cells.size === this.cells.size && [...cells].every(([key, value]) => this.cells.get(key) === value);
  }
}
