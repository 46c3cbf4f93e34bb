import t from 'tap';
import { Level } from '../src/format/levels.js';
import { filesOf } from '../src/reader/storage-files.js';
import { verifyFiles } from '../src/reader/verify.js';
import { Random } from './simulation/random.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';
import { during, SimulatedLog } from './simulation/simulated-log.js';

function withTwoFrames(): SimulatedLog {
  const log = new SimulatedLog({ disk: new SimulatedDisk(new Random(1)) });
  for (let i = 0; i < 2; i++) {
    log.append(Level.Disk, 5);
    log.sequencer.step();
  }
  log.collect();
  return log;
}

t.test(
  'a cut through the middle of a frame leaves what is before it, and what is appended takes its place',
  async (t) => {
    const log = withTwoFrames();
    const known = await log.read();
    log.sequencer.truncateAfter(7);
    t.equal(log.watermark(Level.Disk), 7);
    const frame = log.append(Level.Disk, 5);
    log.sequencer.step();
    log.collect();
    t.equal(frame.firstLsn, 8);
    const expected = [...known.slice(0, 7), ...frame.ids];
    t.same(await log.read(), expected);
    const again = SimulatedLog.reopen(log.disk, 'power');
    t.same(await again.read(), expected);
  },
);

t.test('a cut that finds no room for its segment cuts nothing, and the log goes on', async (t) => {
  let refused = 0;
  for (let call = 1, reached = true; reached; call++) {
    const log = withTwoFrames();
    const known = await log.read();
    reached = during(log.disk, { failAt: call, errno: 'ENOSPC' }, () => log.sequencer.truncateAfter(7));
    if (log.sequencer.failed || log.watermark(Level.Disk) === 7) continue;
    refused++;
    t.equal(log.watermark(Level.Memory), 10, `call ${call}`);
    known.push(...log.append(Level.Disk, 2).ids);
    log.sequencer.step();
    t.same(await log.read(), known);
    t.same(await SimulatedLog.reopen(log.disk, 'power').read(), known);
  }
  t.ok(refused >= 2, `${refused} calls refused it`);
});

t.test('a log that was cut twice in the same frame is sound', async (t) => {
  const log = withTwoFrames();
  const known = await log.read();
  log.sequencer.truncateAfter(8);
  log.sequencer.truncateAfter(7);
  t.match(await verifyFiles(filesOf(log.disk)), { verdict: 'clean', damage: [], lastLsn: 7 });
  t.same(await SimulatedLog.reopen(log.disk, 'power').read(), known.slice(0, 7));
});

t.test('a cut through a segment that recovery had ended leaves a sound log', async (t) => {
  for (const mode of ['tolerate-torn-tail', 'point-in-time'] as const) {
    const { disk } = withTwoFrames();
    const log = SimulatedLog.reopen(disk, 'process', { mode });
    const known = await log.read();
    log.append(Level.Disk, 3);
    log.sequencer.step();
    log.collect();
    log.sequencer.truncateAfter(7);
    t.match(await verifyFiles(filesOf(disk)), { verdict: 'clean', damage: [], lastLsn: 7 }, mode);
    t.same(await SimulatedLog.reopen(disk, 'power', { mode }).read(), known.slice(0, 7));
  }
});
