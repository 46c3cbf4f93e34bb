import t from 'tap';
import { Level } from '../src/format/levels.js';
import { filesOf } from '../src/reader/storage-files.js';
import { verifyFiles } from '../src/reader/verify.js';
import { inspectPointInTime } from '../src/recovery/point-in-time.js';
import { inspectLog, openError } from '../src/recovery/recover.js';
import { endLastSegment } from '../src/recovery/repair-tail.js';
import { finish } from '../src/recovery/survey.js';
import { readHeader, withFile } from '../src/segments/read-segment.js';
import { failure } from './helpers.js';
import { byLsn } from './hostile/logs.js';
import { Random } from './simulation/random.js';
import { framesOf, loseHeader, readAll } from './simulation/reading.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';
import { during, SimulatedLog } from './simulation/simulated-log.js';

/** A log that was cleaned up, and a damaged header in its second segment from the end. */
async function damagedLog(): Promise<{ disk: SimulatedDisk; low: number; kept: Map<number, string> }> {
  const disk = new SimulatedDisk(new Random(7));
  const log = new SimulatedLog({ disk });
  for (let i = 0; i < 4; i++) {
    for (let n = 0; n < 3; n++) {
      log.append(Level.Disk, 2);
      log.sequencer.step();
      log.collect();
    }
    log.sequencer.rotate();
  }
  log.sequencer.updateState((state) => ({
    ...state,
    checkpoint: 7,
    subscriptions: { a: { acknowledged: 6, level: 'os' } },
  }));
  for (const { name } of log.sequencer.cleanup()) disk.remove(name);
  disk.syncFolder();
  log.sequencer.close();
  const { low } = log.sequencer.state;
  const kept = byLsn((await readAll(disk, low, 12)).filter(({ lsn }) => lsn <= 12));
  loseHeader(disk, '0000000000000003.wal');
  return { disk, low, kept };
}

t.test(
  'what point-in-time made of a log is there without another append, whatever call it was cut short in',
  async (t) => {
    let calls = 0;
    for (let at = 1; ; at++) {
      const { disk, low, kept } = await damagedLog();
      const open = () => {
        const recovered = finish(inspectPointInTime(disk));
        endLastSegment(disk, recovered, 1_700_000_000_000);
        return recovered;
      };
      const reached = during(disk, { crashAt: at }, open);
      if (reached) {
        calls++;
        disk.restart('power');
        const again = open();
        t.equal(again.end.lastLsn, 12, `call ${at}: the same end`);
      }
      disk.restart('power');
      const after = inspectLog(disk, 'strict');
      const { low: lowAfter, checkpoint, subscriptions } = after.state;
      t.same(
        [after.end.lastLsn, lowAfter, checkpoint],
        [12, low, 7],
        `call ${at}: opens, with its last LSN and its mark`,
      );
      t.same(subscriptions.a.acknowledged, 6, `call ${at}: and what its subscriptions acknowledged`);
      t.same(byLsn(await readAll(disk, low, 12)), kept, `call ${at}: and every record before the cut`);
      t.equal((await verifyFiles(filesOf(disk))).verdict, 'clean');
      t.equal(after.obsolete.length, 0, 'nothing of it waits to be removed');
      if (!reached) break;
    }
    t.ok(calls > 10, `it was cut short in each of ${calls} calls`);
  },
);

t.test('the last LSN outlives a log of which point-in-time found nothing to keep', async (t) => {
  const { disk, low } = await damagedLog();
  loseHeader(disk, '0000000000000002.wal');
  const recovered = finish(inspectPointInTime(disk));
  endLastSegment(disk, recovered, 1_700_000_000_000);
  disk.restart('power');
  const { end, report } = inspectLog(disk, 'strict');
  t.same([end.lastLsn, report.records], [low - 1, 0], 'no LSN below the mark is given again');
});

t.test(
  'point-in-time that keeps nothing loses no file, and leaves none that readers trip over, however often it is cut short',
  async (t) => {
    const original = ['1', '2', '3'].map((id) => `${id.padStart(16, '0')}.wal`);
    const prepared = (header: boolean) => {
      const disk = new SimulatedDisk(new Random(5));
      const log = new SimulatedLog({ disk });
      for (const _ of original) {
        log.append(Level.Disk, 2);
        log.sequencer.step();
        log.sequencer.rotate();
      }
      log.sequencer.close();
      for (const name of disk.list()) if (!original.includes(name)) disk.remove(name);
      disk.syncFolder();
      // Without its header nothing of the first segment stays, without its first frame an empty one.
      if (header) loseHeader(disk, original[0]);
      else disk.flip(original[0], framesOf(disk, original[0]).offsets[0] + 70, 1);
      return disk;
    };
    const open = (disk: SimulatedDisk) => endLastSegment(disk, finish(inspectPointInTime(disk)), 1_700_000_000_000);
    let crashes = 0;
    for (const header of [true, false]) {
      for (let first = 1, reached = true; reached; first++) {
        for (let second = 1, again = true; again; second++) {
          const disk = prepared(header);
          reached = during(disk, { crashAt: first }, () => open(disk));
          disk.restart('power');
          again = during(disk, { crashAt: second }, () => open(disk));
          if (again) crashes++;
          disk.restart(crashes % 2 === 0 ? 'power' : 'process');
          open(disk);
          const what = `${header ? 'header' : 'frame'}, cut short in call ${first}, then in call ${second}`;
          const found = inspectLog(disk, 'strict');
          const kept = [...found.segments.map(({ name }) => name), ...disk.list('quarantine')];
          const lost = original.filter((name) => !kept.some((file) => file.startsWith(name)));
          const begins = Math.max(...found.obsolete.map((name) => withFile(disk, name, readHeader).firstLsn), 0);
          if (lost.length > 0 || begins > found.state.low || found.end.lastLsn > 0)
            t.fail(`${what}: ${lost} ${begins}`);
        }
      }
    }
    t.ok(crashes > 100, `${crashes} crashes`);
  },
);

t.test('point-in-time on a full disk changes nothing', async (t) => {
  const { disk } = await damagedLog();
  const before = disk.fileNames();
  const recovered = finish(inspectPointInTime(disk));
  disk.quotaBytes = disk.usedBytes();
  const error = await failure(() => endLastSegment(disk, recovered, 1_700_000_000_000));
  t.match(openError(error, '/a/log'), { code: 'ERR_WAL_NO_SPACE', cause: { code: 'ENOSPC' } });
  t.same(disk.fileNames(), before, 'every segment is where it was');
  disk.quotaBytes = Number.POSITIVE_INFINITY;
  const again = finish(inspectPointInTime(disk));
  endLastSegment(disk, again, 1_700_000_000_000);
  t.equal(inspectLog(disk, 'strict').end.lastLsn, 12, 'and with room it is done');
});

t.test(
  'point-in-time without room for the quarantine changes nothing, so that nothing which was cut off comes back',
  async (t) => {
    const disk = new SimulatedDisk(new Random(7));
    const log = new SimulatedLog({ disk });
    for (let n = 0; n < 4; n++) {
      log.append(Level.Disk, 2);
      log.sequencer.step();
    }
    log.sequencer.close();
    const [name] = disk.list();
    disk.flip(name, framesOf(disk, name).offsets[1] + 70, 3);
    disk.quotaBytes = disk.usedBytes();
    const error = await failure(() => new SimulatedLog({ disk, mode: 'point-in-time' }));
    t.match(openError(error, '/a/log'), { code: 'ERR_WAL_NO_SPACE' });
    disk.quotaBytes = Number.POSITIVE_INFINITY;
    t.equal(SimulatedLog.reopen(disk, 'power', { mode: 'point-in-time' }).recovered.end.lastLsn, 2);
    t.equal(SimulatedLog.reopen(disk, 'power', { mode: 'strict' }).recovered.end.lastLsn, 2);
  },
);
