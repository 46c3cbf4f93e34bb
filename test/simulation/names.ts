import type { FaultCounts } from './fault-counts.js';
import type { Random } from './random.js';
import type { Sectors } from './sectors.js';

interface Change {
  file: Sectors;
  from: string | undefined;
  to: string | undefined;
  /** The other half of it stands in another folder's journal: both reach the platter, or neither. */
  move: Move | undefined;
}

export interface Move {
  durable: boolean | undefined;
}

/**
 * The names in one directory, twice: as programs see them, and as they are on the platter. Changes since the last sync
 * of the directory stand in a journal; at a power loss those of each file are kept up to a point, file by file.
 */
export class Names {
  #seen = new Map<string, Sectors>();
  #durable = new Map<string, Sectors>();
  #journal: Change[] = [];

  get(name: string): Sectors | undefined {
    return this.#seen.get(name);
  }

  entries(): IterableIterator<[string, Sectors]> {
    return this.#seen.entries();
  }

  files(): Iterable<Sectors> {
    return this.#seen.values();
  }

  /** `from` undefined: the file is new. `to` undefined: it is removed. */
  change(file: Sectors, from: string | undefined, to: string | undefined, move?: Move): void {
    const change = { file, from, to, move };
    apply(this.#seen, change);
    file.label = to ?? `${from} (removed)`;
    this.#journal.push(change);
  }

  sync(): void {
    this.#durable = new Map(this.#seen);
    for (const { move } of this.#journal) if (move !== undefined) move.durable = true;
    this.#journal = [];
  }

  losePower(random: Random, counts: FaultCounts): void {
    const stopped = new Set<Sectors>();
    for (const change of this.#journal) {
      if (stopped.has(change.file)) continue;
      const kept = change.move?.durable ?? random.oneIn(2);
      if (change.move !== undefined) change.move.durable = kept;
      counts.add(`power: ${kindOf(change)} ${kept ? 'kept' : 'lost'}`);
      if (kept) apply(this.#durable, change);
      else stopped.add(change.file);
    }
    this.#journal = [];
    this.#seen = new Map(this.#durable);
  }
}

function kindOf({ from, to, move }: Change): 'move between folders' | 'new name' | 'removal' | 'rename' {
  if (move !== undefined) return 'move between folders';
  if (from === undefined) return 'new name';
  return to === undefined ? 'removal' : 'rename';
}

function apply(names: Map<string, Sectors>, { file, from, to }: Change): void {
  if (from !== undefined && names.get(from) === file) names.delete(from);
  if (to !== undefined) names.set(to, file);
}
