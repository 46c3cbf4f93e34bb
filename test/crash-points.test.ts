import t from 'tap';
import { Level } from '../src/format/levels.js';
import { filesOf } from '../src/reader/storage-files.js';
import { verifyFiles } from '../src/reader/verify.js';
import { Counter } from '../src/ring/control.js';
import { adoptSpare, prepareSpare } from '../src/segments/prepare.js';
import { readHeader, withFile } from '../src/segments/read-segment.js';
import { retireSegments } from '../src/segments/retire.js';
import { Random } from './simulation/random.js';
import { type CrashKind, SimulatedDisk } from './simulation/simulated-disk.js';
import { during, SEGMENT_BYTES, SimulatedLog } from './simulation/simulated-log.js';

const KINDS: CrashKind[] = ['process', 'power'];
const SEEDS = 3;

/**
 * Prepares a log, then crashes in every single storage call of `work`, and again in every call of the recovery that
 * follows, and hands over what the next recovery makes of it.
 */
async function atEveryCall(
  prepare: (disk: SimulatedDisk) => SimulatedLog,
  work: (log: SimulatedLog) => void,
  judge: (log: SimulatedLog, before: SimulatedLog, point: string) => Promise<void> | void,
): Promise<number> {
  let points = 0;
  for (const kind of KINDS) {
    for (let seed = 0; seed < SEEDS; seed++) {
      for (let call = 1, reached = true; reached; call++) {
        for (let again = 0, reachedAgain = true; reachedAgain; again++) {
          const disk = new SimulatedDisk(new Random(seed));
          const before = prepare(disk);
          reached = during(disk, { crashAt: call }, () => work(before));
          before.collect();
          disk.crash();
          disk.restart(kind);
          if (again > 0) {
            reachedAgain = during(disk, { crashAt: again }, () => new SimulatedLog({ disk }));
            disk.restart(KINDS[(seed + again) % 2]);
          }
          const point = `${kind}, seed ${seed}, call ${call}, call ${again} of recovery`;
          await judge(new SimulatedLog({ disk }), before, point);
          points++;
        }
      }
    }
  }
  return points;
}

function withRecords(disk: SimulatedDisk): SimulatedLog {
  const log = new SimulatedLog({ disk });
  for (let i = 0; i < 8; i++) {
    log.append(i % 3 === 0 ? Level.Os : Level.Disk, 2);
    log.sequencer.step();
  }
  log.sequencer.sync();
  return log;
}

t.test('a crash at any call of a rotation, and of the recovery after it, loses and resurrects nothing', async (t) => {
  const points = await atEveryCall(
    withRecords,
    (log) => {
      log.sequencer.rotate();
      log.append(Level.Disk, 3);
      log.sequencer.step();
    },
    async (log, before, point) => {
      const last = log.recovered.end.lastLsn;
      if (last < before.watermark(Level.Disk)) t.fail(`${point}: ends at ${last}`);
      if (last > 19) t.fail(`${point}: ends at ${last}`);
      const ids = await log.read(last, 1);
      if (ids.length !== last || ids.includes(undefined)) t.fail(`${point}: reads ${ids.length} of ${last}`);
      log.appendUntilRotated(Level.Disk);
      log.sequencer.close();
    },
  );
  t.ok(points > 400, `${points} crashes`);
});

t.test('a torn tail is cut the same way however often its recovery is cut short', async (t) => {
  await atEveryCall(
    withRecords,
    (log) => {
      // Unsynced, of many sectors, so that most power losses tear it.
      for (let i = 0; i < 6; i++) {
        log.append(Level.Os, 4);
        log.sequencer.step();
      }
    },
    async (log, before, point) => {
      const last = log.recovered.end.lastLsn;
      if (last < before.watermark(Level.Disk)) t.fail(`${point}: ends at ${last}`);
      // Nothing that was cut comes back: not when the log goes on, nor after one more loss of power.
      const known = await log.read(last, 1);
      const next = log.append(Level.Disk, 2);
      log.sequencer.step();
      const again = SimulatedLog.reopen(log.disk, 'power');
      const expected = [...known, ...next.ids];
      const found = await again.read(again.recovered.end.lastLsn, 1);
      if (found.join() !== expected.join()) t.fail(`${point}: ${found} instead of ${expected}`);
    },
  );
  t.pass();
});

function withOldSegments(disk: SimulatedDisk): SimulatedLog {
  const log = new SimulatedLog({ disk });
  for (let segment = 0; segment < 2; segment++) log.appendUntilRotated(Level.Disk);
  log.append(Level.Disk, 2);
  log.sequencer.step();
  return log;
}

t.test('a crash at any call of a clean-up leaves no gap, and nothing that was cleaned up comes back', async (t) => {
  for (const recycle of [0, 2]) {
    let acknowledged = 1;
    await atEveryCall(
      withOldSegments,
      (log) => {
        acknowledged = 1;
        const mark = log.watermark(Level.Disk) - 3;
        log.sequencer.updateState((state) => ({ ...state, checkpoint: mark }));
        const gone = log.sequencer.cleanup().map((segment) => segment.name);
        acknowledged = log.sequencer.state.low;
        const { spares } = retireSegments(log.disk, gone, recycle, SEGMENT_BYTES);
        for (const spare of spares) log.sequencer.addSpare(spare);
        log.appendUntilRotated(Level.Disk);
      },
      async (log, _before, point) => {
        const { state, end } = log.recovered;
        if (state.low < acknowledged) t.fail(`${point}: the mark went back from ${acknowledged} to ${state.low}`);
        const ids = await log.read(end.lastLsn);
        if (ids.length !== end.lastLsn - state.low + 1 || ids.includes(undefined)) t.fail(`${point}: a gap`);
        if (state.low > 1) {
          const code = await log.read(end.lastLsn, state.low - 1).then(
            () => 'read',
            (error) => error.code,
          );
          if (code !== 'ERR_WAL_TRUNCATED') t.fail(`${point}: LSN ${state.low - 1} came back: ${code}`);
        }
      },
    );
  }
  t.pass();
});

t.test('what a recycled file held before is neither taken for records nor for a torn tail', async (t) => {
  const log = new SimulatedLog();
  log.appendUntilRotated(Level.Disk);
  log.appendUntilRotated(Level.Disk);
  log.sequencer.updateState((state) => ({ ...state, checkpoint: log.watermark(Level.Disk) }));
  const gone = log.sequencer.cleanup().map((segment) => segment.name);
  t.ok(gone.length > 0);
  for (const spare of retireSegments(log.disk, gone, 1, SEGMENT_BYTES).spares) log.sequencer.addSpare(spare);
  log.sequencer.rotate();
  const frame = log.append(Level.Disk, 2);
  log.sequencer.step();
  log.collect();
  const name = log.disk
    .list()
    .filter((candidate) => candidate.endsWith('.wal'))
    .at(-1)!;
  t.equal(withFile(log.disk, name, readHeader).flags, 1, 'it was recycled');
  const again = SimulatedLog.reopen(log.disk, 'power');
  t.equal(again.recovered.report.verdict, 'clean');
  t.equal(again.recovered.end.lastLsn, frame.firstLsn + 1);
  t.same((await again.read()).slice(-2), frame.ids);
});

t.test('a spare taken over from a killed process does not come back under its old name', async (t) => {
  for (let seed = 0; seed < 40; seed++) {
    for (let call = 1; call <= 4; call++) {
      const disk = new SimulatedDisk(new Random(seed));
      const log = withOldSegments(disk);
      log.sequencer.updateState((state) => ({ ...state, checkpoint: log.watermark(Level.Disk) }));
      const gone = log.sequencer.cleanup().map((segment) => segment.name);
      // Killed before the new names of the recycled files were durable.
      during(disk, { crashAt: call }, () => retireSegments(disk, gone, gone.length, SEGMENT_BYTES));
      disk.crash();
      const next = SimulatedLog.reopen(disk, 'process');
      const spare = adoptSpare(disk, next.recovered.spares, [], SEGMENT_BYTES);
      next.sequencer.addSpare(spare);
      next.append(Level.Disk);
      // The power goes while the spare becomes a segment.
      during(disk, { crashAt: 4 }, () => next.sequencer.step());
      disk.crash();
      t.ok(SimulatedLog.reopen(disk, 'power').recovered, `seed ${seed}, call ${call}`);
    }
  }
});

t.test('a crash while a spare is being filled leaves a file that the next run removes', (t) => {
  for (const kind of KINDS) {
    for (let call = 1; call <= 4; call++) {
      const log = withRecords(new SimulatedDisk(new Random(call)));
      during(log.disk, { crashAt: call }, () => prepareSpare(log.disk, SEGMENT_BYTES));
      log.disk.crash();
      const next = SimulatedLog.reopen(log.disk, kind);
      t.equal(next.recovered.end.lastLsn, 16);
      adoptSpare(log.disk, next.recovered.spares, next.unfinished, SEGMENT_BYTES);
      const left = log.disk.list().filter((name) => name.endsWith('.tmp'));
      t.ok(left.length <= 1, left.join());
    }
  }
  t.end();
});

t.test('without space for a segment an append is refused, and works again once there is space', async (t) => {
  const log = withRecords(new SimulatedDisk(new Random(1)));
  log.disk.quotaBytes = log.disk.usedBytes();
  const big = log.append(Level.Disk, 40);
  while (log.rejected.length === 0) {
    log.append(Level.Disk, 5);
    log.append(Level.Os, 5);
    while (log.sequencer.step());
    log.collect();
  }
  t.equal(log.sequencer.failed, false);
  const refused = new Set(log.rejected.flatMap((frame) => frame.ids));
  log.disk.quotaBytes = Number.POSITIVE_INFINITY;
  const after = log.append(Level.Disk, 2);
  log.sequencer.step();
  log.collect();
  t.equal(log.watermark(Level.Disk), after.firstLsn + 1, 'no LSN was lost to what was refused');
  const head = log.producers[0].ring.head;
  t.equal(head[0], head[1], 'sequenced and written agree');
  t.equal(head[1], head[2], 'and synced');
  const ids = await log.read();
  t.equal(ids.length, log.watermark(Level.Disk));
  t.notOk(ids.some((id) => refused.has(id!)));
  t.same(ids.slice(-2), after.ids);
  t.ok(big.ids.length > 0);
  log.sequencer.close();
});

t.test('what a full disk refused in a growing segment does not come back when the power goes', async (t) => {
  let refused = 0;
  for (let seed = 0; seed < 200; seed++) {
    const disk = new SimulatedDisk(new Random(seed));
    const log = withRecords(disk);
    while (!log.sequencer.failed && log.control.get(Counter.growing) === 0) log.appendUntilRotated(Level.Disk);
    for (let i = 0; i < 3 && log.rejected.length === 0; i++) {
      disk.quotaBytes = disk.usedBytes() + 2000;
      log.append(Level.Os, 1);
      log.append(Level.Os, 20);
      log.sequencer.step();
      log.collect();
    }
    const buried = new Set(log.rejected.flatMap(({ ids }) => ids));
    refused += buried.size;
    disk.quotaBytes = Number.POSITIVE_INFINITY;
    log.append(Level.Os, 1);
    during(disk, { crashAt: 1 }, () => log.sequencer.step());
    disk.crash();
    const again = SimulatedLog.reopen(disk, 'power');
    const back = (await again.read()).filter((id) => buried.has(id!));
    t.same(back, [], `seed ${seed}`);
  }
  t.ok(refused > 100, `${refused} records were refused`);
});

t.test('a full disk does not keep a log with a torn tail from opening, nor from going on afterwards', async (t) => {
  let torn = 0;
  for (let seed = 0; seed < 30; seed++) {
    const log = withRecords(new SimulatedDisk(new Random(seed)));
    for (let i = 0; i < 4; i++) {
      log.append(Level.Os, 4);
      log.sequencer.step();
    }
    const { disk } = log;
    disk.crash();
    disk.restart('power');
    disk.quotaBytes = disk.usedBytes() + (seed % 3) * 100;
    const full = new SimulatedLog({ disk });
    const last = full.recovered.end.lastLsn;
    if (full.recovered.report.verdict === 'torn-tail') torn++;
    full.append(Level.Disk);
    full.sequencer.step();
    full.collect();
    t.equal(full.rejected.length, 1);
    disk.quotaBytes = Number.POSITIVE_INFINITY;
    const frame = full.append(Level.Disk);
    full.sequencer.step();
    full.collect();
    t.equal(frame.firstLsn, last + 1);
    const again = SimulatedLog.reopen(disk, 'power');
    t.same((await again.read()).at(-1), frame.ids[0]);
  }
  t.ok(torn > 5, 'some of them were torn');
});

t.test('a state that finds no room is refused, changes nothing, and is taken once there is space', (t) => {
  const log = withRecords(new SimulatedDisk(new Random(1)));
  const before = log.sequencer.state;
  log.disk.quotaBytes = log.disk.usedBytes();
  const subscriptions = Object.fromEntries(
    Array.from({ length: 3000 }, (_, i) => [`consumer ${i}`, { acknowledged: i, level: 'disk' as const }]),
  );
  const change = () => log.sequencer.updateState((state) => ({ ...state, subscriptions }));
  t.throws(change, { code: 'ERR_WAL_NO_SPACE' });
  t.equal(log.sequencer.failed, false);
  t.equal(log.sequencer.state, before);
  log.disk.quotaBytes = Number.POSITIVE_INFINITY;
  change();
  t.same(SimulatedLog.reopen(log.disk, 'power').recovered.state.subscriptions, subscriptions);
  t.end();
});

t.test('records that recovery reports as durable stay, even if the sync before it had failed', async (t) => {
  for (let seed = 0; seed < 40; seed++) {
    const log = withRecords(new SimulatedDisk(new Random(seed)));
    log.append(Level.Disk, 3);
    during(log.disk, { failAt: 2, failing: ['sync'] }, () => log.sequencer.step());
    t.ok(log.sequencer.failed);
    const again = SimulatedLog.reopen(log.disk, 'process');
    const reported = again.watermark(Level.Disk);
    log.disk.crash();
    const third = SimulatedLog.reopen(log.disk, 'power');
    t.ok(third.recovered.end.lastLsn >= reported, `seed ${seed}: ${third.recovered.end.lastLsn} >= ${reported}`);
    t.equal((await third.read()).length, third.recovered.end.lastLsn);
  }
});

t.test('a change of state that a full disk refuses in a segment that grows is not there later either', (t) => {
  const changes: [string, (log: SimulatedLog) => void][] = [
    ['a checkpoint', (log) => log.sequencer.updateState((state) => ({ ...state, checkpoint: 2 }))],
    ['a position', (log) => log.sequencer.notePositions({ consumer: { acknowledged: 2, level: 'disk' } })],
  ];
  for (const [what, change] of changes) {
    const log = withRecords(new SimulatedDisk(new Random(1)));
    log.appendUntilRotated(Level.Disk);
    const before = log.sequencer.state;
    log.disk.arm({ failAt: 1, failing: ['write'], errno: 'ENOSPC' });
    t.throws(() => change(log), { code: 'ERR_WAL_NO_SPACE' }, what);
    log.disk.arm();
    t.equal(log.sequencer.failed, false);
    t.equal(log.sequencer.state, before, `${what} is not there`);
    log.sequencer.rotate();
    log.append(Level.Disk);
    log.sequencer.step();
    t.same(SimulatedLog.reopen(log.disk, 'power').recovered.state, before, `nor ${what} after a reopening`);
  }
  t.end();
});

t.test('a cut down to a segment that recovery sealed says rightly how that one ends', async (t) => {
  const log = withRecords(new SimulatedDisk(new Random(1)));
  log.disk.crash();
  const next = SimulatedLog.reopen(log.disk, 'process');
  next.append(Level.Disk, 2);
  next.sequencer.step();
  next.sequencer.truncateAfter(16);
  t.match(await verifyFiles(filesOf(log.disk)), { verdict: 'clean', records: 16, damage: [] });
});
