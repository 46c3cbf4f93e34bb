import t from 'tap';
import { Level } from '../src/format/levels.js';
import { filesOf } from '../src/reader/storage-files.js';
import { verifyFiles } from '../src/reader/verify.js';
import { readHeader, withFile } from '../src/segments/read-segment.js';
import { Window, walkFrames } from '../src/segments/walk.js';
import { Random } from './simulation/random.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';
import { during, SimulatedLog } from './simulation/simulated-log.js';

const FIRST = '0000000000000001.wal';
const SECOND = '0000000000000002.wal';

/** A log with records that nobody asked to be synced. */
function unsynced(seed: number): SimulatedLog {
  const log = new SimulatedLog({ disk: new SimulatedDisk(new Random(seed)) });
  for (let i = 0; i < 6; i++) {
    log.append(Level.Os, 6);
    log.sequencer.step();
  }
  return log;
}

t.test('frames are on disk before the seal is written, and the seal before the next segment begins', (t) => {
  const log = unsynced(1);
  const calls: string[] = [];
  log.disk.observe = (call, name) => calls.push(`${call} ${name}`);
  log.sequencer.rotate();
  const seal = calls.indexOf(`write ${FIRST}`);
  t.equal(calls[seal - 1], `sync ${FIRST}`);
  t.equal(calls[seal + 1], `sync ${FIRST}`);
  t.ok(calls.findIndex((call) => call.startsWith('rename spare') && call.endsWith('.wal')) > seal + 1);
  t.end();
});

t.test('a seal that survives the power says the truth: every frame before it is there', (t) => {
  for (let seed = 0; seed < 60; seed++) {
    for (let call = 1, reached = true; reached; call++) {
      const log = unsynced(seed);
      reached = during(log.disk, { crashAt: call }, () => log.sequencer.rotate());
      log.disk.crash();
      log.disk.restart('power');
      const sealed = withFile(log.disk, FIRST, (file) => {
        const { headerBytes, salt, firstLsn, headerCrc } = readHeader(file);
        const start = { salt, lsn: firstLsn, previousCrc: headerCrc };
        return [...walkFrames(new Window(file), headerBytes, start)].length;
      });
      const found = SimulatedLog.reopen(log.disk, 'process').recovered;
      if (sealed > 6 && found.end.lastLsn !== 36) t.fail(`seed ${seed}, call ${call}: ends at ${found.end.lastLsn}`);
    }
  }
  t.pass();
  t.end();
});

t.test(
  'a seal that ends a file which grew is durable once the log was opened, though its own sync had failed',
  async (t) => {
    let sealed = 0;
    for (let seed = 0; seed < 40; seed++) {
      const log = unsynced(seed);
      // The second segment grows: its file ends with its seal from the moment in which that is written.
      log.sequencer.rotate();
      log.append(Level.Disk, 6);
      log.sequencer.step();
      const writes: string[] = [];
      log.disk.observe = (call, name) => {
        if (call === 'write') writes.push(name);
        if (call === 'sync' && name === SECOND && writes.at(-1) === SECOND) log.disk.arm({ failNext: 'sync' });
      };
      t.throws(() => log.sequencer.rotate(), { code: 'EIO' });
      log.disk.observe = undefined;
      const found = SimulatedLog.reopen(log.disk, 'process');
      if (found.recovered.segments.at(-1)?.state === 'sealed' && found.recovered.torn === undefined) sealed++;
      found.append(Level.Disk);
      found.sequencer.step();
      log.disk.crash();
      log.disk.restart('power');
      const { verdict, lastLsn } = await verifyFiles(filesOf(log.disk));
      if (verdict !== 'clean' || lastLsn !== 43) t.fail(`seed ${seed}: ${verdict}, up to ${lastLsn}`);
    }
    t.ok(sealed > 10, `${sealed} times there was a seal when the log was opened`);
  },
);
