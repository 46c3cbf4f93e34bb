import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { type OpenOptions, type RecoveryMode, verifyLog, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { Level } from '../src/format/levels.js';
import { filesOf } from '../src/reader/storage-files.js';
import { verifyFiles } from '../src/reader/verify.js';
import { repairStorage } from '../src/upkeep/repair-log.js';
import { collect, failsWith, numbers, segmentFiles, snapshot, temporaryDirectory, text } from './helpers.js';
import { Random } from './simulation/random.js';
import { framesOf } from './simulation/reading.js';
import { type CrashKind, SimulatedDisk } from './simulation/simulated-disk.js';
import { during, SimulatedLog } from './simulation/simulated-log.js';

/** A closed log of three segments, a frame for each record. */
async function threeSegments(t: Test): Promise<string> {
  const directory = temporaryDirectory(t);
  const log = await WriteAheadLog.open(directory, { segmentBytes: 65_536 });
  for (let lsn = 1; lsn <= 15; lsn++) {
    if (lsn % 3 === 0) await log.put(`key ${lsn}`, `record ${lsn}`);
    else await log.append(`record ${lsn}`);
    if (lsn % 5 === 0 && lsn < 15) await log.rotate();
  }
  await log.checkpoint(2);
  await log.close();
  return directory;
}

/** Changes a byte in the payload of the frame that begins with this LSN. */
function damage(directory: string, lsn: number): { segment: string; offset: number } {
  for (const segment of segmentFiles(directory)) {
    const file = path.join(directory, segment);
    const bytes = fs.readFileSync(file);
    for (let at = bytes.indexOf('RWLF\x01'); at >= 0; at = bytes.indexOf('RWLF\x01', at + 1)) {
      if (Number(bytes.readBigUInt64LE(at + 24)) !== lsn) continue;
      bytes[at + 66] ^= 1;
      fs.writeFileSync(file, bytes);
      return { segment, offset: at };
    }
  }
  throw new Error(`There is no LSN ${lsn}.`);
}

async function opened<T>(directory: string, options: OpenOptions, use: (log: WriteAheadLog) => Promise<T>): Promise<T> {
  const log = await WriteAheadLog.open(directory, { segmentBytes: 65_536, ...options });
  try {
    return await use(log);
  } finally {
    await log.close();
  }
}

const lsnsIn = async (log: WriteAheadLog) => (await collect(log.read())).map(({ lsn }) => lsn);

t.test('point-in-time ends the log before the first damage, in a finished segment too', async (t) => {
  const directory = await threeSegments(t);
  const before = snapshot(directory);
  const { segment, offset } = damage(directory, 8);
  const damaged = fs.readFileSync(path.join(directory, segment)).subarray(offset);
  let progress = 0;
  await opened(
    directory,
    {
      recoveryMode: 'point-in-time',
      onProgress: ({ bytes }) => {
        progress = bytes;
      },
    },
    async (log) => {
      t.match(log.recovery, {
        verdict: 'salvaged',
        lastLsn: 7,
        records: 7,
        segments: 2, // the third carries the state on
        lost: [{ firstLsn: 8, lastLsn: 15 }],
        checkpoint: 2,
      });
      t.same(await lsnsIn(log), numbers(1, 7));
      t.equal(await log.append('in its place'), 8);
    },
  );
  t.ok(progress > 10_000, 'progress was told');
  const quarantined = fs.readdirSync(path.join(directory, 'quarantine')).sort();
  t.same(quarantined, [`${segment}@${offset}`, '0000000000000003.wal@0']);
  const copy = fs.readFileSync(path.join(directory, 'quarantine', quarantined[0]));
  t.ok(damaged.subarray(0, copy.length).equals(copy), 'what was cut off is kept');
  const whole = snapshot(path.join(directory, 'quarantine'))['0000000000000003.wal@0'];
  t.equal(whole, before['0000000000000003.wal'], 'and the segments behind it');
  t.match(await verifyLog(directory), { verdict: 'clean', records: 8 });
  await opened(directory, {}, async (log) => {
    t.equal(log.recovery.verdict, 'clean');
    t.same((await collect(log.read())).map(({ payload }) => text(payload)).at(-1), 'in its place');
  });
});

t.test('point-in-time ends the log before damage in the middle of the last segment of a closed log', async (t) => {
  for (const lsn of [11, 13, 15]) {
    const directory = await threeSegments(t);
    damage(directory, lsn);
    await opened(directory, { recoveryMode: 'point-in-time' }, async (log) => {
      t.match(log.recovery, { verdict: 'salvaged', lastLsn: lsn - 1, lost: [{ firstLsn: lsn, lastLsn: 15 }] });
      t.same(await lsnsIn(log), numbers(1, lsn - 1));
      t.equal(await log.append('goes on'), lsn);
    });
    t.equal((await verifyLog(directory)).verdict, 'clean');
  }
});

t.test('point-in-time does to a sound log what the default mode does', async (t) => {
  const directory = await threeSegments(t);
  await opened(directory, { recoveryMode: 'point-in-time' }, async (log) => {
    t.match(log.recovery, { verdict: 'clean', lastLsn: 15, quarantined: [] });
    t.same(await lsnsIn(log), numbers(1, 15));
  });
  t.notOk(fs.existsSync(path.join(directory, 'quarantine')));
});

t.test('point-in-time before a damaged or missing segment', async (t) => {
  for (const how of ['header', 'missing', 'first', 'short'] as const) {
    const directory = await threeSegments(t);
    const second = path.join(directory, '0000000000000002.wal');
    if (how === 'header')
      fs.writeFileSync(second, Buffer.concat([Buffer.alloc(8192), fs.readFileSync(second).subarray(8192)]));
    if (how === 'missing') fs.rmSync(second);
    if (how === 'first') fs.truncateSync(path.join(directory, '0000000000000001.wal'), 100);
    if (how === 'short') fs.truncateSync(second, 4096);
    const last = how === 'first' ? 0 : 5;
    await opened(directory, { recoveryMode: 'point-in-time' }, async (log) => {
      t.match(log.recovery, { verdict: 'salvaged', lastLsn: last, lost: [{ firstLsn: last + 1, lastLsn: 15 }] }, how);
      t.same(await lsnsIn(log), numbers(1, last), how);
      t.equal(await log.append('more'), last + 1, how);
    });
    t.match(await verifyLog(directory), { verdict: 'clean' }, how);
    await opened(directory, {}, async (log) => t.same(await lsnsIn(log), numbers(1, last + 1), how));
  }
});

t.test('salvage reads around every hole, changes nothing, and says what is lost', async (t) => {
  const directory = await threeSegments(t);
  for (const lsn of [4, 8, 14]) damage(directory, lsn);
  const before = snapshot(directory);
  const expected = numbers(1, 15).filter((lsn) => ![4, 8, 14].includes(lsn));
  await opened(directory, { recoveryMode: 'salvage' }, async (log) => {
    t.match(log.recovery, {
      verdict: 'salvaged',
      records: 12,
      lastLsn: 15,
      lost: [
        { firstLsn: 4, lastLsn: 4 },
        { firstLsn: 8, lastLsn: 8 },
        { firstLsn: 14, lastLsn: 14 },
      ],
    });
    t.same(await lsnsIn(log), expected);
    t.equal(text((await log.get(9)).payload), 'record 9');
    const error = await failsWith(t, 'ERR_WAL_NOT_FOUND', log.get(8));
    t.match(error.message, /lost/);
    await failsWith(t, 'ERR_WAL_NOT_FOUND', log.get(16));
    const kept: number[] = [];
    await log.replay((_op, lsn) => void kept.push(lsn), { from: 1 });
    t.same(kept, [3, 6, 9, 12, 15]);
    await failsWith(t, 'ERR_WAL_READ_ONLY', log.append('no'));
  });
  t.same(snapshot(directory), before, 'nothing was touched');
});

t.test('salvage of a sound log reads all of it', async (t) => {
  const directory = await threeSegments(t);
  await opened(directory, { recoveryMode: 'salvage' }, async (log) => {
    t.match(log.recovery, { verdict: 'clean', records: 15 });
    t.same(await lsnsIn(log), numbers(1, 15));
  });
});

t.test('a mode that there is not, and one that contradicts readOnly, are refused', async (t) => {
  const directory = await threeSegments(t);
  const open = (options: object) => WriteAheadLog.open(directory, options);
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', open({ recoveryMode: 'hope' as RecoveryMode }));
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', open({ recoveryMode: 'point-in-time', readOnly: true }));
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', open({ onProgress: 1 }));
});

interface Damaged {
  disk: SimulatedDisk;
  /** Numbers of the records by LSN - 1. */
  ids: (number | undefined)[];
  /** The first LSN of the damaged frame. */
  lsn: number;
}

/** Three segments on a simulated disk, all of it on the platter, damaged in the middle one or the last. */
async function damagedDisk(seed: number, where: 1 | 2): Promise<Damaged> {
  const disk = new SimulatedDisk(new Random(seed));
  const log = new SimulatedLog({ disk });
  for (let i = 0; i < 3; i++) log.appendUntilRotated(Level.Disk);
  for (let i = 0; i < 6; i++) {
    log.append(Level.Disk, 2);
    log.sequencer.step();
  }
  log.sequencer.sync();
  log.collect();
  const ids = await log.read();
  const name = disk.list().filter((file) => file.endsWith('.wal'))[where];
  const { offsets } = framesOf(disk, name);
  const offset = offsets[2];
  disk.crash();
  disk.restart('power');
  disk.flip(name, offset + 70, 3);
  const view = Buffer.alloc(64);
  disk.open(name, 'read').read(view, offset);
  return { disk, ids, lsn: Number(view.readBigUInt64LE(24)) };
}

const KINDS: CrashKind[] = ['process', 'power'];

/** Crashes in every call of `work`, again in every call of its second try, and judges what the third makes of it. */
async function atEveryCall(
  where: 1 | 2,
  work: (disk: SimulatedDisk) => Promise<void> | void,
  judge: (damaged: Damaged, point: string) => Promise<void>,
): Promise<number> {
  let points = 0;
  for (const kind of KINDS) {
    for (let call = 1, reached = true; reached; call++) {
      for (let again = 0, reachedAgain = true; reachedAgain; again += 3) {
        const damaged = await damagedDisk(call, where);
        const { disk } = damaged;
        reached = await cutShort(disk, call, work);
        disk.crash();
        disk.restart(kind);
        if (again > 0) {
          reachedAgain = await cutShort(disk, again, work);
          disk.crash();
          disk.restart(KINDS[(call + again) % 2]);
        }
        await judge(damaged, `${kind}, call ${call}, then ${again}`);
        points++;
      }
    }
  }
  return points;
}

async function cutShort(
  disk: SimulatedDisk,
  call: number,
  work: (disk: SimulatedDisk) => Promise<void> | void,
): Promise<boolean> {
  disk.arm({ crashAt: call });
  try {
    await work(disk);
  } catch {
    // Judged by what is on the disk afterwards.
  }
  const reached = disk.calls >= call;
  disk.arm();
  return reached;
}

t.test('point-in-time cut short at any call comes to the same end, and nothing behind it comes back', async (t) => {
  for (const where of [1, 2] as const) {
    const points = await atEveryCall(
      where,
      (disk) => void new SimulatedLog({ disk, mode: 'point-in-time' }),
      async ({ disk, ids, lsn }, point) => {
        const log = new SimulatedLog({ disk, mode: 'point-in-time' });
        const last = log.recovered.end.lastLsn;
        if (last !== lsn - 1) t.fail(`${point}: ends at ${last} and not before ${lsn}`);
        const expected = ids.slice(0, lsn - 1);
        const found = await log.read(last, 1);
        if (found.join() !== expected.join()) t.fail(`${point}: ${found}`);
        const next = log.append(Level.Disk, 2);
        log.sequencer.step();
        log.collect();
        const again = SimulatedLog.reopen(disk, 'power');
        const all = await again.read();
        if (all.join() !== [...expected, ...next.ids].join()) t.fail(`${point}: ${all} after it went on`);
        const { verdict, damage } = await verifyFiles(filesOf(disk));
        if (verdict === 'corrupt') t.fail(`${point}: ${JSON.stringify(damage)}`);
        if (!disk.fileNames().some((name) => name.startsWith('quarantine/'))) t.fail(`${point}: nothing was kept`);
      },
    );
    t.ok(points > 30, `${points} crashes`);
  }
});

t.test('a repair cut short at any call comes to the same end', async (t) => {
  for (const where of [1, 2] as const) {
    const points = await atEveryCall(
      where,
      async (disk) => void (await repairStorage(disk)),
      async ({ disk, ids, lsn }, point) => {
        const { kept, lost } = await repairStorage(disk);
        const size = ids.length - kept;
        if (JSON.stringify(lost) !== JSON.stringify([{ firstLsn: lsn, lastLsn: lsn + size - 1 }]))
          t.fail(`${point}: lost ${JSON.stringify(lost)} at ${lsn}`);
        const log = SimulatedLog.reopen(disk, 'power');
        const expected = ids.filter((_, i) => i + 1 < lsn || i + 1 >= lsn + size);
        const found = await log.read(undefined, 1);
        if (found.join() !== expected.join()) t.fail(`${point}: ${found} and not ${expected}`);
        const { verdict, damage } = await verifyFiles(filesOf(disk));
        if (verdict === 'corrupt') t.fail(`${point}: ${JSON.stringify(damage)}`);
      },
    );
    t.ok(points > 10, `${points} crashes`);
  }
});

t.test('without room for a copy nothing is repaired, and nothing is lost', async (t) => {
  const { disk, ids, lsn } = await damagedDisk(1, 1);
  disk.quotaBytes = disk.usedBytes();
  await t.rejects(repairStorage(disk), { code: 'ENOSPC' });
  disk.quotaBytes = Number.POSITIVE_INFINITY;
  t.equal((await repairStorage(disk)).kept, ids.length - 3);
  t.same((await SimulatedLog.reopen(disk, 'power').read(lsn - 1, 1)).length, lsn - 1);
  t.ok(during(disk, {}, () => undefined));
});

t.test('recovery of a log that was not closed tells how far it is', async (t) => {
  const directory = temporaryDirectory(t);
  const child = spawnSync(
    process.execPath,
    [
      '--input-type=module',
      '-e',
      `import { WriteAheadLog } from 'ringwal';
     const log = await WriteAheadLog.open(${JSON.stringify(directory)}, { segmentBytes: 67108864 });
     for (let i = 0; i < 24; i++) await log.append(Buffer.alloc(1024 * 1024, i));
     process.kill(process.pid, 'SIGKILL');`,
    ],
    { cwd: path.dirname(fileURLToPath(import.meta.url)) },
  );
  t.equal(child.signal, 'SIGKILL');
  const told: number[] = [];
  const log = await WriteAheadLog.open(directory, {
    onProgress: ({ bytes, totalBytes }) => {
      t.ok(bytes <= totalBytes);
      told.push(bytes);
    },
  });
  t.teardown(() => log.close());
  t.equal(log.recovery.lastLsn, 24);
  t.ok(told.length >= 3, `${told.length} reports`);
  t.same(
    told,
    [...told].sort((a, b) => a - b),
  );
});
