import t from 'tap';
import { WalError } from '../src/errors.js';
import { Level } from '../src/format/levels.js';
import { filesOf } from '../src/reader/storage-files.js';
import { verifyFiles } from '../src/reader/verify.js';
import { inspectPointInTime } from '../src/recovery/point-in-time.js';
import { inspectLog } from '../src/recovery/recover.js';
import { endLastSegment } from '../src/recovery/repair-tail.js';
import { finish } from '../src/recovery/survey.js';
import { describeRow, type SegmentEnd, verdictOf } from '../src/recovery/verdict.js';
import { segmentName } from '../src/segments/names.js';
import { partsOf, tornEnd } from './simulation/holes.js';
import { Random } from './simulation/random.js';
import { framesOf } from './simulation/reading.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';
import { during, SEGMENT_BYTES, SimulatedLog } from './simulation/simulated-log.js';

const FIRST = segmentName(1);
const L = 10;

/** The table once more, each row by itself: what it covers, said without the others. */
const ROWS: { row: string; verdict: string; covers: (end: SegmentEnd) => boolean }[] = [
  { row: 'A', verdict: 'sealed', covers: (end) => end.sealed },
  { row: 'B', verdict: 'corrupt', covers: (end) => !end.sealed && !end.isLast },
  { row: 'G', verdict: 'corrupt', covers: (end) => open(end) && !end.fullSize },
  {
    row: 'C',
    verdict: 'corrupt',
    covers: (end) => open(end) && end.fullSize && end.laterFrame !== undefined && end.laterFrame.durableLsn >= L,
  },
  {
    row: 'H',
    verdict: 'corrupt',
    covers: (end) => open(end) && end.fullSize && unpromised(end) && end.laterFrame!.provesPrefix,
  },
  {
    row: 'D',
    verdict: 'torn-tail',
    covers: (end) => open(end) && end.fullSize && unpromised(end) && !end.laterFrame!.provesPrefix,
  },
  {
    row: 'E',
    verdict: 'torn-tail',
    covers: (end) => open(end) && end.fullSize && end.laterFrame === undefined && end.leftOver,
  },
  {
    row: 'F',
    verdict: 'clean',
    covers: (end) => open(end) && end.fullSize && end.laterFrame === undefined && !end.leftOver,
  },
];

function open(end: SegmentEnd): boolean {
  return end.isLast && !end.sealed;
}

function unpromised(end: SegmentEnd): boolean {
  return end.laterFrame !== undefined && end.laterFrame.durableLsn < L;
}

function* everyEnd(): Generator<SegmentEnd> {
  const both = [true, false];
  const stamps = [0, L - 1, L, L + 1];
  const laterFrames = [
    undefined,
    ...stamps.flatMap((durableLsn) => both.map((provesPrefix) => ({ durableLsn, provesPrefix }))),
  ];
  for (const isLast of both)
    for (const sealed of both)
      for (const fullSize of both)
        for (const leftOver of both)
          for (const laterFrame of laterFrames)
            yield { isLast, sealed, fullSize, leftOver, laterFrame, expectedLsn: L };
}

t.test('every combination of what recovery sees meets exactly one row of the table', (t) => {
  const met = new Set<string>();
  let combinations = 0;
  for (const end of everyEnd()) {
    const rows = ROWS.filter((row) => row.covers(end));
    const { row, verdict } = verdictOf(end);
    if (rows.length !== 1) t.fail(`${JSON.stringify(end)} meets ${rows.map((found) => found.row)}`);
    if (rows[0].row !== row || rows[0].verdict !== verdict) t.fail(`${JSON.stringify(end)} is ${row}, ${verdict}`);
    met.add(row);
    combinations++;
  }
  t.equal(combinations, 16 * 9);
  t.same([...met].sort(), ROWS.map((row) => row.row).sort());
  for (const { row } of ROWS) t.match(describeRow(row as 'A', L), /LSN/);
  t.end();
});

/** Four synced frames of one record each, and where they start. */
function fourFrames(
  level: number = Level.Disk,
  seed = 1,
): { disk: SimulatedDisk; log: SimulatedLog; offsets: number[] } {
  const disk = new SimulatedDisk(new Random(seed));
  const log = new SimulatedLog({ disk });
  for (let i = 0; i < 4; i++) {
    log.append(level);
    log.sequencer.step();
  }
  log.collect();
  return { disk, log, offsets: framesOf(disk, FIRST).offsets };
}

function copyFile(from: SimulatedDisk, to: SimulatedDisk, name: string): void {
  const source = from.open(name, 'read');
  const bytes = new Uint8Array(source.size());
  source.read(bytes, 0);
  to.open(name, 'create').write([bytes], 0);
}

function corruption(disk: SimulatedDisk): WalError {
  try {
    inspectLog(disk, 'tolerate-torn-tail');
  } catch (error) {
    if (error instanceof WalError) return error;
  }
  throw new Error('It opens.');
}

t.test('A: a segment that was closed is taken as it is, from its seal', (t) => {
  const { disk, log } = fourFrames();
  log.sequencer.close();
  const { report, segments } = inspectLog(disk, 'strict');
  t.match(report, { verdict: 'clean', lastLsn: 4 });
  t.match(segments[0], { state: 'sealed', fileBytes: segments[0].endOffset });
  t.end();
});

t.test('G: a closed log whose last records lie in a file that grew notices when that loses its end', (t) => {
  for (const lost of [8, 200, 5000]) {
    const { disk, log } = fourFrames();
    log.sequencer.rotate();
    for (let i = 0; i < 20; i++) log.append(Level.Disk);
    log.sequencer.close();
    const { segments, end } = inspectLog(disk, 'strict');
    t.equal(end.lastLsn, 24);
    const grown = segments[1];
    const file = disk.open(grown.name, 'write');
    file.truncate(Math.max(grown.headerBytes, grown.fileBytes - lost));
    file.close();
    t.match(corruption(disk), { segment: grown.name });
  }
  t.end();
});

t.test('A: a seal in a file that was not cut yet is found from the front, and the file is cut', (t) => {
  const { disk, log } = fourFrames();
  const calls: string[] = [];
  const twin = fourFrames();
  twin.disk.observe = (call) => calls.push(call);
  twin.log.sequencer.close();
  const failAt = calls.indexOf('truncate') + 1;
  t.ok(during(disk, { failAt }, () => log.sequencer.close()));
  const recovered = inspectLog(disk, 'strict');
  t.match(recovered.segments[0], { state: 'sealed', fileBytes: SEGMENT_BYTES });
  const again = SimulatedLog.reopen(disk, 'process');
  t.equal(again.recovered.report.verdict, 'clean');
  t.ok(again.recovered.segments[0].fileBytes < SEGMENT_BYTES);
  t.match(inspectLog(disk, 'strict').segments[0], { state: 'sealed', lastLsn: 4 });
  t.end();
});

t.test('B: a segment before the last whose frames do not hold is reported by whoever reads it', async (t) => {
  const { disk, log, offsets } = fourFrames();
  log.sequencer.rotate();
  disk.flip(FIRST, offsets[2] + 64, 0);
  const { end } = inspectLog(disk, 'tolerate-torn-tail');
  t.equal(end.lastLsn, 4, 'sealed segments are not read at open');
  await t.rejects(log.read(4), { code: 'ERR_WAL_CORRUPT', segment: FIRST, offset: offsets[2], lsn: 3 });
});

t.test('B: a missing segment, and one that belongs to another log, are corruption', (t) => {
  const { disk, log } = fourFrames();
  log.sequencer.rotate();
  log.append(Level.Disk);
  log.sequencer.step();
  log.sequencer.rotate();
  disk.rename(segmentName(2), 'elsewhere');
  t.match(corruption(disk), { code: 'ERR_WAL_CORRUPT', segment: segmentName(3) });
  disk.rename('elsewhere', segmentName(2));
  disk.rename(FIRST, 'elsewhere');
  t.match(corruption(disk), { code: 'ERR_WAL_CORRUPT', segment: segmentName(2), lsn: 1 });
  disk.rename('elsewhere', FIRST);
  const { disk: stranger, log: strangerLog } = fourFrames(Level.Disk, 2);
  strangerLog.sequencer.rotate();
  disk.rename(segmentName(2), 'elsewhere');
  copyFile(stranger, disk, segmentName(2));
  disk.rename(segmentName(3), 'elsewhere too');
  t.match(corruption(disk), { code: 'ERR_WAL_CORRUPT', segment: segmentName(2), message: /another log/ });
  t.end();
});

t.test('C: what a later frame says was on disk, and is not readable, is corruption, and nothing is touched', (t) => {
  const { disk, offsets } = fourFrames();
  for (const part of [0, 30, 63, 64]) {
    disk.flip(FIRST, offsets[1] + part, 3);
    const before = disk.calls;
    t.match(corruption(disk), { code: 'ERR_WAL_CORRUPT', segment: FIRST, offset: offsets[1], lsn: 2 });
    t.equal(disk.calls, before);
    disk.flip(FIRST, offsets[1] + part, 3);
  }
  t.end();
});

t.test('D: a hole in a group that nobody had on disk is a torn tail, and all behind it goes', async (t) => {
  const { disk, offsets, log } = fourFrames(Level.Os);
  disk.flip(FIRST, offsets[1] + 70, 3);
  const again = SimulatedLog.reopen(disk, 'process');
  t.match(again.recovered.report, {
    verdict: 'torn-tail',
    lastLsn: 1,
    quarantined: [`quarantine/${FIRST}@${offsets[1]}`],
  });
  t.same(disk.list('quarantine'), [`${FIRST}@${offsets[1]}`]);
  t.equal((await again.read(1)).length, 1);
  t.equal(log.watermark(Level.Disk), 0);
});

t.test(
  'C, D: two places of a segment that grew and that recovery sealed: lost LSNs are named as soon as any stamp is left, and else all calls it a torn tail',
  async (t) => {
    const grown = () => {
      const { disk, log } = fourFrames();
      log.sequencer.rotate();
      for (const frames of [2, 4]) {
        for (let i = 0; i < frames; i++) log.append(Level.Disk);
        log.sequencer.step();
      }
      disk.crash();
      SimulatedLog.reopen(disk, 'process');
      return disk;
    };
    const sound = grown();
    const last = segmentName(2);
    const frames = partsOf(sound).filter(({ name, isHeader }) => name === last && !isHeader);
    t.equal(frames.length, 7, 'two groups and a seal');
    const verdicts: Record<string, string> = {};
    for (const [i, { from: first, firstLsn }] of frames.entries()) {
      for (const { from: second } of frames.slice(i + 1)) {
        const disk = grown();
        const holes = [first, second].map((from) => ({ name: last, from: from + 20, to: from + 21 }));
        for (const { name, from } of holes) disk.flip(name, from, 2);
        const end = finish(inspectPointInTime(disk));
        const { verdict } = end.report;
        const where = `${i} and ${frames.findIndex(({ from }) => from === second)}`;
        verdicts[where] = verdict;
        t.equal(verdict === 'torn-tail', tornEnd(partsOf(sound), holes) !== undefined, `${where}: the judge agrees`);
        const sealed = second !== frames[6].from;
        t.equal((await verifyFiles(filesOf(disk))).verdict, verdict === 'torn-tail' ? verdict : 'corrupt', where);
        if (!sealed && verdict === 'torn-tail') t.equal(inspectLog(disk, 'tolerate-torn-tail').report.verdict, verdict);
        if (!sealed && verdict !== 'torn-tail') t.equal(corruption(disk).lsn, firstLsn);
        t.equal(end.end.lastLsn, firstLsn - 1, `${where}: what is before it stays`);
        t.same(end.report.lost ?? [], verdict === 'torn-tail' ? [] : [{ firstLsn, lastLsn: 10 }], where);
        endLastSegment(disk, end, 1_700_000_001_000);
        t.ok(disk.list('quarantine').includes(`${last}@${first}`), `${where}: what is cut off is kept`);
      }
    }
    t.match(verdicts, { '0 and 6': 'salvaged', '1 and 6': 'salvaged', '2 and 6': 'torn-tail', '5 and 6': 'torn-tail' });
  },
);

t.test('E: bytes behind the last frame that make none are a torn tail; strict mode refuses it', (t) => {
  const { disk, offsets } = fourFrames();
  disk.flip(FIRST, offsets[3] + 70, 3);
  t.throws(() => inspectLog(disk, 'strict'), { code: 'ERR_WAL_CORRUPT', offset: offsets[3], lsn: 4 });
  t.match(inspectLog(disk, 'tolerate-torn-tail').report, { verdict: 'torn-tail', lastLsn: 3 });
  t.end();
});

t.test('F: frames that end with nothing behind them are clean', (t) => {
  const { disk } = fourFrames();
  const { report, segments } = inspectLog(disk, 'strict');
  t.match(report, { verdict: 'clean', lastLsn: 4, discardedBytes: 0 });
  t.equal(segments[0].state, 'open');
  t.end();
});

t.test('G: a file that was cut to its seal and has none is corruption', (t) => {
  const { disk, log } = fourFrames();
  log.sequencer.close();
  const { endOffset } = inspectLog(disk, 'strict').segments[0];
  for (const position of [endOffset - 3, endOffset - 40, framesOf(disk, FIRST).offsets[4]]) {
    disk.flip(FIRST, position, 1);
    t.match(corruption(disk), { code: 'ERR_WAL_CORRUPT', segment: FIRST, lsn: 5 });
    disk.flip(FIRST, position, 1);
  }
  t.end();
});

t.test('H: a lost state frame with anything behind it is corruption', (t) => {
  const { disk, log } = fourFrames();
  log.sequencer.updateState((state) => ({ ...state, checkpoint: 4 }));
  const state = framesOf(disk, FIRST).offsets[4];
  const lose = () => disk.flip(FIRST, state + 70, 2);
  lose();
  t.equal(inspectLog(disk, 'tolerate-torn-tail').report.verdict, 'torn-tail', 'at the very end nothing can tell');
  lose();
  log.append(Level.Os);
  log.sequencer.step();
  lose();
  t.match(corruption(disk), { code: 'ERR_WAL_CORRUPT', segment: FIRST, offset: state });
  t.end();
});

t.test('the durable stamp advances in a running log: the detector is alive', (t) => {
  const { disk, log } = fourFrames();
  t.equal(framesOf(disk, FIRST).stamp, 3, 'the fourth frame says that the third was on disk');
  log.append(Level.Os);
  log.sequencer.step();
  t.equal(framesOf(disk, FIRST).stamp, 4);
  log.append(Level.Os);
  log.sequencer.step();
  t.equal(framesOf(disk, FIRST).stamp, 4, 'and does not run ahead of the disk');
  t.end();
});

t.test('a record that holds a copy of a frame is not taken for a later frame', (t) => {
  const disk = new SimulatedDisk(new Random(1));
  const log = new SimulatedLog({ disk });
  log.append(Level.Os);
  log.append(Level.Os, 30);
  log.sequencer.step();
  const { offsets, end } = framesOf(disk, FIRST);
  // The payload of the second frame becomes a copy of the first, at an aligned place.
  const file = disk.open(FIRST, 'write');
  const copy = new Uint8Array(64);
  file.read(copy, offsets[0]);
  file.write([copy], offsets[1] + 128);
  file.close();
  t.ok(offsets[1] + 192 < end);
  t.match(inspectLog(disk, 'tolerate-torn-tail').report, { verdict: 'torn-tail', lastLsn: 1 });
  t.end();
});
