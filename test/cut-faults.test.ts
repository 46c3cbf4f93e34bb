// First of all: whatever starts threads after this starts them on a disk that fails on command.
import './fixtures/faults.js';

import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import t, { type Test } from 'tap';
import { Level } from '../src/format/levels.js';
import { filesOf } from '../src/reader/storage-files.js';
import { verifyFiles } from '../src/reader/verify.js';
import { inspectLog } from '../src/recovery/recover.js';
import { segmentName } from '../src/segments/names.js';
import { readHeader, withFile } from '../src/segments/read-segment.js';
import { Fault, heal, inject } from './fixtures/faults.js';
import { collect, failsWith, numbers, openLog, payloads, temporaryDirectory } from './helpers.js';
import { readWith } from './hostile/reading.js';
import { Random } from './simulation/random.js';
import { idOf } from './simulation/records.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';
import { SimulatedLog } from './simulation/simulated-log.js';

t.afterEach(heal);

t.test(
  'a log that failed in the middle of a cut: what may have been cut off is no damage, and a reopen settles it',
  async (t) => {
    for (const fault of [Fault.folderSync, Fault.rename, Fault.sync]) {
      const directory = temporaryDirectory(t);
      const wal = await openLog(t, {}, directory);
      wal.on('error', () => {});
      for (const i of numbers(1, 9)) await wal.append(`${i}`);
      const follower = wal.read({ follow: true })[Symbol.asyncIterator]();
      for (const i of numbers(1, 9)) t.equal((await follower.next()).value?.lsn, i);
      const next = failsWith(t, 'ERR_WAL_FAILED', follower.next(), 'a follower above it');
      inject(fault, 1);
      await failsWith(t, 'ERR_WAL_FAILED', wal.truncateAfter(5));
      heal();
      await next;
      const found: number[] = [];
      const reading = async () => {
        for await (const { lsn } of wal.read()) found.push(lsn);
      };
      await reading().catch(({ code }) => t.equal(code, 'ERR_WAL_FAILED', 'not damage'));
      t.same(found.slice(0, 5), numbers(1, 5), 'what was not to be cut off can be read');
      await wal.close();
      const again = await openLog(t, {}, directory);
      const left = payloads(await collect(again.read()));
      t.ok(left.length === 5 || left.length === 9, 'it was made, or it was not');
      t.same(left, numbers(1, left.length).map(String));
      await again.close();
    }
  },
);

/** Has looks at a directory fail in this thread, but for the first so many. */
function failLooks(t: Test, after: number): { looks: number } {
  const seen = { looks: 0 };
  const { readdir } = fs.promises;
  fs.promises.readdir = (async (...args: Parameters<typeof readdir>) => {
    if (++seen.looks > after) throw Object.assign(new Error('EIO: injected, scandir'), { code: 'EIO', errno: -5 });
    return readdir(...args);
  }) as typeof readdir;
  syncBuiltinESMExports();
  t.teardown(() => healLooks(readdir));
  return seen;
}

function healLooks(readdir: typeof fs.promises.readdir): void {
  fs.promises.readdir = readdir;
  syncBuiltinESMExports();
}

t.test('a cut behind which the directory cannot be read is made, and whoever reads then goes by it', async (t) => {
  const { readdir } = fs.promises;
  const wal = await openLog(t, { autoCleanup: false });
  for (const i of numbers(1, 6)) await wal.append(`${i}`);
  t.equal((await collect(wal.read())).length, 6);
  // The first look of a cut is at what there was before it.
  const seen = failLooks(t, 1);
  await wal.truncateAfter(3);
  t.ok(seen.looks > 1, 'the second one failed');
  t.equal(wal.watermark('disk'), 3);
  await failsWith(t, 'ERR_WAL_FAILED', collect(wal.read()), 'a read that cannot look either');
  healLooks(readdir);
  t.equal(await wal.append('in its place'), 4);
  t.equal(await wal.append('behind it'), 5);
  t.same(payloads(await collect(wal.read({ from: 5 }))), ['behind it'], 'it began after the cut, which is none to it');
  t.same(payloads(await collect(wal.read())), ['1', '2', '3', 'in its place', 'behind it']);
});

t.test(
  'what the end of a closed log was when it was opened stays, also when it had been in the page cache alone',
  (t) => {
    for (const growing of [false, true]) {
      for (let seed = 0; seed < 30; seed++) {
        const disk = new SimulatedDisk(new Random(seed));
        const log = new SimulatedLog({ disk });
        log.append(Level.Disk, 3);
        log.sequencer.step();
        // One that was not prepared grows as it is written.
        if (growing) log.appendUntilRotated(Level.Disk);
        log.sequencer.close();
        const last = log.watermark(Level.Disk);
        unsyncSeal(disk);
        t.equal(SimulatedLog.reopen(disk, 'process').recovered.end.lastLsn, last);
        disk.crash();
        const again = SimulatedLog.reopen(disk, 'power');
        t.equal(again.recovered.end.lastLsn, last, `seed ${seed}`);
      }
    }
    t.end();
  },
);

/** The seal at the end of the log is there, and the power would take it. */
function unsyncSeal(disk: SimulatedDisk): void {
  const name = disk
    .list()
    .filter((file) => file.endsWith('.wal'))
    .at(-1)!;
  const file = disk.open(name, 'write');
  const footer = Buffer.alloc(16);
  file.read(footer, file.size() - 16);
  const at = Number(footer.readBigUInt64LE(0));
  const seal = Buffer.alloc(file.size() - at);
  file.read(seal, at);
  file.write([Buffer.alloc(seal.byteLength)], at);
  file.sync();
  file.write([seal], at);
  file.close();
}

t.test('a cut that was cleaned up already, or lies below it, is refused', async (t) => {
  const wal = await openLog(t);
  for (const i of numbers(1, 6)) {
    await wal.append(`${i}`);
    if (i % 2 === 0) await wal.rotate();
  }
  await wal.append('7');
  await wal.checkpoint(5);
  await wal.cleanup();
  await failsWith(t, 'ERR_WAL_TRUNCATED', wal.truncateAfter(1));
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', wal.truncateAfter(4), 'below the checkpoint');
  t.same(payloads(await collect(wal.read())), ['5', '6', '7']);
});

t.test('what the power brings back of a cut that was cleaned up hides no record from any reader', async (t) => {
  const log = new SimulatedLog();
  const { disk, sequencer } = log;
  const append = (into: SimulatedLog, frames: number) => {
    for (let i = 0; i < frames; i++) {
      into.clock += 10;
      into.append(Level.Disk);
      into.sequencer.step();
      into.collect();
    }
  };
  append(log, 12);
  sequencer.truncateAfter(9);
  append(log, 3);
  sequencer.truncateAfter(7);
  disk.crash();
  const again = SimulatedLog.reopen(disk, 'process');
  again.clock = log.clock;
  append(again, 2);
  const ids = await again.read();
  again.sequencer.updateState((state) => ({ ...state, checkpoint: 7 }));
  again.sequencer.cleanup();
  again.sequencer.close();
  // The removal of the second is lost: the third, which made it void, is gone.
  for (const id of [1, 3]) disk.remove(segmentName(id));
  t.match(withFile(disk, segmentName(2), readHeader), { firstLsn: 10 });
  const { state, end } = inspectLog(disk, 'strict');
  t.same([state.low, end.lastLsn], [8, 9]);
  t.equal((await verifyFiles(filesOf(disk))).verdict, 'clean');
  for (const from of [undefined, 8, new Date(0), new Date(log.clock + 1)]) {
    const records = await readWith(undefined, filesOf(disk), state.low, end.lastLsn, from);
    t.same(
      records.map(({ lsn }) => lsn),
      [8, 9],
      `from ${from}`,
    );
    t.same(records.map(idOf), ids.slice(-2));
  }
});
