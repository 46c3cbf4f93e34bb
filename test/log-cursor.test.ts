import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { Catalog } from '../src/reader/catalog.js';
import { nodeFiles } from '../src/reader/files.js';
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
