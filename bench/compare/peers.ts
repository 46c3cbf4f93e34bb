import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** What the peers need is installed beside them and nowhere else; from dist/ it is found by their manifest. */
export const PEERS = fileURLToPath(new URL('../../../bench/peers/package.json', import.meta.url));
export const INSTALL = 'npm ci --prefix bench/peers';

const require = createRequire(PEERS);

/** The module `name` of bench/peers; `T` is the part of it that the benchmarks use. */
export function peer<T>(name: string): T {
  return require(name) as T;
}

/** The same, of a package that is a module only. */
export async function peerModule<T>(name: string): Promise<T> {
  return (await import(require.resolve(name))) as T;
}

/** The version that is installed and can be loaded, or undefined. */
export function versionOf(name: string): string | undefined {
  try {
    // A native part that was not built for this Node is as good as not there.
    if (!name.startsWith('vega')) require(name);
    const manifest = path.join(path.dirname(PEERS), 'node_modules', name, 'package.json');
    return (JSON.parse(fs.readFileSync(manifest, 'utf8')) as { version: string }).version;
  } catch {
    return undefined;
  }
}

export interface Lmdb {
  put(key: number, value: Uint8Array): Promise<boolean>;
  batch(work: () => void): Promise<boolean>;
  readonly flushed: Promise<unknown>;
  getRange(options?: object): Iterable<{ key: number; value: Uint8Array }>;
  close(): Promise<void>;
}

export interface Level {
  open(): Promise<void>;
  put(key: Uint8Array, value: Uint8Array, options: { sync: boolean }): Promise<void>;
  batch(operations: { type: 'put'; key: Uint8Array; value: Uint8Array }[], options: { sync: boolean }): Promise<void>;
  iterator(): { nextv(size: number): Promise<[Uint8Array, Uint8Array][]>; close(): Promise<void> };
  close(): Promise<void>;
}

export interface Sqlite {
  pragma(text: string): unknown;
  exec(text: string): unknown;
  prepare(text: string): { run(...values: unknown[]): unknown; iterate(): Iterable<unknown> };
  close(): void;
}

export function openLmdb(directory: string, overlappingSync: boolean): Lmdb {
  const { open } = peer<{ open(options: object): Lmdb }>('lmdb');
  return open({ path: directory, encoding: 'binary', keyEncoding: 'uint32', overlappingSync });
}

export async function openLevel(directory: string): Promise<Level> {
  const { ClassicLevel } = peer<{ ClassicLevel: new (path: string, options: object) => Level }>('classic-level');
  const level = new ClassicLevel(directory, { keyEncoding: 'buffer', valueEncoding: 'buffer', multithreading: true });
  await level.open();
  return level;
}

export function openSqlite(file: string, sync: boolean): Sqlite {
  const Database = peer<new (path: string, options: object) => Sqlite>('better-sqlite3');
  const database = new Database(file, { timeout: 60_000 });
  database.pragma('journal_mode = WAL');
  database.pragma(`synchronous = ${sync ? 'FULL' : 'NORMAL'}`);
  database.exec('create table if not exists records (id integer primary key, payload blob not null)');
  return database;
}
