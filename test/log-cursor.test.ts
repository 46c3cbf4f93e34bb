import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { Catalog } from '../src/reader/catalog.js';
import { nodeFiles, type ReadableFile, type ReadableFiles } from '../src/reader/files.js';
import { FilesSource } from '../src/reader/files-source.js';
import { LogCursor } from '../src/reader/log-cursor.js';
import { inspectLive } from '../src/recovery/inspect-live.js';
import { NodeStorage } from '../src/storage/node-storage.js';
import { collect, numbers, openLog, payloads, temporaryDirectory } from './helpers.js';

async function sourceOf(directory: string): Promise<FilesSource> {
  const found = await inspectLive(new NodeStorage(directory), 'tolerate-torn-tail');
  return new FilesSource(directory, new Catalog(nodeFiles(directory), found.segments.at(-1)?.id), found);
}

t.test('a cursor that stops in the middle of a frame goes on there', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, {}, directory);
  await wal.appendMany(numbers(1, 10).map(String));
  await wal.appendMany(numbers(11, 20).map(String));
  for (const place of ['the last segment', 'a finished one']) {
    const source = await sourceOf(directory);
    const cursor = new LogCursor(source, 1);
    const found: string[] = [];
    for (const to of [4, 5, 13, 20]) found.push(...payloads((await cursor.read(to)) ?? []));
    while (cursor.next <= 20) found.push(...payloads((await cursor.read(20)) ?? []));
    t.same(found, numbers(1, 20).map(String), place);
    await cursor.close();
    await source.close();
    await wal.rotate();
    await wal.append('21');
  }
});

t.test('a follower in another process misses nothing when the log is cut in the middle of frames', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { segmentBytes: 65536 }, directory);
  await wal.append('first');
  for (let round = 0; round < 10; round++) {
    const from = wal.watermark('os') + 1;
    await wal.appendMany(numbers(1, 20).map((i) => `${round} void ${i}`));
    const log = await WriteAheadLog.open(directory, { readOnly: true });
    await wal.truncateAfter(from + 4);
    const kept = numbers(1, 5).map((i) => `${round} void ${i}`);
    const following = (async () => {
      const seen: string[] = [];
      let next = from;
      for await (const record of log.read({ from, follow: true, level: 'os' })) {
        if (record.lsn !== next++) throw new Error(`LSN ${record.lsn} came in the place of ${next - 1}.`);
        seen.push(...payloads([record]));
        if (record.lsn === from + 34) break;
      }
      return seen;
    })();
    const added = numbers(1, 30).map((i) => `${round} new ${i}`);
    await wal.appendMany(added);
    t.same(await following, [...kept, ...added], `round ${round}`);
    await log.close();
    t.equal((await collect(wal.read({ from, to: from + 34 }))).length, 35);
  }
});

t.test('whichever read or look at a file fails, the cursor leaves no file open', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, {}, directory);
  for (let segment = 0; segment < 2; segment++) {
    await wal.appendMany(numbers(1, 10).map(String));
    await wal.rotate();
  }
  await wal.close();
  const found = await inspectLive(new NodeStorage(directory), 'tolerate-torn-tail');
  let failAt = 1;
  for (; failAt < 100; failAt++) {
    const faulty = new FaultyFiles(directory, failAt);
    const source = new FilesSource(directory, new Catalog(faulty), found);
    const cursor = new LogCursor(source, 5);
    try {
      while (cursor.next <= 20) await cursor.read(20);
      break;
    } catch (error) {
      t.match(error, { code: 'EIO' });
    } finally {
      await cursor.close();
      t.equal(faulty.opened, 0, `the call number ${failAt} fails`);
      await source.close();
    }
  }
  t.ok(failAt > 6 && failAt < 100, `${failAt - 1} calls`);
});

/** Files of which one call fails, and which counts those that are open. */
class FaultyFiles implements ReadableFiles {
  opened = 0;
  failList = false;
  readonly #files: ReadableFiles;
  #left: number;

  constructor(directory: string, failAt: number) {
    this.#files = nodeFiles(directory);
    this.#left = failAt;
  }

  list(): Promise<string[]> {
    return this.failList ? eio() : this.#files.list();
  }

  async open(name: string): Promise<ReadableFile> {
    const file = await this.#files.open(name);
    this.opened++;
    return {
      size: () => this.#tick() ?? file.size(),
      read: (target, position) => this.#tick() ?? file.read(target, position),
      close: async () => {
        this.opened--;
        await file.close();
      },
    };
  }

  #tick(): Promise<never> | undefined {
    return --this.#left === 0 ? eio() : undefined;
  }
}

t.test('a cut that a look at the directory missed is known before the next record is read', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, {}, directory);
  for (let group = 0; group < 3; group++) {
    await wal.appendMany(numbers(1, 10).map((i) => `old ${group * 10 + i}`));
  }
  await wal.rotate();
  const found = await inspectLive(new NodeStorage(directory), 'tolerate-torn-tail');
  const files = new FaultyFiles(directory, Number.POSITIVE_INFINITY);
  const catalog = new Catalog(files);
  const source = new FilesSource(directory, catalog, found);
  const [behind, before] = [new LogCursor(source, 11), new LogCursor(source, 1)];
  await before.read(10);
  await behind.read(20);
  await wal.truncateAfter(15);
  await wal.appendMany(numbers(16, 30).map((i) => `new ${i}`));
  files.failList = true;
  await t.rejects(catalog.refresh(), { code: 'EIO' });
  files.failList = false;
  await t.rejects(behind.read(30), { code: 'ERR_WAL_TRUNCATED' });
  const read: string[] = [];
  while (before.next <= 30) read.push(...payloads((await before.read(30)) ?? []));
  t.same(read.slice(-20), [...numbers(11, 15).map((i) => `old ${i}`), ...numbers(16, 30).map((i) => `new ${i}`)]);
  await behind.close();
  await before.close();
  await source.close();
});

function eio(): Promise<never> {
  return Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' }));
}
