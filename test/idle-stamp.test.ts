import t from 'tap';
import { Level } from '../src/format/levels.js';
import { readHeader, withFile } from '../src/segments/read-segment.js';
import { Window, walkFrames } from '../src/segments/walk.js';
import { NodeStorage } from '../src/storage/node-storage.js';
import { openLog, temporaryDirectory } from './helpers.js';
import { framesOf } from './simulation/reading.js';
import { SimulatedLog } from './simulation/simulated-log.js';

const FIRST = '0000000000000001.wal';

t.test('a log that falls idle says how far it is durable, once', (t) => {
  const log = new SimulatedLog();
  log.append(Level.Disk, 3);
  log.sequencer.step();
  t.equal(framesOf(log.disk, FIRST).stamp, 0, 'the only frame could not know');
  log.sequencer.idle();
  t.equal(framesOf(log.disk, FIRST).stamp, 3);
  const { end } = framesOf(log.disk, FIRST);
  log.sequencer.idle();
  t.equal(framesOf(log.disk, FIRST).end, end);
  t.end();
});

/** The highest durable LSN that a frame of a log on a real disk is stamped with. */
function stampIn(directory: string): number {
  return withFile(new NodeStorage(directory), FIRST, (file) => {
    const { headerBytes, salt, firstLsn, headerCrc } = readHeader(file);
    const frames = walkFrames(new Window(file), headerBytes, { salt, lsn: firstLsn, previousCrc: headerCrc });
    return Math.max(0, ...[...frames].map(({ header }) => header.durableLsn));
  });
}

t.test('the durable stamp advances in a running log, and never ahead of the disk', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { flushIntervalMs: 0 }, directory);
  let stamp = 0;
  for (let i = 1; i <= 20; i++) {
    await wal.append(`record ${i}`);
    const seen = stampIn(directory);
    t.ok(seen >= i - 1, `LSN ${i - 1} was on disk when LSN ${i} was written: ${seen}`);
    t.ok(seen <= wal.watermark('disk') && seen >= stamp, 'and the stamp is neither ahead nor going back');
    stamp = seen;
  }
  await wal.append('not synced', { durability: 'os' });
  t.ok(stampIn(directory) <= 20, 'what only the kernel has is not vouched for');
});
