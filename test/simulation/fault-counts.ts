/** Everything that the simulated disk does to a log. A run of some length must have done all of it: see simulation.test.ts. */
export const FAULT_KINDS = [
  'crash of the process',
  'loss of power',
  'crash before a call',
  'crash behind a call',
  'crash in the middle of a write',
  'crash in the middle of a sync',
  'crash in the middle of a write through',
  'call fails: create',
  'call fails: open',
  'call fails: list',
  'call fails: size',
  'call fails: read',
  'call fails: write',
  'call fails: writeThrough',
  'call fails: sync',
  'call fails: truncate',
  'call fails: rename',
  'call fails: remove',
  'call fails: makeFolder',
  'call fails: syncFolder',
  'call fails: freeBytes',
  'a part of a failing write is there',
  'no space: the call says so',
  'no space: the disk is full',
  'no space: the disk takes a part and is full',
  'short write',
  'written through',
  'written through behind the end of the file',
  'written through in part',
  'write through refused',
  'short read',
  'slow call',
  'written back before its sync',
  'failed sync: not on the platter, still in the cache',
  'failed sync: not on the platter, nor in the cache',
  'power: sector kept',
  'power: sector lost',
  'power: sector torn',
  'power: size kept',
  'power: size lost',
  'power: new name kept',
  'power: new name lost',
  'power: rename kept',
  'power: rename lost',
  'power: removal kept',
  'power: removal lost',
  'power: move between folders kept',
  'power: move between folders lost',
  'power: folder kept',
  'power: folder lost',
  'bit flip',
  'bytes overwritten',
] as const;

export type FaultKind = (typeof FAULT_KINDS)[number];

/** How often each of them happened. */
export class FaultCounts {
  readonly #counts = new Map<FaultKind, number>();

  add(kind: FaultKind, count = 1): void {
    this.#counts.set(kind, this.of(kind) + count);
  }

  of(kind: FaultKind): number {
    return this.#counts.get(kind) ?? 0;
  }

  addAll(other: FaultCounts): void {
    for (const [kind, count] of other.#counts) this.add(kind, count);
  }

  get missing(): FaultKind[] {
    return FAULT_KINDS.filter((kind) => this.of(kind) === 0);
  }

  lines(): string[] {
    return FAULT_KINDS.map((kind) => `${String(this.of(kind)).padStart(10)}  ${kind}`);
  }
}
