import t from 'tap';
import { Level } from '../src/format/levels.js';
import { readHeader, withFile } from '../src/segments/read-segment.js';
import { retireSegments } from '../src/segments/retire.js';
import { SEGMENT_BYTES, SimulatedLog } from './simulation/simulated-log.js';

t.test('every segment has a salt of its own, also one that is made of a recycled file', (t) => {
  const log = new SimulatedLog();
  const salts: string[] = [];
  let recycled = 0;
  for (let round = 0; round < 8; round++) {
    log.appendUntilRotated(Level.Disk);
    const name = log.disk
      .list()
      .filter((file) => file.endsWith('.wal'))
      .at(-1)!;
    const { salt, flags } = withFile(log.disk, name, readHeader);
    recycled += flags & 1;
    salts.push(`${salt.low}.${salt.high}`);
    log.sequencer.updateState((state) => ({ ...state, checkpoint: log.watermark(Level.Disk) }));
    const gone = log.sequencer.cleanup().map((segment) => segment.name);
    for (const spare of retireSegments(log.disk, gone, 1, SEGMENT_BYTES).spares) log.sequencer.addSpare(spare);
  }
  t.equal(new Set(salts).size, salts.length);
  t.ok(recycled > 2, `${recycled} of them were recycled`);
  t.end();
});

t.test('a frame of what a file held before is found by nobody, though it stands behind the end', (t) => {
  const log = new SimulatedLog();
  for (let i = 0; i < 2; i++) log.appendUntilRotated(Level.Disk);
  log.sequencer.updateState((state) => ({ ...state, checkpoint: log.watermark(Level.Disk) }));
  const gone = log.sequencer.cleanup().map((segment) => segment.name);
  for (const spare of retireSegments(log.disk, gone, 1, SEGMENT_BYTES).spares) log.sequencer.addSpare(spare);
  log.sequencer.rotate();
  log.append(Level.Disk);
  log.sequencer.step();
  const { recovered } = SimulatedLog.reopen(log.disk, 'process');
  t.match(recovered.report, { verdict: 'clean', discardedBytes: 0 });
  t.end();
});
