import t from 'tap';
import { Level } from '../src/format/levels.js';
import { RingPhase, RingSlot } from '../src/ring/ring.js';
import { Random } from './simulation/random.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';
import { during, SimulatedLog } from './simulation/simulated-log.js';

t.test('a log that is never idle still syncs its os records when flushIntervalMs is over', (t) => {
  const log = new SimulatedLog({ flushIntervalMs: 1000 });
  for (let i = 0; i < 10; i++) {
    log.append(Level.Os);
    log.sequencer.step();
    t.equal(log.watermark(Level.Os), i + 1);
    t.equal(log.watermark(Level.Disk), i < 5 ? 0 : i < 10 ? 6 : i, `after ${i * 200} ms`);
    log.clock += 200;
  }
  t.end();
});

t.test('an idle log syncs by time alone, and with flushIntervalMs 0 never does', (t) => {
  for (const [flushIntervalMs, synced] of [
    [1000, 1],
    [0, 0],
  ]) {
    const log = new SimulatedLog({ flushIntervalMs });
    log.append(Level.Os);
    log.sequencer.step();
    log.clock += 5000;
    log.sequencer.step();
    t.equal(log.watermark(Level.Disk), synced);
  }
  t.end();
});

t.test('what a producer published before it closed is taken', (t) => {
  const log = new SimulatedLog({ producers: 2 });
  const [, gone] = log.producers;
  const frame = log.append(Level.Disk, 2, gone);
  const { ring } = gone;
  // The producer publishes and closes while the actor looks at its ring.
  const { state } = ring;
  ring.setState(0, 0);
  let looked = false;
  ring.state = (number) => {
    const seen = state.call(ring, number);
    if (!looked) {
      looked = true;
      ring.setState(0, 2);
      Atomics.store(ring.head, RingSlot.phase, RingPhase.Closing);
    }
    return seen;
  };
  for (let turn = 0; turn < 4; turn++) log.sequencer.step();
  log.collect();
  t.equal(frame.firstLsn, 1);
  t.equal(log.watermark(Level.Disk), 2);
  t.equal(log.forgotten, 1, 'and the ring is given up afterwards');
  t.end();
});

t.test('frames of all rings are taken in turn, and one order of LSNs comes out', async (t) => {
  const log = new SimulatedLog({ producers: 3 });
  const frames = log.producers.flatMap((producer) => [1, 2, 3].map((n) => log.append(Level.Os, n, producer)));
  log.sequencer.step();
  log.collect();
  const byLsn = frames.toSorted((a, b) => a.firstLsn - b.firstLsn);
  t.same(
    await log.read(18),
    byLsn.flatMap((frame) => frame.ids),
  );
  t.equal(log.control.get(13), 1, 'in one write');
  t.end();
});

t.test('a write that fails half way is not tried again, and poisons the log', (t) => {
  for (const errno of ['EIO', 'ENOSPC'] as const) {
    const disk = new SimulatedDisk(new Random(1));
    const log = new SimulatedLog({ disk });
    log.append(Level.Disk);
    log.sequencer.step();
    log.append(Level.Disk, 5);
    during(disk, { failAt: 1, failing: ['write'], errno }, () => log.sequencer.step());
    t.ok(log.sequencer.failed);
    t.match(log.control.failure(), errno);
    disk.arm();
    t.equal(log.sequencer.step(), false);
    t.throws(() => log.sequencer.sync(), { code: 'ERR_WAL_FAILED' });
    t.throws(() => log.sequencer.rotate(), { code: 'ERR_WAL_FAILED' });
    t.throws(() => log.sequencer.updateState((state) => state), { code: 'ERR_WAL_FAILED' });
    log.sequencer.close();
    t.equal(disk.calls, 0, 'nothing is written any more');
    t.equal(disk.openFiles, 0);
    t.equal(log.watermark(Level.Os), 1);
  }
  t.end();
});

t.test('every call that changes a file may fail, and the log is either whole or says that it failed', (t) => {
  for (let call = 1, reached = true; reached; call++) {
    const disk = new SimulatedDisk(new Random(call));
    const log = new SimulatedLog({ disk });
    reached = during(disk, { failAt: call }, () => {
      log.append(Level.Disk, 2);
      log.sequencer.step();
      log.sequencer.rotate();
      log.sequencer.updateState((state) => ({ ...state, checkpoint: 1 }));
      log.append(Level.Os, 2);
      log.sequencer.step();
      log.sequencer.close();
    });
    t.equal(log.sequencer.failed && log.control.phase === 1, reached, `call ${call}`);
    const durable = log.watermark(Level.Disk);
    t.ok(SimulatedLog.reopen(disk, 'power').recovered.end.lastLsn >= durable);
  }
  t.end();
});

t.test('records that are due are synced though the disk is full and nothing new can be written', (t) => {
  const log = new SimulatedLog({ flushIntervalMs: 1000 });
  log.append(Level.Os);
  log.sequencer.step();
  log.disk.quotaBytes = log.disk.usedBytes();
  while (log.rejected.length === 0) {
    log.append(Level.Os, 5);
    log.sequencer.step();
    log.collect();
  }
  const written = log.watermark(Level.Os);
  log.clock += 1000;
  log.append(Level.Os, 60);
  log.sequencer.step();
  log.collect();
  t.equal(log.rejected.length, 2);
  t.equal(log.watermark(Level.Os), written);
  t.equal(log.watermark(Level.Disk), written);
  t.end();
});

t.test('segments that are not there are not replaced, and the log goes on', (t) => {
  const log = new SimulatedLog();
  for (let i = 0; i < 4; i++) log.appendUntilRotated(Level.Disk);
  const { sequencer } = log;
  const before = sequencer.sealed.map(({ id }) => id);
  t.same(before, [1, 2, 3]);
  for (const ids of [[9], [3, 4], [1, 3]]) {
    const replace = () => sequencer.replaceSealed(ids, sequencer.sealed[0]);
    t.throws(replace, { code: 'ERR_WAL_FAILED', message: `Segments ${ids.join(', ')} are not there` }, `${ids}`);
  }
  t.same(
    sequencer.sealed.map(({ id }) => id),
    before,
  );
  t.equal(sequencer.failed, false);
  t.end();
});
