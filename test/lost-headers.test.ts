import t from 'tap';
import { crc32 } from '../src/format/checksum.js';
import { giveHeaderChecksum } from '../src/format/gap.js';
import { Level } from '../src/format/levels.js';
import { SEGMENT_HEADER_UNIT } from '../src/format/segment-header.js';
import type { LogState } from '../src/format/state.js';
import { filesOf } from '../src/reader/storage-files.js';
import { verifyFiles } from '../src/reader/verify.js';
import { inspectPointInTime } from '../src/recovery/point-in-time.js';
import { inspectLog } from '../src/recovery/recover.js';
import { planRepair } from '../src/recovery/repair-plan.js';
import { endLastSegment } from '../src/recovery/repair-tail.js';
import { salvageLog } from '../src/recovery/salvage.js';
import { finish } from '../src/recovery/survey.js';
import { readHeader, withFile } from '../src/segments/read-segment.js';
import { repairStorage } from '../src/upkeep/repair-log.js';
import { failsWith, failure, numbers } from './helpers.js';
import { Random } from './simulation/random.js';
import { framesOf, loseHeader, readAll } from './simulation/reading.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';
import { SEGMENT_BYTES, SimulatedLog } from './simulation/simulated-log.js';

/** Headers of which both halves are damaged, in one way or another. */

const HALVES = [0, SEGMENT_HEADER_UNIT / 2];

function segments(disk: SimulatedDisk): string[] {
  return disk.list().filter((name) => name.endsWith('.wal'));
}

function append(log: SimulatedLog, frames: number): void {
  for (let i = 0; i < frames; i++) {
    log.clock++;
    log.append(Level.Disk, 2);
    log.sequencer.step();
    log.collect();
  }
}

/** Six records in each of so many segments, on the platter. */
function rotatedLog(count: number): SimulatedLog {
  const log = new SimulatedLog({ disk: new SimulatedDisk(new Random(5)) });
  for (let i = 0; i < count; i++) {
    if (i > 0) log.sequencer.rotate();
    append(log, 3);
  }
  return log;
}

function atRest(log: SimulatedLog): SimulatedDisk {
  log.disk.crash();
  log.disk.restart('process');
  return log.disk;
}

async function lsnsIn(disk: SimulatedDisk): Promise<number[]> {
  const { state, end } = inspectLog(disk, 'tolerate-torn-tail');
  return (await readAll(disk, state.low, end.lastLsn)).map(({ lsn }) => lsn);
}

t.test('a header of which one half tells the beginning and the other one the state costs nothing', async (t) => {
  for (const [first, second] of [
    [60, HALVES[1] + 130],
    [130, HALVES[1] + 60],
  ]) {
    const disk = atRest(rotatedLog(2));
    const [, name] = segments(disk);
    const before = withFile(disk, name, readHeader);
    disk.flip(name, first, 1);
    disk.flip(name, second, 1);
    t.match(await repairStorage(disk), { kept: 12, lost: [] });
    t.same(withFile(disk, name, readHeader), before, 'it is what it was');
  }
});

t.test('a header whose state is damaged in both halves gets an older one, and no record is lost', async (t) => {
  const log = rotatedLog(2);
  log.sequencer.updateState((state) => ({ ...state, checkpoint: 3 }));
  const disk = atRest(log);
  const [, name] = segments(disk);
  for (const half of HALVES) disk.flip(name, half + 130, 1);
  t.match(await repairStorage(disk), { kept: 12, lost: [] });
  t.equal(inspectLog(disk, 'tolerate-torn-tail').state.checkpoint, 3, 'the newest state is in force');
  t.same(await lsnsIn(disk), numbers(1, 12));
  t.equal((await verifyFiles(filesOf(disk))).verdict, 'clean');
});

t.test('a state that is too large for a header that is made anew leaves out what is least missed', async (t) => {
  const consumers = (count: number) =>
    Object.fromEntries(numbers(1, count).map((i) => [`consumer ${i}`, { acknowledged: 0, level: 'os' as const }]));
  const prepared = Object.fromEntries(
    numbers(1, 80).map((i) => [`transaction ${i}`, { first: 1, prepared: 2, operations: 1 }]),
  );
  const cases: Partial<LogState>[] = [
    { subscriptions: consumers(100) },
    { subscriptions: consumers(5), transactions: { prepared, holds: [] } },
  ];
  for (const large of cases) {
    const log = rotatedLog(1);
    const { sequencer } = log;
    const { state: small } = sequencer;
    sequencer.updateState((state) => ({ ...state, ...large, checkpoint: 2 }));
    const [first] = segments(log.disk);
    const before = framesOf(log.disk, first).offsets.length;
    sequencer.updateState(() => ({ ...small, checkpoint: 2 }));
    sequencer.rotate();
    append(log, 1);
    const disk = atRest(log);
    // All that says that they are gone: the state and the seal behind the large one, and the state of the next header.
    for (const offset of framesOf(disk, first).offsets.slice(before)) disk.flip(first, offset + 70, 1);
    const [, name] = segments(disk);
    for (const half of HALVES) disk.flip(name, half + 130, 1);
    t.match(await repairStorage(disk), { kept: 8, lost: [] });
    const { state } = withFile(disk, name, readHeader);
    t.same([state.checkpoint, Object.keys(state.subscriptions), state.transactions], [2, [], undefined]);
    t.equal((await verifyFiles(filesOf(disk))).verdict, 'clean');
  }
});

t.test('a log of one segment without a header is kept by repair, and set aside by point-in-time', async (t) => {
  const cases = () => {
    const disk = atRest(rotatedLog(1));
    loseHeader(disk, segments(disk)[0]);
    return disk;
  };
  const repaired = cases();
  t.match(await repairStorage(repaired), { verdict: 'repaired', kept: 6, lost: [] });
  t.same(await lsnsIn(repaired), numbers(1, 6));
  const cut = cases();
  const recovered = finish(inspectPointInTime(cut));
  t.match(recovered, { state: { low: 1, checkpoint: 0 }, end: { lastLsn: 0 }, report: { records: 0 } });
  endLastSegment(cut, recovered, 1_700_000_000_000);
  t.match(cut.list('quarantine'), [/@0$/]);
  t.equal(inspectLog(cut, 'strict').end.lastLsn, 0);
});

t.test('a file of which nothing can be read is set aside, also when it is all that there is', async (t) => {
  const disk = atRest(rotatedLog(1));
  const [name] = segments(disk);
  disk.overwrite(name, Buffer.alloc(SEGMENT_BYTES, 0x5a), 0);
  const plan = finish(planRepair(disk));
  t.same(plan, { segments: [], setAside: [name], lost: [], kept: 0, lastLsn: 0 });
  const { recovered } = await salvageLog(disk);
  t.match(recovered, { segments: [], end: { lastLsn: 0 } });
});

t.test('two neighbours without a header are made anew from their frames', async (t) => {
  const disk = atRest(rotatedLog(4));
  const names = segments(disk);
  for (const name of names.slice(1, 3)) loseHeader(disk, name);
  const { offsets } = framesIn(disk, names[1]);
  // The last records and the seal of the first one.
  for (const offset of offsets.slice(-2)) disk.flip(names[1], offset + 70, 1);
  const { kept, lost } = await repairStorage(disk);
  t.same([kept, lost], [22, [{ firstLsn: 11, lastLsn: 12 }]]);
  t.same(
    await lsnsIn(disk),
    numbers(1, 24).filter((lsn) => lsn !== 11 && lsn !== 12),
  );
  t.equal((await verifyFiles(filesOf(disk))).verdict, 'clean');
});

/** Of a segment whose header is lost: where its frames begin. */
function framesIn(disk: SimulatedDisk, name: string): { offsets: number[] } {
  const bytes = withFile(disk, name, (file) => {
    const all = Buffer.alloc(file.size());
    file.read(all, 0);
    return all;
  });
  const offsets: number[] = [];
  for (let at = bytes.indexOf('RWLF'); at >= 0; at = bytes.indexOf('RWLF', at + 1)) offsets.push(at);
  return { offsets };
}

t.test('what was cleaned up and has lost its header is set aside by point-in-time', async (t) => {
  const log = rotatedLog(3);
  log.sequencer.updateState((state) => ({ ...state, checkpoint: 12 }));
  const [gone] = log.sequencer.cleanup();
  const disk = atRest(log);
  loseHeader(disk, gone.name);
  const recovered = finish(inspectPointInTime(disk));
  t.same([recovered.setAside, recovered.end.lastLsn], [[gone.name], 18]);
  endLastSegment(disk, recovered, 1_700_000_000_000);
  t.same(await lsnsIn(disk), numbers(13, 18));
  t.equal((await verifyFiles(filesOf(disk))).verdict, 'clean');
});

t.test(
  'a first segment without a header opens after its repair, cut short in any call or not, with files of what was cleaned up before it',
  async (t) => {
    const damaged = (others: number[]) => {
      const log = rotatedLog(4);
      log.sequencer.updateState((state) => ({ ...state, checkpoint: 14 }));
      // A crash keeps the files that nobody needs any more.
      t.same(log.sequencer.cleanup().length, 2);
      const disk = atRest(log);
      const names = segments(disk);
      for (const i of [2, ...others]) loseHeader(disk, names[i]);
      return disk;
    };
    for (const others of [[], [0], [1], [0, 1], [3], [1, 3]]) {
      const what = `without the headers of 3 and ${others.map((i) => i + 1)}`;
      let crashes = 0;
      for (let call = 1, reached = true; reached; call++) {
        const disk = damaged(others);
        disk.arm({ crashAt: call });
        const early = await repairStorage(disk).catch((error: unknown) => error);
        reached = disk.crashed;
        disk.arm();
        disk.restart(call % 2 === 0 ? 'power' : 'process');
        if (reached) {
          crashes++;
          t.match(early, { name: 'CrashError' });
          t.match(await repairStorage(disk), { kept: 12, lost: [] }, `${what}, call ${call}`);
        }
        const { verdict } = await verifyFiles(filesOf(disk));
        const { state, end } = SimulatedLog.reopen(disk, 'power').recovered;
        t.same([verdict, state.low, end.lastLsn], ['clean', 13, 24], `${what}, call ${call}`);
        t.same(await lsnsIn(disk), numbers(13, 24), `${what}, call ${call}`);
      }
      t.ok(crashes > 5, `${what}: cut short in each of ${crashes} calls`);
    }
  },
);

t.test(
  'verify: a segment that names one before the file that stands there is damage, whatever was cleaned up, as it is for open',
  async (t) => {
    const log = rotatedLog(4);
    log.sequencer.updateState((state) => ({ ...state, checkpoint: 14 }));
    log.sequencer.cleanup();
    const disk = atRest(log);
    const [, second, third] = segments(disk);
    const { headerCrc } = withFile(disk, third, readHeader);
    const block = Buffer.alloc(SEGMENT_HEADER_UNIT);
    withFile(disk, third, (file) => file.read(block, 0));
    block.writeBigUInt64LE(0n, 80);
    giveHeaderChecksum(block, headerCrc);
    disk.overwrite(third, block, 0);
    t.throws(() => inspectLog(disk, 'tolerate-torn-tail'), { code: 'ERR_WAL_CORRUPT', segment: third });
    const { verdict, damage } = await verifyFiles(filesOf(disk));
    t.equal(verdict, 'corrupt');
    t.ok(damage.some(({ segment, reason }) => segment === second && reason.includes('segment 0')));
    await failsWith(t, 'ERR_WAL_CORRUPT', repairStorage(disk), 'and it is not for a repair to judge');
  },
);

t.test(
  'bytes behind the seal of a segment that stays are cut off by point-in-time that ends the log later',
  async (t) => {
    const disk = atRest(rotatedLog(3));
    const [first, , third] = segments(disk);
    const { end } = framesOf(disk, first);
    const file = disk.open(first, 'write');
    file.truncate(end);
    file.write([Buffer.from('A')], end + 40);
    file.sync();
    file.close();
    disk.flip(third, framesOf(disk, third).offsets[1] + 70, 1);
    const recovered = finish(inspectPointInTime(disk));
    t.match(recovered, { end: { lastLsn: 14 }, segments: [{ name: first, fileBytes: end }, {}, {}] });
    endLastSegment(disk, recovered, 1_700_000_000_000);
    t.equal(
      withFile(disk, first, (sealed) => sealed.size()),
      end,
    );
    t.equal((await verifyFiles(filesOf(disk))).verdict, 'clean');
    t.same(await lsnsIn(disk), numbers(1, 14));
  },
);

t.test('repair cuts off what stands behind the seal of a segment', async (t) => {
  const disk = atRest(rotatedLog(2));
  const [first] = segments(disk);
  const { end } = framesOf(disk, first);
  const file = disk.open(first, 'write');
  file.truncate(end);
  file.write([Buffer.from('A')], end + 40);
  file.sync();
  file.close();
  t.match(await repairStorage(disk), { verdict: 'repaired', kept: 12, lost: [], quarantined: [/@/] });
  t.equal((await verifyFiles(filesOf(disk))).verdict, 'clean');
});

t.test(
  'a header of a later version, or with a state that is none, is not taken for damage that one half mends',
  async (t) => {
    const forged = (change: (block: Buffer) => void) => {
      const disk = atRest(rotatedLog(2));
      const [, name] = segments(disk);
      const block = Buffer.alloc(HALVES[1]);
      withFile(disk, name, (file) => file.read(block, 0));
      change(block);
      block.writeUInt32LE(crc32(block.subarray(0, 124)), 124);
      for (const half of HALVES) disk.overwrite(name, block, half);
      return { disk, name };
    };
    const later = (block: Buffer) => void block.writeUInt32LE(2, 8);
    for (const lose of [false, true]) {
      const { disk, name } = forged(later);
      if (lose) disk.flip(name, 60, 1);
      t.match(await failure(salvageLog(disk)), { code: 'ERR_WAL_VERSION' });
      t.match(await failure(() => finish(inspectPointInTime(disk))), { code: 'ERR_WAL_VERSION' });
    }
    const { disk } = forged((block) => {
      block.fill(0, 128);
      block.write('{"low":0}', 128);
      block.writeUInt32LE(9, 112);
      block.writeUInt32LE(crc32(block.subarray(128, 137)), 116);
    });
    await failsWith(t, 'ERR_WAL_CORRUPT', () => inspectLog(disk, 'tolerate-torn-tail'));
    t.match(await repairStorage(disk), { verdict: 'repaired', kept: 12, lost: [] });
    t.same(await lsnsIn(disk), numbers(1, 12));
  },
);
