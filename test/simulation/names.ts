import type { Random } from './random.js';
import type { Sectors } from './sectors.js';

interface Change {
  file: Sectors;
  from: string | undefined;
  to: string | undefined;
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
  change(file: Sectors, from: string | undefined, to: string | undefined): void {
    const change = { file, from, to };
    apply(this.#seen, change);
    file.label = to ?? `${from} (removed)`;
    this.#journal.push(change);
  }

  sync(): void {
    this.#durable = new Map(this.#seen);
    this.#journal = [];
  }

  losePower(random: Random): void {
    const stopped = new Set<Sectors>();
    for (const change of this.#journal) {
      if (stopped.has(change.file)) continue;
      if (random.oneIn(2)) apply(this.#durable, change);
      else stopped.add(change.file);
    }
    this.#journal = [];
    this.#seen = new Map(this.#durable);
  }
}

function apply(names: Map<string, Sectors>, { file, from, to }: Change): void {
  if (from !== undefined && names.get(from) === file) names.delete(from);
  if (to !== undefined) names.set(to, file);
}
