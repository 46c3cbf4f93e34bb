import t, { type Test } from 'tap';
import { Level } from '../src/format/levels.js';
import { filesOf } from '../src/reader/storage-files.js';
import { verifyFiles } from '../src/reader/verify.js';
import { inspectPointInTime } from '../src/recovery/point-in-time.js';
import { inspectLog } from '../src/recovery/recover.js';
import { planRepair } from '../src/recovery/repair-plan.js';
import { finish } from '../src/recovery/survey.js';
import { segmentName } from '../src/segments/names.js';
import { leftSpare, prepareSpare } from '../src/segments/prepare.js';
import { repairStorage } from '../src/upkeep/repair-log.js';
import { Random } from './simulation/random.js';
import { framesOf, loseHeader } from './simulation/reading.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';
import { during, SEGMENT_BYTES, SimulatedLog } from './simulation/simulated-log.js';

/** Faults that the simulation found, each by itself. */

function segments(disk: SimulatedDisk): string[] {
  return disk.list().filter((name) => name.endsWith('.wal'));
}

function withFrames(frames: number, disk = new SimulatedDisk(new Random(1))): SimulatedLog {
  const log = new SimulatedLog({ disk });
  for (let i = 0; i < frames; i++) {
    log.append(Level.Disk, 2);
    log.sequencer.step();
  }
  return log;
}

async function soundly(t: Test, disk: SimulatedDisk, what: string): Promise<void> {
  t.same((await verifyFiles(filesOf(disk))).damage, [], what);
}

t.test('a cut into a segment that recovery had ended leaves a log that is sound', async (t) => {
  const { disk } = withFrames(4);
  disk.crash();
  const log = SimulatedLog.reopen(disk, 'process');
  log.append(Level.Disk, 2);
  log.sequencer.step();
  log.sequencer.truncateAfter(3);
  log.append(Level.Disk, 2);
  log.sequencer.step();
  await soundly(t, disk, 'verify has nothing to say');
  log.sequencer.close();
  disk.crash();
  const again = SimulatedLog.reopen(disk, 'power', { mode: 'point-in-time' });
  t.equal(again.recovered.end.lastLsn, 5, 'nor is anything taken for damage');
});

t.test('point-in-time ends a closed log before damage in its last segment, wherever that is', async (t) => {
  for (const frame of [0, 2]) {
    const log = withFrames(4);
    const { disk } = log;
    log.sequencer.close();
    const [name] = segments(disk);
    disk.flip(name, framesOf(disk, name).offsets[frame] + 70, 3);
    disk.crash();
    const again = SimulatedLog.reopen(disk, 'process', { mode: 'point-in-time' });
    t.equal(again.recovered.end.lastLsn, frame * 2);
    t.match(again.recovered.report, { verdict: 'salvaged', lost: [{ firstLsn: frame * 2 + 1, lastLsn: 8 }] });
    t.equal((await again.read()).length, frame * 2);
    await soundly(t, disk, `frame ${frame}`);
  }
});

t.test('what point-in-time keeps of the state survives a crash before the next record', async (t) => {
  const log = new SimulatedLog();
  const { disk } = log;
  for (let i = 0; i < 3; i++) log.appendUntilRotated(Level.Disk);
  log.append(Level.Disk, 3);
  log.sequencer.step();
  const mark = log.watermark(Level.Disk) - 4;
  log.sequencer.updateState((state) => ({ ...state, checkpoint: mark }));
  for (const { name } of log.sequencer.cleanup()) disk.remove(name);
  disk.syncFolder();
  const { state } = log.sequencer;
  // The header of the only segment that knows of the clean-up.
  loseHeader(disk, segments(disk).at(-1)!);
  disk.crash();
  const cut = SimulatedLog.reopen(disk, 'process', { mode: 'point-in-time' });
  const { end } = cut.recovered;
  disk.crash();
  const again = SimulatedLog.reopen(disk, 'power');
  t.equal(again.recovered.end.lastLsn, end.lastLsn, 'LSNs do not go back');
  t.equal(again.sequencer.state.low, Math.min(state.low, end.lastLsn + 1));
  t.equal(again.sequencer.state.checkpoint, Math.min(mark, end.lastLsn));
  await soundly(t, disk, 'and the log is sound');
});

t.test('a log of which nothing is left after point-in-time does not begin at LSN 1 again', (t) => {
  const log = new SimulatedLog();
  const { disk } = log;
  for (let i = 0; i < 2; i++) log.appendUntilRotated(Level.Disk);
  log.append(Level.Disk, 3);
  log.sequencer.step();
  log.sequencer.updateState((state) => ({ ...state, checkpoint: log.watermark(Level.Disk) }));
  for (const { name } of log.sequencer.cleanup()) disk.remove(name);
  disk.syncFolder();
  const { low } = log.sequencer.state;
  t.equal(segments(disk).length, 1);
  loseHeader(disk, segments(disk)[0]);
  disk.crash();
  SimulatedLog.reopen(disk, 'process', { mode: 'point-in-time' });
  disk.crash();
  t.equal(SimulatedLog.reopen(disk, 'power').recovered.end.lastLsn, low - 1);
  t.end();
});

t.test('point-in-time in a segment that a cut goes through leaves a log that is sound', async (t) => {
  const log = withFrames(6);
  const { disk } = log;
  disk.crash();
  const next = SimulatedLog.reopen(disk, 'process');
  next.sequencer.truncateAfter(7);
  next.append(Level.Disk, 2);
  next.sequencer.step();
  const [first] = segments(disk);
  const { offsets } = framesOf(disk, first);
  // Its seal, so that it gets a new one.
  disk.flip(first, offsets[offsets.length - 1] + 20, 1);
  disk.crash();
  const cut = SimulatedLog.reopen(disk, 'process', { mode: 'point-in-time' });
  t.equal(cut.recovered.end.lastLsn, 7);
  t.equal((await cut.read()).length, 7);
  await soundly(t, disk, 'the seal says where the frames end');
});

t.test('a damaged header of a segment that a cut made void is in nobody’s way after a repair', async (t) => {
  for (const position of [8, 3000]) await voidHeader(t, position);
});

async function voidHeader(t: Test, position: number): Promise<void> {
  const log = withFrames(2);
  const { disk } = log;
  log.sequencer.rotate();
  log.append(Level.Disk, 2);
  log.sequencer.step();
  // Cut away, and not removed yet.
  const [gone] = log.sequencer.truncateAfter(3);
  log.append(Level.Disk, 2);
  log.sequencer.step();
  disk.flip(gone.name, position, 1);
  disk.crash();
  disk.restart('process');
  t.match(await repairStorage(disk), { kept: 5, lost: [] });
  t.equal(new SimulatedLog({ disk }).recovered.end.lastLsn, 5);
}

t.test('verify speaks of every header that keeps a log from opening, also of what was cleaned up', async (t) => {
  const log = new SimulatedLog();
  const { disk } = log;
  for (let i = 0; i < 2; i++) log.appendUntilRotated(Level.Disk);
  log.append(Level.Disk);
  log.sequencer.step();
  log.sequencer.updateState((state) => ({ ...state, checkpoint: log.watermark(Level.Disk) }));
  // Cleaned up, and not removed yet.
  const [gone] = log.sequencer.cleanup();
  disk.flip(gone.name, 3000, 1);
  disk.crash();
  disk.restart('process');
  t.throws(() => new SimulatedLog({ disk }), { code: 'ERR_WAL_CORRUPT', segment: gone.name });
  t.match(await verifyFiles(filesOf(disk)), { verdict: 'corrupt', damage: [{ segment: gone.name, offset: 0 }] });
  t.match(await repairStorage(disk), { verdict: 'repaired', lost: [] });
  t.ok(new SimulatedLog({ disk }).recovered, 'and repair has it out of the way');
});

t.test('a spare whose size cannot be read is not left open', (t) => {
  const disk = new SimulatedDisk(new Random(1));
  const { name } = prepareSpare(disk, SEGMENT_BYTES);
  disk.arm({ failLookAt: 2 });
  t.throws(() => leftSpare(disk, [name], SEGMENT_BYTES), { code: 'EIO' });
  t.equal(disk.openFiles, 0);
  t.end();
});

t.test('recovery on a full disk leaves no half of a seal behind', async (t) => {
  const log = withFrames(2);
  const { disk } = log;
  // The second segment grows, and so has no room of its own.
  log.appendUntilRotated(Level.Disk);
  log.appendUntilRotated(Level.Disk);
  log.append(Level.Disk);
  log.sequencer.step();
  disk.crash();
  disk.restart('process');
  disk.quotaBytes = disk.usedBytes() + 40;
  const full = new SimulatedLog({ disk });
  await soundly(t, disk, 'the log is sound all the same');
  disk.crash();
  disk.quotaBytes = Number.POSITIVE_INFINITY;
  t.equal(SimulatedLog.reopen(disk, 'power').recovered.end.lastLsn, full.recovered.end.lastLsn);
});

t.test('point-in-time that was cut short in any call comes to the same end', async (t) => {
  const damaged = () => {
    const log = withFrames(5);
    log.sequencer.close();
    const { disk } = log;
    const [name] = segments(disk);
    disk.flip(name, framesOf(disk, name).offsets[2] + 70, 3);
    disk.crash();
    return disk;
  };
  for (const kind of ['process', 'power'] as const) {
    for (let call = 1, reached = true; reached; call++) {
      const disk = damaged();
      disk.restart(kind);
      reached = during(disk, { crashAt: call }, () => new SimulatedLog({ disk, mode: 'point-in-time' }));
      disk.crash();
      const again = SimulatedLog.reopen(disk, kind, { mode: 'point-in-time' });
      t.equal(again.recovered.end.lastLsn, 4, `${kind}, call ${call}`);
      t.equal((await again.read()).length, 4);
    }
  }
});

t.test('point-in-time before a cut whose header is damaged keeps nothing of what was cut away', async (t) => {
  const log = withFrames(2);
  const { disk } = log;
  for (let i = 0; i < 2; i++) log.appendUntilRotated(Level.Disk);
  log.clock++;
  log.sequencer.truncateAfter(3);
  log.clock++;
  log.append(Level.Disk, 2);
  log.sequencer.step();
  loseHeader(disk, segments(disk).at(-1)!);
  disk.crash();
  const cut = SimulatedLog.reopen(disk, 'process', { mode: 'point-in-time' });
  t.equal(cut.recovered.end.lastLsn, 3);
  t.match(cut.recovered.report, { segments: 1, lost: [{ firstLsn: 4, lastLsn: 5 }] });
  const { ids } = cut.append(Level.Disk, 2);
  cut.sequencer.step();
  disk.crash();
  const again = SimulatedLog.reopen(disk, 'power');
  t.same((await again.read()).slice(3), ids);
  await soundly(t, disk, 'and the log is sound');
});

t.test('a seal that point-in-time writes where one stood before counts as durable only once it is', async (t) => {
  let crashes = 0;
  for (let call = 1, reached = true; reached; call++) {
    const { disk } = withFrames(2);
    disk.crash();
    // The seal of a recovery, which has no index, is as long as the next one.
    SimulatedLog.reopen(disk, 'process');
    const [name] = segments(disk);
    disk.flip(name, framesOf(disk, name).offsets[2] + 70, 3);
    disk.restart('power');
    reached = during(disk, { crashAt: call }, () => new SimulatedLog({ disk, mode: 'point-in-time' }));
    if (reached) crashes++;
    disk.crash();
    SimulatedLog.reopen(disk, 'process', { mode: 'point-in-time' });
    disk.crash();
    disk.restart('power');
    await soundly(t, disk, `cut short in call ${call}`);
  }
  t.ok(crashes > 5, `${crashes} crashes`);
});

/** Three segments, cut behind `end`, with three records behind the cut and two in a segment that is left of it all. */
function cutAndCleanedUp(end: number): { disk: SimulatedDisk; ids: number[]; gone: string[] } {
  const log = withFrames(2);
  const { disk, sequencer } = log;
  for (let i = 0; i < 2; i++) {
    sequencer.rotate();
    log.append(Level.Disk, 4);
    sequencer.step();
  }
  log.clock++;
  sequencer.truncateAfter(end);
  log.append(Level.Disk, 3);
  sequencer.rotate();
  const { ids } = log.append(Level.Disk, 2);
  sequencer.step();
  sequencer.updateState((state) => ({ ...state, checkpoint: end + 3 }));
  return { disk, ids, gone: sequencer.cleanup().map(({ name }) => name) };
}

t.test('whichever files a clean-up leaves behind, those that a cut made void included, the log is sound', async (t) => {
  const old = ['1', '2', '3', '4'].map((id) => `${id.padStart(16, '0')}.wal`);
  for (let left = 0; left < 16; left++) {
    const { disk, ids, gone } = cutAndCleanedUp(6);
    t.same(gone, [old[0], old[1], old[3]]);
    for (const [i, name] of old.entries()) if ((left & (1 << i)) === 0) disk.remove(name);
    disk.syncFolder();
    disk.crash();
    disk.restart('power');
    const what = `left: ${old.filter((_, i) => (left & (1 << i)) !== 0).join(', ') || 'none'}`;
    const plan = finish(planRepair(disk));
    t.same([plan.lost, plan.segments, plan.setAside], [[], [], []], what);
    t.same(finish(inspectPointInTime(disk)).report, inspectLog(disk, 'strict').report, what);
    await soundly(t, disk, what);
    const again = new SimulatedLog({ disk });
    t.equal(again.recovered.state.low, 10);
    t.same(await again.read(), ids, what);
  }
});

t.test(
  'files that a cut through several segments made void, back behind a clean-up, are no part of the log',
  async (t) => {
    const { disk, ids } = cutAndCleanedUp(2);
    // The removals of the two that were cut away are lost; that of the one that cut is not.
    for (const id of [1, 4]) disk.remove(segmentName(id));
    disk.syncFolder();
    disk.crash();
    disk.restart('power');
    t.same(segments(disk), [2, 3, 5].map(segmentName));
    t.match(inspectLog(disk, 'strict'), { state: { low: 6 }, segments: [{ id: 5 }], end: { lastLsn: 7 } });
    t.same(finish(inspectPointInTime(disk)).report, inspectLog(disk, 'strict').report);
    const plan = finish(planRepair(disk));
    t.same([plan.lost, plan.segments, plan.setAside], [[], [], []]);
    await soundly(t, disk, 'verify finds nothing');
    t.same(await new SimulatedLog({ disk }).read(), ids);
  },
);
