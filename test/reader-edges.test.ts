import fs from 'node:fs';
import path from 'node:path';
import { verifyLog } from 'ringwal';
import t, { type Test } from 'tap';
import type { FrameHeader } from '../src/format/frame.js';
import { align8 } from '../src/format/integers.js';
import { Level } from '../src/format/levels.js';
import { Catalog } from '../src/reader/catalog.js';
import { FileWatermarks } from '../src/reader/file-watermarks.js';
import type { ReadableFiles } from '../src/reader/files.js';
import { FrameStream } from '../src/reader/frame-stream.js';
import { readSealAt } from '../src/reader/index-lookup.js';
import { LogCursor } from '../src/reader/log-cursor.js';
import type { LogSource } from '../src/reader/log-source.js';
import { firstLsnSince } from '../src/reader/time-lookup.js';
import { transactionRecords } from '../src/reader/transaction-records.js';
import { verifyFiles } from '../src/reader/verify.js';
import { segmentName, spareName } from '../src/segments/names.js';
import { readHeader, withFile } from '../src/segments/read-segment.js';
import { data, KeyLog, put } from './compaction-helpers.js';
import { collect, failsWith, failure, openLog, payloads, temporaryDirectory } from './helpers.js';
import { framesOf, readAll, sourceOf } from './simulation/reading.js';
import { readableFiles, type SimulatedDisk } from './simulation/simulated-disk.js';
import { SEGMENT_BYTES, SimulatedLog } from './simulation/simulated-log.js';

/** What others do to a log's files between two looks of a reader, each in its place. */

const FIRST = segmentName(1);

/** Three segments of two frames each, with two records in a frame; the last one is not sealed. */
function threeSegments(): SimulatedLog {
  const log = new SimulatedLog();
  for (let segment = 0; segment < 3; segment++) {
    if (segment > 0) log.sequencer.rotate();
    for (let frame = 0; frame < 2; frame++) {
      log.clock += 10;
      log.append(Level.Disk, 2);
      log.sequencer.step();
      log.collect();
    }
  }
  return log;
}

/** The files of a disk; `before` is called ahead of each open, list and read, with how many there were. */
function watched(disk: SimulatedDisk, before: (look: number) => void): ReadableFiles {
  const files = readableFiles(disk);
  let looks = 0;
  return {
    list: async () => {
      before(++looks);
      return files.list();
    },
    open: async (name) => {
      before(++looks);
      const file = await files.open(name);
      const read = (target: Uint8Array, position: number) => {
        before(++looks);
        return file.read(target, position);
      };
      return { ...file, read };
    },
  };
}

async function cleanedUpAtEveryLook(
  t: Test,
  work: (files: ReadableFiles, log: SimulatedLog) => Promise<unknown>,
): Promise<void> {
  for (const go of [
    (disk: SimulatedDisk, name: string) => disk.remove(name),
    // A writer made its next segment of it.
    (disk: SimulatedDisk, name: string) => {
      disk.rename(name, spareName(name));
      disk.overwrite(spareName(name), new Uint8Array(SEGMENT_BYTES / 2).fill(0xff), 0);
    },
  ]) {
    await goneAtEveryLook(t, work, go);
  }
}

async function goneAtEveryLook(
  t: Test,
  work: (files: ReadableFiles, log: SimulatedLog) => Promise<unknown>,
  go: (disk: SimulatedDisk, name: string) => void,
): Promise<void> {
  let points = 0;
  for (let at = 1, reached = true; reached; at++) {
    const log = threeSegments();
    const { disk, sequencer } = log;
    sequencer.updateState((state) => ({ ...state, checkpoint: 8 }));
    const gone = sequencer.cleanup().map(({ name }) => name);
    t.same(gone, [FIRST, segmentName(2)]);
    reached = false;
    const files = watched(disk, (look) => {
      if (look !== at) return;
      reached = true;
      for (const name of gone) go(disk, name);
    });
    await work(files, log);
    points++;
  }
  t.ok(points > 5, `the files went at each of ${points} moments`);
}

t.test('files that are cleaned up while a log is verified are no damage, whenever they go', async (t) => {
  await cleanedUpAtEveryLook(t, async (files) => {
    const { verdict, damage, firstLsn, lastLsn } = await verifyFiles(files);
    t.same([verdict, damage, firstLsn, lastLsn], ['clean', [], 9, 12]);
  });
});

t.test('files that are cleaned up while a time is looked up lead to no other record, whenever they go', async (t) => {
  await cleanedUpAtEveryLook(t, async (files, { clock }) => {
    const source = sourceOf(files, 9, 12);
    t.equal(await firstLsnSince(source, 0), 9);
    t.equal(await firstLsnSince(source, clock - 10), 9);
    t.equal(await firstLsnSince(source, clock), 11);
  });
});

t.test('a live segment that grows while its end is looked at is read on', async (t) => {
  const { disk } = threeSegments();
  const { offsets, end } = framesOf(disk, segmentName(3));
  // As shared memory tells it: when it is opened, before either frame is read, and at the end of the first.
  const ends = [offsets[1], offsets[1], offsets[1]];
  const source = {
    ...sourceOf(disk, 1, 12),
    liveEnd: (id: number) => (id === 3 ? (ends.shift() ?? align8(end)) : undefined),
  };
  const cursor = new LogCursor(source, 9);
  const found: number[] = [];
  while (cursor.next <= 12) for (const { lsn } of (await cursor.read(12)) ?? []) found.push(lsn);
  t.same(found, [9, 10, 11, 12]);
  await cursor.close();
});

t.test('a file that is another whenever it is opened is not tried for ever', async (t) => {
  const { disk } = threeSegments();
  let opened = 0;
  class Restless extends Catalog {
    override async isFileOf(): Promise<boolean> {
      opened++;
      return false;
    }
  }
  const cursor = new LogCursor({ ...sourceOf(disk, 1, 12), catalog: new Restless(readableFiles(disk)) }, 1);
  await failsWith(t, 'ERR_WAL_TRUNCATED', cursor.read(12));
  t.ok(opened > 1 && opened <= 10, `${opened} times`);
  await cursor.close();
  t.equal(disk.openFiles, 1, "the writer's own");
});

t.test('a cut that was compacted before anybody looked is a cut all the same, and counts once', async (t) => {
  for (const looks of [true, false]) {
    const log = new KeyLog();
    log.write(data('1'), data('2'), data('3'));
    const catalog = new Catalog(readableFiles(log.disk));
    await catalog.refresh();
    log.cut(2);
    if (looks) await catalog.refresh();
    for (const value of ['old', 'newer', 'new']) {
      log.write(put('key', value), data(value));
      log.sequencer.rotate();
    }
    t.equal(log.compact(), 2);
    t.notOk(log.disk.list().includes(segmentName(2)), 'the segment that cut is within another');
    await catalog.refresh();
    t.same([catalog.cuts.count, catalog.cuts.keptSince(0)], [1, 2], looks ? 'known before' : 'not known before');
  }
});

t.test('a stream that its caller let wait is read again from where the writer went on', async (t) => {
  const log = new SimulatedLog();
  const append = () => {
    log.append(Level.Disk, 1);
    log.sequencer.step();
    log.collect();
  };
  append();
  append();
  const { headerBytes, salt, firstLsn, headerCrc } = withFile(log.disk, FIRST, readHeader);
  const file = await readableFiles(log.disk).open(FIRST);
  const end = await file.size();
  const stream = new FrameStream(file, headerBytes, end, { salt, lsn: firstLsn, previousCrc: headerCrc });
  const found: number[] = [];
  const visit = ({ firstLsn }: FrameHeader) => found.push(firstLsn) > 0;
  t.equal(await stream.advance(visit, 1), false, 'the next frame lies above');
  append();
  stream.resume(end);
  while (await stream.advance(visit));
  t.same(found, [1, 2, 3]);
  await stream.settle();
  await file.close();
});

t.test('a file that ends before it should has no seal, and its records are damage with their place', async (t) => {
  const { disk } = threeSegments();
  const header = withFile(disk, FIRST, readHeader);
  const { offsets, end } = framesOf(disk, FIRST);
  const file = disk.open(FIRST, 'write');
  file.truncate(offsets[1]);
  const readable = await readableFiles(disk).open(FIRST);
  t.equal(await readSealAt(readable, header, end), undefined);
  await readable.close();
  t.equal((await readAll(disk, 1, 2)).length, 2, 'what is there is read');
  await failsWith(t, 'ERR_WAL_CORRUPT', readAll(disk, 1, 12, 3));
});

t.test('operations of a transaction that are not all there are damage, and none of them is shown', async (t) => {
  const log = new KeyLog();
  const id = log.begin();
  log.writePart(id, put('a', '1'), put('b', '2'));
  log.end(id, 'commit');
  const source = log.source();
  const shown = await collect(transactionRecords(source, { id, first: 1, last: 2, operations: 2 }));
  t.equal(shown.flat().length, 2);
  const seen: unknown[] = [];
  const error = await failsWith(t, 'ERR_WAL_CORRUPT', async () => {
    for await (const records of transactionRecords(source, { id, first: 1, last: 2, operations: 3 }))
      seen.push(records);
  });
  t.equal(error.lsn, 1);
  t.same(seen, []);
});

t.test('those who wait for a log of another process hear that it cannot be read, and that it is closed', async (t) => {
  const { disk } = threeSegments();
  const directory = temporaryDirectory(t);
  const works: LogSource = { ...sourceOf(disk, 1, 12), promised: () => 0 };
  const broken = new Error('EIO');
  let fails = false;
  const catalog = new Catalog({
    ...readableFiles(disk),
    list: async () => {
      if (fails) throw broken;
      return disk.list();
    },
  });
  const watermarks = new FileWatermarks(directory, { ...works, catalog }, 1);
  t.equal(await watermarks.latest(), 12);
  fails = true;
  t.equal(await failure(watermarks.reached(Level.Os, 13)), broken);
  fails = false;
  t.equal(await watermarks.reached(Level.Os, 12), true, 'and it can be asked again');
  await watermarks.close();
  t.equal(await watermarks.reached(Level.Os, 12), false);
  t.equal(disk.openFiles, 1, "the writer's own");
});

t.test('without notifications of files a log of another process is followed all the same', async (t) => {
  const { disk } = threeSegments();
  const source: LogSource = { ...sourceOf(disk, 1, 12), promised: () => 0 };
  const nowhere = path.join(temporaryDirectory(t), 'nowhere');
  const watermarks = new FileWatermarks(nowhere, source, 1);
  t.equal(await watermarks.reached(Level.Os, 12), true);
  await watermarks.close();
});

t.test('what cannot be read is no damage: verify says so', async (t) => {
  const wal = await openLog(t);
  await wal.append('x');
  await wal.close();
  const [name] = fs.readdirSync(wal.directory).filter((file) => file.endsWith('.wal'));
  fs.mkdirSync(path.join(wal.directory, segmentName(2)));
  const error = await failsWith(t, 'ERR_WAL_FAILED', verifyLog(wal.directory));
  t.match(error, { message: /cannot be read/, cause: { code: 'EISDIR' } });
  fs.rmdirSync(path.join(wal.directory, segmentName(2)));
  t.match(await verifyLog(wal.directory), { verdict: 'clean', records: 1 }, name);
});

t.test('a log that is only read has nothing replicated, and ends where it was found', async (t) => {
  const wal = await openLog(t);
  await wal.appendMany(['1', '2'], { signal: new AbortController().signal });
  t.same(await wal.appendMany([], { signal: new AbortController().signal }), await wal.appendMany([]));
  await wal.close();
  const reader = await openLog(t, { readOnly: true }, wal.directory);
  t.same([reader.watermark('replicated'), reader.watermark('disk')], [0, 2]);
  t.match(await collect(reader.read()), [{ lsn: 1 }, { lsn: 2 }]);
});

t.test('a record that was read ahead and then cut off is not delivered', async (t) => {
  const wal = await openLog(t);
  await wal.appendMany(['1', '2', '3', '4']);
  const reading = wal.read()[Symbol.asyncIterator]();
  t.same(payloads([(await reading.next()).value]), ['1']);
  await wal.truncateAfter(2);
  t.same(payloads([(await reading.next()).value]), ['2'], 'what the cut left is');
  const error = await failsWith(t, 'ERR_WAL_TRUNCATED', reading.next());
  t.equal(error.lsn, 3);
  t.same(await reading.next(), { done: true, value: undefined }, 'and the read is over');
});

t.test('bad bounds of a read are refused, and progress is told', async (t) => {
  const wal = await openLog(t);
  await wal.appendMany(['1', '2', '3']);
  const bad = [{ follow: 'yes' }, { onProgress: 'often' }, { from: new Date(Number.NaN) }, { to: new Date('never') }];
  for (const options of bad as object[]) t.throws(() => wal.read(options), { code: 'ERR_WAL_INVALID_ARGUMENT' });
  const said: [unknown, string][] = [
    ['x'.repeat(1000), `not '${'x'.repeat(40)}…'`],
    [Object.create(null), 'not an instance of Object'],
    [[], 'not an array'],
  ];
  for (const [follow, message] of said) t.throws(() => wal.read({ follow: follow as boolean }), { message });
  const told: unknown[] = [];
  await collect(wal.read({ from: 2, onProgress: (progress) => told.push(progress) }));
  t.match(told, [{ lsn: 3, records: 2, from: 2, to: 3 }]);
});
