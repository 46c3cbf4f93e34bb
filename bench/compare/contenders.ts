import path from 'node:path';
import { connect, type ProducerHandle } from 'ringwal';
import { appending, raw, ringwal, type Work } from '../../src/cli/bench/contenders.js';
import { Gathering } from '../../src/cli/bench/gathering.js';
import type { Contender } from '../../src/cli/bench/load.js';
import { HandOver } from './hand-over.js';
import { openLevel, openLmdb, openSqlite } from './peers.js';

export type ContenderName =
  | 'ringwal'
  | 'raw'
  | 'raw-again'
  | 'hand-over'
  | 'hand-over-again'
  | 'promises'
  | 'lmdb'
  | 'lmdb-sync'
  | 'level-put'
  | 'level-batch'
  | 'sqlite';

/** Where a contender sits in a process: which thread it is, and ringwal's way to the log of the main thread. */
export interface Seat {
  thread: number;
  handle?: ProducerHandle;
}

export interface Entrant {
  label: string;
  /** What bench/peers must have installed. */
  needs?: string;
  /** Counts its own fdatasyncs; for the others strace does. */
  counts: boolean;
  make(work: Work, directory: string, seat: Seat): Promise<Contender>;
}

/** What is written over again and again has the size of a segment. */
const OLD_BYTES = 64 * 1024 * 1024;

/** The order in tables and pictures. */
export const ENTRANTS: Record<ContenderName, Entrant> = {
  ringwal: { label: 'ringwal', counts: true, make: makeRingwal },
  raw: {
    label: 'gathering loop',
    counts: true,
    // Threads have a file each: a loop has no way to share one.
    make: (work, directory) => raw(work, directory),
  },
  'raw-again': {
    label: 'gathering loop, over old blocks',
    counts: true,
    make: (work, directory) => raw(work, directory, OLD_BYTES),
  },
  'hand-over': {
    label: 'hand-over only',
    counts: true,
    make: (work, directory) => HandOver.open(work, directory),
  },
  'hand-over-again': {
    label: 'hand-over only, over old blocks',
    counts: true,
    make: (work, directory) => HandOver.open(work, directory, OLD_BYTES),
  },
  promises: { label: 'promises only', counts: true, make: async () => new PromisesOnly() },
  lmdb: {
    label: 'lmdb, put then flushed',
    needs: 'lmdb',
    counts: false,
    make: async (work, directory, seat) => lmdb(work, directory, seat, true),
  },
  'lmdb-sync': {
    label: 'lmdb, overlappingSync off',
    needs: 'lmdb',
    counts: false,
    make: async (work, directory, seat) => lmdb(work, directory, seat, false),
  },
  'level-put': { label: 'classic-level, put', needs: 'classic-level', counts: false, make: levelPut },
  'level-batch': { label: 'classic-level, batch', needs: 'classic-level', counts: false, make: levelBatch },
  sqlite: { label: 'better-sqlite3, WAL', needs: 'better-sqlite3', counts: false, make: sqlite },
};

async function makeRingwal(work: Work, directory: string, { handle }: Seat): Promise<Contender> {
  if (handle === undefined) return ringwal(work, directory);
  const producer = await connect(handle);
  // Syncs are counted where the log is.
  return { append: appending(work, producer), syncs: () => 0, close: () => producer.close() };
}

/** Makes promises and resolves them, some time later and all that there are: what any API of promises must cost. */
class PromisesOnly implements Contender {
  #resolve: (() => void)[] = [];

  append(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#resolve.push(resolve) === 1) setImmediate(this.#resolveAll);
    });
  }

  syncs(): number {
    return 0;
  }

  async close(): Promise<void> {}

  readonly #resolveAll = (): void => {
    const all = this.#resolve;
    this.#resolve = [];
    for (const resolve of all) resolve();
  };
}

/** Keys of one thread rise, and do not meet those of another. */
const keysOf = (seat: Seat): number => seat.thread * 2 ** 28;
const uncounted = () => 0;

/** Durable when flushed; with the process gone, what was committed is still with the kernel. */
function lmdb(work: Work, directory: string, seat: Seat, overlappingSync: boolean): Contender {
  const database = openLmdb(path.join(directory, 'lmdb'), overlappingSync);
  const payload = Buffer.alloc(work.recordBytes, 'x');
  const flush = overlappingSync && work.level === 'disk';
  let key = keysOf(seat);
  const write =
    work.recordsPerCall === 1
      ? () => database.put(key++, payload)
      : () =>
          database.batch(() => {
            for (let i = 0; i < work.recordsPerCall; i++) void database.put(key++, payload);
          });
  const append = async () => {
    await write();
    if (flush) await database.flushed;
  };
  return { append: flush ? append : write, syncs: uncounted, close: () => database.close() };
}

function keyOf(key: number): Buffer {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeUInt32BE(Math.floor(key / 2 ** 32), 0);
  bytes.writeUInt32BE(key >>> 0, 4);
  return bytes;
}

async function levelPut(work: Work, directory: string, seat: Seat): Promise<Contender> {
  const level = await openLevel(path.join(directory, 'level'));
  const payload = Buffer.alloc(work.recordBytes, 'x');
  const options = { sync: work.level === 'disk' };
  let key = keysOf(seat);
  return {
    append: () => level.put(keyOf(key++), payload, options),
    syncs: uncounted,
    close: () => level.close(),
  };
}

/** Everything pending goes into one batch. */
async function levelBatch(work: Work, directory: string, seat: Seat): Promise<Contender> {
  const level = await openLevel(path.join(directory, 'level'));
  const options = { sync: work.level === 'disk' };
  let key = keysOf(seat);
  const gathering = new Gathering<readonly Uint8Array[]>((calls) =>
    level.batch(
      calls.flatMap((values) => values.map((value) => ({ type: 'put', key: keyOf(key++), value }) as const)),
      options,
    ),
  );
  const values = valuesOf(work);
  return { append: () => gathering.append(values), syncs: uncounted, close: () => level.close() };
}

/** Everything pending goes into one transaction. */
async function sqlite(work: Work, directory: string): Promise<Contender> {
  const database = openSqlite(path.join(directory, 'sqlite'), work.level === 'disk');
  const begin = database.prepare('begin immediate');
  const insert = database.prepare('insert into records (payload) values (?)');
  const commit = database.prepare('commit');
  const gathering = new Gathering<readonly Uint8Array[]>((calls) => {
    begin.run();
    for (const values of calls) for (const value of values) insert.run(value);
    commit.run();
  });
  const values = valuesOf(work);
  return { append: () => gathering.append(values), syncs: uncounted, close: async () => database.close() };
}

/** What one call appends. */
function valuesOf({ recordBytes, recordsPerCall }: Work): Uint8Array[] {
  return new Array<Uint8Array>(recordsPerCall).fill(Buffer.alloc(recordBytes, 'x'));
}
