import fs from 'node:fs';
import fsp from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import path from 'node:path';
import { setImmediate } from 'node:timers/promises';
import type { BatchOperation } from 'ringwal';
import t from 'tap';
import { Store, type StoreOptions } from '../examples/memtable/store.js';
import { failure, numbers, type Scope, temporaryDirectory } from './helpers.js';

/** The LSM store of examples/memtable: what its own run, which only kills processes, cannot show. */

const { open } = fsp;

/** A file's bytes as of its last sync, or undefined. */
interface OnPlatter {
  bytes: Buffer | undefined;
}

/**
 * What of the table files survives a power cut, by the syncs that were really made: a file has the bytes of its last sync, a
 * directory the names of its own. (The log's own durability is another test's business: it is copied as it is.)
 */
class Platter {
  readonly #directory: string;
  readonly #files = new Map<number, OnPlatter>();
  #names = new Map<string, OnPlatter>();

  constructor(t: Scope, directory: string) {
    this.#directory = directory;
    const watched = async (...args: Parameters<typeof open>) => {
      const handle = await open(...args);
      const file = String(args[0]);
      if (file !== directory && path.dirname(file) !== directory) return handle;
      if (args[1] === 'w') this.#files.set((await handle.stat()).ino, { bytes: undefined });
      const sync = handle.sync.bind(handle);
      handle.sync = async () => {
        await sync();
        this.#synced(file);
      };
      return handle;
    };
    replaceOpen(watched);
    t.teardown(() => replaceOpen(open));
  }

  #synced(file: string): void {
    if (file === this.#directory) this.#names = this.#namesNow();
    else this.#files.get(fs.statSync(file).ino)!.bytes = fs.readFileSync(file);
  }

  #namesNow(): Map<string, OnPlatter> {
    const tables = fs.readdirSync(this.#directory).filter((name) => name.includes('.table'));
    return new Map(tables.map((name) => [name, this.#files.get(fs.statSync(path.join(this.#directory, name)).ino)!]));
  }

  /** Copies of the store as a power cut may leave it now. (That everything survives is what the example's own kills show.) */
  images(into: string): string[] {
    const image = (kind: string, names: Map<string, OnPlatter>) => {
      const copy = path.join(into, kind);
      fs.rmSync(copy, { recursive: true, force: true });
      fs.cpSync(path.join(this.#directory, 'log'), path.join(copy, 'log'), { recursive: true });
      for (const [name, { bytes }] of names) fs.writeFileSync(path.join(copy, name), bytes ?? '');
      return copy;
    };
    const now = this.#namesNow();
    return [
      image('nothing that was not synced survived', this.#names),
      image('names survived, and bytes that were not synced did not', now),
    ];
  }
}

function replaceOpen(by: typeof open): void {
  fsp.open = by;
  syncBuiltinESMExports();
}

function contents(store: Store): Record<string, string> {
  return Object.fromEntries([...store.entries()].map(([key, value]) => [`${key}`, `${value}`]));
}

function tableFiles(directory: string): string[] {
  return fs.readdirSync(directory).filter((name) => name.includes('.table'));
}

async function openStore(t: Scope, directory: string, options: StoreOptions = {}): Promise<Store> {
  const store = await Store.open(directory, { segmentBytes: 64 * 1024, ...options });
  t.teardown(() => store.close());
  return store;
}

t.test('the memtable example loses nothing to a power cut behind any step of a flush or a merge', async (t) => {
  const directory = temporaryDirectory(t);
  const platter = new Platter(t, directory);
  const copies = temporaryDirectory(t);
  const model: Record<string, string> = {};
  const seen = new Set<string>();
  const put = async (key: string, value: string) => {
    await store.put(key, value);
    model[key] = value;
  };
  const remove = async (key: string) => {
    await store.delete(key);
    delete model[key];
  };
  const store: Store = await openStore(t, directory, {
    onStep: async (step) => {
      if (seen.has(step)) return;
      seen.add(step);
      const { disk, memory } = store.wal.stats().watermarks;
      if (step.includes('manifest')) t.equal(disk, memory, 'the manifest has reached the disk, as it says');
      // What is written meanwhile lies in the log between the last operation in the table and the manifest.
      await put(`first during ${step}`, 'and never again');
      await put('overwritten', `during ${step}`);
      await remove('deleted meanwhile');
      for (const image of platter.images(copies)) {
        const copy = await Store.open(image, { segmentBytes: 64 * 1024 });
        t.same(contents(copy), model, `${step}: ${path.basename(image)}`);
        await copy.flush();
        t.same(contents(copy), model, 'and it goes on');
        t.equal(tableFiles(image).length, copy.tables.length, 'no file is left over');
        await copy.close();
      }
    },
  });
  for (let round = 0; round < 6; round++) {
    await Promise.all(numbers(0, 19).map((i) => put(`key ${(i * 7 + round) % 40}`, `${round} ${'.'.repeat(100)}`)));
    await remove(`key ${round}`);
    await put('deleted meanwhile', 'not yet');
    await put('overwritten', 'not yet');
    await store.flush();
  }
  t.equal([...seen].filter((step) => step.startsWith('flush')).length, 7, 'each step of a flush');
  t.equal([...seen].filter((step) => step.startsWith('merge')).length, 6, 'each step of a merge');
});

t.test('a flush that fails loses nothing, and the next open cleans up behind it', async (t) => {
  const directory = temporaryDirectory(t);
  let fails = false;
  const store = await openStore(t, directory, {
    memtableBytes: 4096,
    onStep: (step) => {
      if (fails && step === 'flush: table renamed') throw new Error('the disk is gone');
    },
  });
  await store.put('a', 'in a table');
  await store.flush();
  fails = true;
  await store.put('b', 'in the log');
  t.match(await failure(store.flush()), { message: 'the disk is gone' });
  t.same(contents(store), { a: 'in a table', b: 'in the log' }, 'it can still be read');
  await store.put('c', 'x'.repeat(4096));
  t.match(await failure(store.put('d', '')), { message: 'the disk is gone' }, 'a write that finds no room is told why');
  await store.close();
  const again = await openStore(t, directory);
  t.same(again.found.orphans, ['000002.table']);
  t.same(contents(again), { a: 'in a table', b: 'in the log', c: 'x'.repeat(4096) });
});

t.test('a flush, and the order of writes, go by LSNs and not by the order of acknowledgements', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory);
  const { wal } = store;
  const put = wal.put.bind(wal);
  const released = new Map<string, () => void>();
  // As it may be with transactions: the log has the record, and says so later than of the next.
  wal.put = async (key, value, options) => {
    const lsn = await put(key, value, options);
    if (`${value}`.startsWith('late')) await new Promise<void>((resolve) => released.set(`${value}`, resolve));
    return lsn;
  };
  const release = async (name: string) => {
    while (!released.has(name)) await setImmediate();
    released.get(name)!();
  };
  const late = [store.put('a', 'late 1')];
  await Promise.all([store.put('a', 'newer'), store.put('b', 'there')]);
  const flush = store.flush();
  late.push(store.put('c', 'late 2'));
  const during = store.put('d', 'there');
  await wal.sync();
  t.equal(wal.watermark('memory'), 3, 'no write begins before those under way have ended');
  await release('late 1');
  await Promise.all([flush, during]);
  const image = path.join(temporaryDirectory(t), 'copy');
  fs.cpSync(directory, image, { recursive: true });
  await release('late 2');
  await Promise.all(late);
  const expected = { a: 'newer', b: 'there', c: 'late 2', d: 'there' };
  t.same(contents(store), expected);
  await store.flush();
  t.same(contents(store), expected);
  t.same(contents(await openStore(t, image)), expected, 'and after a crash behind the first flush');
});

t.test('what is read is what the next open finds, also of writes to one key that were under way at once', async (t) => {
  const directory = temporaryDirectory(t);
  const options: StoreOptions = { memtableBytes: 16 * 1024, segmentBytes: 1024 * 1024, durability: 'os' };
  let store = await openStore(t, directory, options);
  const value = (i: number) => `${i} ${'.'.repeat(i % 97)}`;
  const write = (i: number): Promise<void> => {
    const key = `key ${(i * i) % 5}`;
    const operations: BatchOperation[] = [
      { type: 'put', key, value: value(i) },
      { type: 'put', key: `key ${i % 5}`, value: value(i) },
      { type: 'del', key: `key ${i % 3}` },
    ];
    if (i % 7 === 0) return store.transaction(operations);
    if (i % 5 === 0) return store.batch(operations);
    return i % 11 === 0 ? store.delete(key) : store.put(`${i % 2 === 0 ? key : i}`, value(i));
  };
  for (let round = 0; round < 4; round++) {
    const writes = numbers(round * 500, round * 500 + 499).map(write);
    // Too large for one frame: it is written in parts, and its commit comes behind what was called after it.
    const large = '.'.repeat(3 * 1024 * 1024);
    const parts = numbers(0, 3).map((i): BatchOperation => ({ type: 'put', key: `large ${i}`, value: large }));
    if (round === 2) writes.push(store.transaction([...parts, { type: 'put', key: 'key 1', value: 'large' }]));
    writes.push(store.put('key 1', 'after it'));
    await Promise.all(writes);
    const before = contents(store);
    await store.close();
    store = await openStore(t, directory, options);
    t.strictSame(contents(store), before);
  }
});

t.test('an iteration goes on over tables that are merged away under it', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory);
  const flushRound = async (round: number) => {
    await Promise.all(numbers(1, 200).map((i) => store.put(`key ${i}`, `${round} ${'.'.repeat(200)}`)));
    await store.flush();
  };
  for (let round = 0; round < 3; round++) await flushRound(round);
  const iteration = store.entries();
  const first = iteration.next();
  await flushRound(3);
  t.equal(store.tables.length, 1, 'the four are one now');
  const values = [first.value!, ...iteration].map(([, value]) => `${value}`.slice(0, 1));
  t.equal(values.length, 200);
  t.ok(
    values.every((value) => value === '2'),
    'as it was when it began',
  );
});

t.test('deletes hide what older tables hold, and go when there is nothing older', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory);
  // Large: the merges of small tables leave it alone.
  await Promise.all(numbers(0, 99).map((i) => store.put(`key ${i}`, '.'.repeat(400))));
  await store.flush();
  for (let i = 0; i < 4; i++) {
    await store.delete(`key ${i}`);
    await store.flush();
  }
  t.equal(store.tables.length, 2, 'the small ones were merged');
  t.equal(store.get('key 1'), undefined);
  t.equal([...store.entries()].length, 96);
  await store.transaction(numbers(0, 99).map((i) => ({ type: 'put', key: `other ${i}`, value: '.'.repeat(400) })));
  await store.flush();
  await Promise.all(numbers(0, 99).flatMap((i) => [store.delete(`key ${i}`), store.delete(`other ${i}`)]));
  await store.flush();
  t.ok(store.tables.length > 2);
  await store.put('last', 'x'.repeat(200_000));
  await store.flush();
  t.equal(store.tables.length, 1, 'behind a large one all of them are merged');
  t.same(contents(store), { last: 'x'.repeat(200_000) });
  t.ok(store.tables[0] < 201_000, 'the table below which there is none holds no tombstones');
});

t.test('keys and values of any bytes are kept, in the order of the bytes', async (t) => {
  const directory = temporaryDirectory(t);
  const keys = ['', '\0', 'a\0b', 'a', 'é', '😀', 'flushed', '1', 'm1', 'u'].map((key) => Buffer.from(key));
  keys.push(Buffer.from([255, 254, 0]), Buffer.from([128]));
  const store = await openStore(t, directory);
  await store.batch(keys.map((key) => ({ type: 'put', key, value: key })));
  const expected = [...keys].sort(Buffer.compare).map((key) => [key, key]);
  t.same([...store.entries()], expected, 'from memory');
  await store.flush();
  t.same([...store.entries()], expected, 'from a table');
  for (const key of keys) t.same(store.get(key), key);
  await store.close();
  const again = await openStore(t, directory);
  t.same([...again.entries()], expected, 'after opening it again');
});

t.test('a table that is damaged, cut short or gone is told of, and nothing is removed', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory);
  await Promise.all(numbers(0, 99).map((i) => store.put(`key ${i}`, '.'.repeat(100))));
  await store.flush();
  await store.close();
  const file = path.join(directory, tableFiles(directory)[0]);
  const sound = fs.readFileSync(file);
  fs.writeFileSync(path.join(directory, '000009.table'), 'an orphan');
  const refused = async (bytes: Buffer | undefined, expected: RegExp) => {
    if (bytes === undefined) fs.rmSync(file);
    else fs.writeFileSync(file, bytes);
    t.match(await failure(Store.open(directory)), { message: expected });
    t.ok(fs.existsSync(path.join(directory, '000009.table')));
  };
  await refused(sound.subarray(0, -1), /damaged/);
  await refused(sound.subarray(0, 7), /shorter/);
  await refused(Buffer.concat([sound.subarray(0, -30), Buffer.alloc(30)]), /damaged/);
  await refused(undefined, /ENOENT/);
  const flipped = Buffer.from(sound);
  flipped[1000] ^= 1;
  fs.writeFileSync(file, flipped);
  const damaged = await openStore(t, directory);
  t.match(await failure(() => [...damaged.entries()]), { message: /damaged/ }, 'also where it is only met by reading');
});

t.test('a log that was cleaned up and names no tables is refused, and nothing is removed', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore(t, directory);
  await store.put('key', 'value');
  await store.flush();
  await store.wal.checkpoint(store.wal.watermark('disk'));
  await store.close();
  t.match(await failure(Store.open(directory)), { message: /names no tables/ });
  t.equal(tableFiles(directory).length, 1);
});
