import type { Lsn } from 'ringwal';
import type { Entry } from './entries.js';

interface Cell extends Entry {
  lsn: Lsn;
}

/** Roughly what an entry costs beside its bytes. */
const OVERHEAD = 64;

/** What is newer than every table: in memory only, since the log holds it too. */
export class Memtable {
  /** Memory that it takes, roughly. */
  bytes = 0;
  /** The highest LSN that it was told of. */
  lsn: Lsn = 0;
  readonly #cells = new Map<string, Cell>();

  /**
   * Takes what the log has acknowledged. Promises of a put, a batch and a transaction need not resolve in the order of their
   * LSNs, and a replay knows no other order than that: so the higher LSN wins, whoever comes first.
   */
  apply({ key, value }: Entry, lsn: Lsn): void {
    const old = this.#cells.get(key);
    if (old !== undefined && old.lsn > lsn) return;
    this.#cells.set(key, { key, value, lsn });
    this.bytes += size({ key, value }) - (old === undefined ? 0 : size(old));
    this.lsn = Math.max(this.lsn, lsn);
  }

  /** Forgets what is in tables already. */
  dropUpTo(lsn: Lsn): void {
    for (const cell of this.#cells.values()) {
      if (cell.lsn > lsn) continue;
      this.#cells.delete(cell.key);
      this.bytes -= size(cell);
    }
  }

  get(key: string): Entry | undefined {
    return this.#cells.get(key);
  }

  get entries(): number {
    return this.#cells.size;
  }

  /** A snapshot. */
  sorted(): Entry[] {
    return [...this.#cells.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
  }
}

function size({ key, value }: Entry): number {
  return key.length + (value?.length ?? 0) + OVERHEAD;
}
