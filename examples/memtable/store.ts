import fs from 'node:fs';
import path from 'node:path';
import { type BatchOperation, WriteAheadLog } from 'ringwal';

/** A value, or the note that the key was deleted, which hides what older tables say of it. */
type Cell = string | null;

/** What is newer than every table on disk. A log can be recovered into it. */
class Memtable {
  readonly cells = new Map<string, Cell>();

  set(key: string, value: Uint8Array | string): void {
    this.cells.set(key, typeof value === 'string' ? value : Buffer.from(value).toString('utf8'));
  }

  delete(key: string): void {
    this.cells.set(key, null);
  }

  clear(): void {
    throw new Error('This store never clears.');
  }
}

/**
 * A key-value store in the manner of an LSM tree: writes go to the log and into a memtable; a full memtable becomes a
 * sorted table on disk, and then the log is told that it need not keep those writes any longer.
 */
export class Store {
  readonly wal: WriteAheadLog;
  readonly #directory: string;
  #memtable = new Memtable();
  /** The last operation that the memtable holds. */
  #lsn: number;
  /** Newest first. */
  readonly #tables: Map<string, Cell>[] = [];

  private constructor(directory: string, wal: WriteAheadLog) {
    this.#directory = directory;
    this.wal = wal;
    this.#lsn = wal.recovery.lastLsn;
  }

  static async open(directory: string): Promise<Store> {
    const wal = await WriteAheadLog.open(path.join(directory, 'log'), { segmentBytes: 128 * 1024 });
    const store = new Store(directory, wal);
    for (const name of fs
      .readdirSync(directory)
      .filter((file) => file.endsWith('.table'))
      .sort()) {
      store.#tables.unshift(new Map(JSON.parse(fs.readFileSync(path.join(directory, name), 'utf8'))));
    }
    // From the checkpoint on: what came before is in the tables.
    await wal.recover(store.#memtable);
    return store;
  }

  // The promises of one thread resolve in the order of their LSNs, so the memtable is filled in that order too.

  async put(key: string, value: string): Promise<void> {
    this.#lsn = await this.wal.put(key, value);
    this.#memtable.set(key, value);
  }

  async delete(key: string): Promise<void> {
    this.#lsn = await this.wal.delete(key);
    this.#memtable.delete(key);
  }

  async batch(operations: BatchOperation[]): Promise<void> {
    this.#lsn = (await this.wal.batch(operations)).last;
    for (const operation of operations) {
      if (operation.type === 'put') this.#memtable.set(String(operation.key), operation.value);
      else this.#memtable.delete(String(operation.key));
    }
  }

  /** All keys and values, sorted. */
  contents(): [string, string][] {
    const merged = new Map<string, Cell>();
    for (const table of [...this.#tables].reverse()) for (const [key, cell] of table) merged.set(key, cell);
    for (const [key, cell] of this.#memtable.cells) merged.set(key, cell);
    return [...merged].filter((entry): entry is [string, string] => entry[1] !== null).sort();
  }

  get memtableSize(): number {
    return this.#memtable.cells.size;
  }

  /**
   * Turns the memtable into a sorted table, durably, and only then moves the checkpoint. A crash in between replays
   * operations that the table has already, which changes nothing.
   */
  async flush(): Promise<void> {
    const lsn = this.#lsn;
    const sorted = [...this.#memtable.cells].sort();
    const name = path.join(this.#directory, `${String(lsn).padStart(12, '0')}.table`);
    writeDurably(name, JSON.stringify(sorted));
    this.#tables.unshift(new Map(sorted));
    this.#memtable = new Memtable();
    await this.wal.checkpoint(lsn);
    await this.wal.cleanup();
  }
}

/** A file that is whole under its name, or not there. */
function writeDurably(name: string, text: string): void {
  const temporary = `${name}.tmp`;
  fs.writeFileSync(temporary, text, { flush: true });
  fs.renameSync(temporary, name);
  const directory = fs.openSync(path.dirname(name), 'r');
  fs.fsyncSync(directory);
  fs.closeSync(directory);
}
