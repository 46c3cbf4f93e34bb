import { readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { type BatchOperation, type Bytes, type Durability, type Lsn, WriteAheadLog } from 'ringwal';
import { copyOf, type Entry, keyOf, merged } from './entries.js';
import { commitManifest, inLog, readLog } from './manifest.js';
import { Memtable } from './memtable.js';
import { type OnStep, Table, writeTable } from './table.js';

/** So many tables of like size become one. */
const FAN_IN = 4;

export interface StoreOptions {
  /** A memtable of this size is flushed. Default: 4 MiB. */
  memtableBytes?: number;
  /** Of the log's files. Default: the log's own. */
  segmentBytes?: number;
  /** Of writes. Default: 'disk'. */
  durability?: Durability;
  onStep?: OnStep;
}

export interface Found {
  /** Keys that came from the log and not from tables. */
  replayed: number;
  /** Files of flushes and merges that were cut short, or of tables that were merged: removed. */
  orphans: string[];
}

type Append = (operations: BatchOperation[]) => Promise<Lsn>;

/**
 * A key-value store in the manner of an LSM tree. Writes go to the log and into a memtable; a full memtable becomes a
 * sorted table; tables are merged. Which tables count is in the log, too: README.md says why each step is where it is.
 */
export class Store {
  readonly wal: WriteAheadLog;
  /** What `open` found. */
  found: Found = { replayed: 0, orphans: [] };
  readonly #directory: string;
  readonly #memtableBytes: number;
  readonly #onStep: OnStep;
  #memtable = new Memtable();
  /** The memtable that is being written out. */
  #frozen: Memtable | undefined;
  /** Newest first, which is by descending id. */
  #tables: Table[] = [];
  /** Everything up to here is in tables. */
  #flushed: Lsn = 0;
  /** Writes that the log has not answered yet. */
  readonly #inFlight = new Set<Promise<void>>();
  /** While it is there, no write begins. */
  #gate: Promise<void> | undefined;
  #flushing: Promise<void> | undefined;

  private constructor(directory: string, wal: WriteAheadLog, options: StoreOptions) {
    this.#directory = directory;
    this.wal = wal;
    this.#memtableBytes = options.memtableBytes ?? 4 * 1024 * 1024;
    this.#onStep = options.onStep ?? (() => {});
  }

  static async open(directory: string, options: StoreOptions = {}): Promise<Store> {
    const { segmentBytes, durability } = options;
    // First of all: its lock is the store's lock, and it makes the directory, durably.
    const wal = await WriteAheadLog.open(path.join(directory, 'log'), { segmentBytes, durability });
    const store = new Store(directory, wal, options);
    try {
      await store.#recover();
    } catch (error) {
      await store.close();
      throw error;
    }
    return store;
  }

  async put(key: Bytes, value: Bytes): Promise<void> {
    await this.#write([{ type: 'put', key, value }], ([operation]) => this.#append(operation));
  }

  async delete(key: Bytes): Promise<void> {
    await this.#write([{ type: 'del', key }], ([operation]) => this.#append(operation));
  }

  /** All of it or nothing. */
  async batch(operations: BatchOperation[]): Promise<void> {
    await this.#write(operations, async (logged) => (await this.wal.batch(logged)).last);
  }

  /** All of it or nothing, and of any size. */
  async transaction(operations: BatchOperation[]): Promise<void> {
    await this.#write(operations, async (logged) => {
      const tx = this.wal.transaction();
      for (const op of logged) await (op.type === 'put' ? tx.put(op.key, op.value) : tx.delete(op.key));
      return tx.commit();
    });
  }

  /** From the newest that knows the key; a tombstone ends the search as a value does. */
  get(key: Bytes): Buffer | undefined {
    const name = keyOf(key);
    for (const source of [this.#memtable, this.#frozen, ...this.#tables]) {
      const entry = source?.get(name);
      if (entry !== undefined) return entry.value;
    }
    return undefined;
  }

  /** All keys and values in the order of their bytes, as they are when the iteration begins. */
  *entries(): Generator<[key: Buffer, value: Buffer]> {
    const memory = [this.#memtable.sorted(), this.#frozen?.sorted() ?? []];
    for (const { key, value } of merged([...memory, ...this.#tables.map((table) => table.entries())])) {
      if (value !== undefined) yield [Buffer.from(key, 'latin1'), value];
    }
  }

  /** Resolves when everything that was acknowledged before is in tables, and the log need not keep it. */
  async flush(): Promise<void> {
    while (this.#flushing !== undefined) await this.#flushing;
    await this.#startFlush();
  }

  /** Sizes of the tables in bytes, newest first. */
  get tables(): number[] {
    return this.#tables.map((table) => table.bytes);
  }

  async close(): Promise<void> {
    // What the memtable holds is in the log; the next open takes it from there.
    await this.#flushing?.catch(() => {});
    await this.wal.close();
    for (const table of this.#tables) table.close();
  }

  async #write(operations: BatchOperation[], append: Append): Promise<void> {
    const entries = operations.map((op): Entry => {
      return { key: keyOf(op.key), value: op.type === 'put' ? copyOf(op.value) : undefined };
    });
    while (this.#gate !== undefined || this.#memtable.bytes >= this.#memtableBytes) await this.#room();
    // Nothing may be awaited here: the append begins while the gate is open, or a flush would not wait for it.
    const write = append(entries.map(inLog)).then((lsn) => {
      // Only what the log has acknowledged can be read.
      for (const entry of entries) this.#memtable.apply(entry, lsn);
    });
    const settled = write.catch(() => {}).finally(() => this.#inFlight.delete(settled));
    this.#inFlight.add(settled);
    await write;
  }

  #append(operation: BatchOperation): Promise<Lsn> {
    return operation.type === 'put' ? this.wal.put(operation.key, operation.value) : this.wal.delete(operation.key);
  }

  /**
   * Waits for a turn to write. One memtable takes writes while another is written out; a write that needs a third waits, and
   * that is all the backpressure there is.
   */
  async #room(): Promise<void> {
    if (this.#gate === undefined && this.#flushing === undefined) this.#startFlush().catch(() => {});
    await (this.#gate ?? this.#flushing);
  }

  /** A flush that failed stays: who needs it fails too. Nobody knows what it left; opening the store again finds out. */
  #startFlush(): Promise<void> {
    this.#flushing ??= this.#flush().then(() => {
      this.#flushing = undefined;
    });
    return this.#flushing;
  }

  async #flush(): Promise<void> {
    const frozen = await this.#freeze();
    if (frozen.entries > 0) {
      const table = await this.#writeTable(frozen.sorted(), 'flush');
      await this.#install([table, ...this.#tables], frozen.lsn);
      await this.#onStep('flush: manifest durable');
      // The manifest lies above this LSN: clean-up leaves it alone, and each replay meets it.
      await this.wal.checkpoint(frozen.lsn);
      await this.#onStep('flush: checkpoint durable');
      await this.wal.cleanup();
      await this.#onStep('flush: log cleaned up');
    }
    this.#frozen = undefined;
    await this.#merge();
  }

  /** Swaps the memtable between two writes: all that the log gave an LSN up to its own is in it, and nothing above. */
  async #freeze(): Promise<Memtable> {
    let open!: () => void;
    this.#gate = new Promise((resolve) => {
      open = resolve;
    });
    await Promise.all(this.#inFlight);
    const frozen = this.#memtable;
    this.#frozen = frozen;
    this.#memtable = new Memtable();
    this.#gate = undefined;
    open();
    return frozen;
  }

  /**
   * Makes one table of the newest ones, going on to older ones as long as they are no larger than what there is already. So
   * the number of tables grows with the logarithm of their size, and that is how often an entry is written again.
   */
  async #merge(): Promise<void> {
    const run: Table[] = [];
    let bytes = 0;
    for (const table of this.#tables) {
      if (run.length > 0 && table.bytes > bytes) break;
      run.push(table);
      bytes += table.bytes;
    }
    if (run.length < FAN_IN) return;
    const older = this.#tables.slice(run.length);
    const entries = merged(run.map((table) => table.entries()));
    // A tombstone hides what older tables hold. Where there are none it hides nothing.
    const table = await this.#writeTable(older.length > 0 ? entries : withoutTombstones(entries), 'merge');
    await this.#install([table, ...older], this.#flushed);
    await this.#onStep('merge: manifest durable');
    // Not before the manifest is durable: after a crash it may still be the old one that counts.
    for (const { file } of run) {
      await rm(file);
      await this.#onStep('merge: an old table removed');
    }
  }

  async #writeTable(entries: Iterable<Entry>, why: string): Promise<Table> {
    const id = (this.#tables[0]?.id ?? 0) + 1;
    await writeTable(this.#fileOf(id), entries, (step) => this.#onStep(`${why}: ${step}`));
    return new Table(this.#fileOf(id), id);
  }

  async #install(tables: Table[], flushed: Lsn): Promise<void> {
    const dropped = this.#tables.filter((table) => !tables.includes(table));
    const sizes = new Map(tables.map(({ id, bytes }) => [id, bytes]));
    await commitManifest(
      this.wal,
      { tables: sizes, flushed },
      dropped.map(({ id }) => id),
    );
    this.#tables = tables;
    this.#flushed = flushed;
    for (const table of dropped) table.close();
  }

  /** The log says which tables there are, and has what they do not hold. */
  async #recover(): Promise<void> {
    const { tables, flushed } = await readLog(this.wal, (entry, lsn) => this.#memtable.apply(entry, lsn));
    for (const [id, bytes] of tables) {
      const table = new Table(this.#fileOf(id), id);
      this.#tables.unshift(table);
      if (table.bytes !== bytes) throw new Error(`${table.file} is not the table that it was.`);
    }
    const orphans = await this.#removeOrphans();
    this.#flushed = flushed;
    // The crash may have come between manifest and checkpoint: some of what the log has is in tables, too.
    this.#memtable.dropUpTo(flushed);
    if (flushed > this.wal.recovery.checkpoint) await this.wal.checkpoint(flushed);
    this.found = { replayed: this.#memtable.entries, orphans };
  }

  /** What a flush or a merge wrote that no manifest came to name, and what a merge did not come to remove. */
  async #removeOrphans(): Promise<string[]> {
    const known = this.#tables.map(({ file }) => path.basename(file));
    const orphans = (await readdir(this.#directory)).filter(
      (name) => /\.table(\.tmp)?$/.test(name) && !known.includes(name),
    );
    for (const name of orphans) await rm(path.join(this.#directory, name));
    return orphans;
  }

  #fileOf(id: number): string {
    return path.join(this.#directory, `${String(id).padStart(6, '0')}.table`);
  }
}

function* withoutTombstones(entries: Iterable<Entry>): Generator<Entry> {
  for (const entry of entries) if (entry.value !== undefined) yield entry;
}
