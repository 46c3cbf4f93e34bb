import fs from 'node:fs';
import path from 'node:path';
import { repairLog } from 'ringwal';
import t from 'tap';
import { Field } from '../src/format/frame.js';
import { Level } from '../src/format/levels.js';
import { filesOf } from '../src/reader/storage-files.js';
import { verifyFiles } from '../src/reader/verify.js';
import { inSteps } from '../src/recovery/in-steps.js';
import { PatchedStorage } from '../src/recovery/patched-storage.js';
import { setAside } from '../src/recovery/quarantine.js';
import { inspectLog, openError } from '../src/recovery/recover.js';
import { planRepair } from '../src/recovery/repair-plan.js';
import { salvageLog } from '../src/recovery/salvage.js';
import { finish, type SurveyProgress } from '../src/recovery/survey.js';
import { Ring } from '../src/ring/ring.js';
import { segmentName } from '../src/segments/names.js';
import { withFile } from '../src/segments/read-segment.js';
import { Member } from '../src/sequencer/member.js';
import type { Storage } from '../src/storage/storage.js';
import { repairStorage } from '../src/upkeep/repair-log.js';
import { data, KeyLog } from './compaction-helpers.js';
import { failsWith, failure, numbers, temporaryDirectory } from './helpers.js';
import { forge, frameOffsets, HEADER_FIELDS } from './hostile/forge.js';
import { realLogs } from './hostile/logs.js';
import { MemoryDisk, sameImage } from './hostile/memory-disk.js';
import { framesOf, loseHeader, readAll } from './simulation/reading.js';
import { SimulatedLog } from './simulation/simulated-log.js';

/** Branches of recovery and of the failure paths that no other test comes to. */
const logs = new Map((await realLogs()).map((log) => [log.name, log]));
const rotated = logs.get('rotated')!;
const [FIRST, SECOND] = ['0000000000000001.wal', '0000000000000002.wal'];

/** The rotated log, with one number in the header of one of its segments changed, and all checksums right. */
function withHeaderField(file: number, at: number, value: bigint): Map<string, Uint8Array> {
  const field = HEADER_FIELDS.findIndex(([offset]) => offset === at);
  return forge(rotated.image, { file, structure: 0, field, value, content: undefined, relink: true });
}

t.test('a segment that begins elsewhere than the one before it ended is damage', async (t) => {
  for (const firstLsn of [6n, 8n]) {
    const disk = new MemoryDisk(withHeaderField(1, 56, firstLsn));
    const error = await failsWith(t, 'ERR_WAL_CORRUPT', () => inspectLog(disk, 'tolerate-torn-tail'));
    t.match(error.message, `${SECOND} starts at LSN ${firstLsn} after LSN 6`);
    t.same([error.segment, error.offset, error.lsn], [SECOND, 0, Math.min(7, Number(firstLsn))], 'with its place');
  }
});

t.test('what a repair cannot make whole it refuses, and leaves as it is', async (t) => {
  const missing = (image: Map<string, Uint8Array>) => {
    image.delete(FIRST);
    return image;
  };
  const cases: [string, Map<string, Uint8Array>, RegExp][] = [
    ['a segment that names one before the one before it', withHeaderField(2, 80, 1n), /do not follow/],
    ['a log that says it has no beginning', missing(withHeaderField(1, 80, 0n)), /starts too late/],
    ['a segment that ends behind its seal', withHeaderField(1, 96, 1n << 20n), /a seal in the middle of it/],
    [
      'a segment that is missing and larger than any',
      missing(withHeaderField(1, 96, 1n << 40n)),
      /which no segment has/,
    ],
    ['a segment that is missing and ended within its header', missing(withHeaderField(1, 96, 100n)), /end at byte 100/],
    [
      'a segment of which nothing is left and that ended within its header',
      withHeaderField(1, 96, 100n).set(FIRST, new Uint8Array(65536).fill(0xff)),
      /no room for a header/,
    ],
  ];
  for (const [what, image, why] of cases) {
    const disk = new MemoryDisk(image);
    const error = await failsWith(t, 'ERR_WAL_CORRUPT', () => finish(planRepair(disk)), what);
    t.match(error.message, why);
    t.match((await failure(repairStorage(disk))) as Error, { code: 'ERR_WAL_CORRUPT' });
    t.ok(sameImage(disk.image(), image), `${what}: nothing was touched`);
  }
});

t.test('a log that was repaired can be repaired again: it tells of all that is gone', async (t) => {
  const disk = new MemoryDisk(rotated.image);
  const damage = (name: string, frame: number) => {
    const file = disk.open(name, 'write');
    const at = frameOffsets(disk.image().get(name)!)[frame];
    file.write([Buffer.from('damage')], at + 70);
    file.close();
  };
  damage(FIRST, 1);
  const first = await repairStorage(disk);
  t.equal(first.lost.length, 1);
  damage(FIRST, 2);
  const second = await repairStorage(disk);
  t.same(second.lost, [{ firstLsn: first.lost[0].firstLsn, lastLsn: 6 }], 'one behind the other, they are one');
  t.equal(second.kept, rotated.records.size - (6 - first.lost[0].firstLsn + 1));
  const { verdict, lost, records } = await verifyFiles(filesOf(disk));
  const gone = lost.flatMap(({ firstLsn, lastLsn }) => numbers(firstLsn, lastLsn));
  t.same(
    [verdict, gone, records],
    ['clean', numbers(first.lost[0].firstLsn, 6), second.kept],
    'and verify says the same',
  );
  t.equal(inspectLog(disk, 'strict').report.lastLsn, rotated.lastLsn);
});

t.test('a segment is set aside under a name of its own, whatever is in quarantine', async (t) => {
  const disk = new MemoryDisk(
    new Map([
      ...rotated.image,
      [`quarantine/${FIRST}@0`, new Uint8Array(1)],
      [`quarantine/${FIRST}@0.2`, new Uint8Array(2)],
    ]),
  );
  t.equal(setAside(disk, FIRST), `quarantine/${FIRST}@0.3`);
  const names = disk.list('quarantine');
  t.same(names, [`${FIRST}@0`, `${FIRST}@0.2`, `${FIRST}@0.3`], 'nothing was written over');
});

t.test('a seal that says the segment ends before it began is none', async (t) => {
  const closed = logs.get('closed')!;
  const image = forge(closed.image, {
    file: 0,
    // The last of its frames.
    structure: frameOffsets(closed.image.get(FIRST)!).length - 1,
    field: [4, 5, 6, 7, 8, 12, 16, 20, 24].indexOf(Field.firstLsn),
    value: 0n,
    content: undefined,
    relink: false,
  });
  await failsWith(t, 'ERR_WAL_CORRUPT', () => inspectLog(new MemoryDisk(image), 'tolerate-torn-tail'));
});

t.test('work in steps tells how far it is, and ends where it is told to, letting go of what it holds', async (t) => {
  let open = 0;
  function* steps(): Generator<number, string> {
    open++;
    try {
      for (let i = 1; i <= 3; i++) yield i;
      return 'done';
    } finally {
      open--;
    }
  }
  const told: number[] = [];
  t.equal(await inSteps(steps(), (step) => told.push(step)), 'done');
  t.same(told, [1, 2, 3]);
  const stop = new AbortController();
  const reason = new Error('enough');
  const stopping = inSteps(steps(), (step) => step === 2 && stop.abort(reason), stop.signal);
  t.equal(await failure(stopping), reason);
  t.equal(open, 0);
});

t.test('a repair of what is no log, and one that was called off, change nothing', async (t) => {
  const directory = temporaryDirectory(t);
  const file = path.join(directory, 'file');
  fs.writeFileSync(file, 'no log');
  for (const wrong of [directory, file, path.join(directory, 'nowhere')]) {
    await failsWith(t, 'ERR_WAL_NOT_FOUND', repairLog(wrong));
  }
  const reason = new Error('enough');
  t.equal(await failure(repairLog(directory, { signal: AbortSignal.abort(reason) })), reason);
  for (const [name, bytes] of rotated.image) fs.writeFileSync(path.join(directory, name), bytes);
  fs.writeFileSync(path.join(directory, FIRST), rotated.image.get(FIRST)!.subarray(0, 9000));
  const stop = new AbortController();
  const midway = repairLog(directory, { signal: stop.signal, onProgress: () => stop.abort(reason) });
  t.equal(await failure(midway), reason, 'also in the middle of it');
  t.equal(fs.statSync(path.join(directory, FIRST)).size, 9000);
  t.notOk(fs.existsSync(path.join(directory, 'quarantine')));
  t.equal((await repairLog(directory)).verdict, 'repaired', 'and it can be done later');
});

t.test('a log as it would be after a repair can be read, and nothing else', async (t) => {
  const disk = new MemoryDisk(rotated.image);
  const patch = { from: 4096, to: 4160, pieces: [{ at: 4100, bytes: Buffer.from('new') }], keepTo: 4160 };
  const created = '0000000000000009.wal';
  const view: Storage = new PatchedStorage(disk, {
    segments: [
      { name: FIRST, create: false, patches: [patch], fileBytes: 5000 },
      { name: created, create: true, patches: [patch], fileBytes: undefined },
    ],
    setAside: [SECOND],
  });
  t.same(
    view.list().filter((name) => [FIRST, SECOND, created].includes(name)),
    [FIRST, created],
  );
  for (const [name, size] of [
    [FIRST, 5000],
    [created, 4160],
  ] as const) {
    const file = view.open(name, 'read');
    const bytes = new Uint8Array(100);
    t.equal(file.size(), size);
    t.equal(file.read(bytes, size - 50), 50, 'it ends where it would');
    t.equal(file.read(bytes, 4096), Math.min(100, size - 4096));
    t.equal(Buffer.from(bytes.subarray(0, 64)).toString().replaceAll('\0', ''), 'new', 'with zeros around the pieces');
    for (const change of [() => file.write([bytes], 0), () => file.truncate(0)]) t.throws(change, /only be read/);
    file.close();
  }
  for (const change of [
    () => view.open(FIRST, 'write'),
    () => view.open('new', 'create'),
    () => view.rename(FIRST, 'new'),
    () => view.remove(FIRST),
    () => view.makeFolder('quarantine'),
  ]) {
    t.throws(change, /only be read/);
  }
  t.equal(view.freeBytes(), 0);
  t.ok(sameImage(disk.image(), rotated.image), 'on the disk nothing has changed');
});

t.test('an error of permissions says so', async (t) => {
  for (const code of ['EACCES', 'EPERM', 'EROFS']) {
    const cause = Object.assign(new Error(`${code}: open`), { code });
    const error = openError(cause, '/a/log');
    t.match(error, { code: 'ERR_WAL_FAILED', cause });
    t.match(error.message, /permissions/);
  }
  t.notMatch(openError(Object.assign(new Error('EIO'), { code: 'EIO' }), '/a/log').message, /permissions/);
});

t.test('a producer that joins a log which failed already is woken to hear of it, and the log closes', async (t) => {
  const log = new SimulatedLog();
  log.append(Level.Disk);
  log.sequencer.step();
  log.append(Level.Disk);
  log.disk.crash();
  log.sequencer.step();
  t.ok(log.sequencer.failed);
  let woken = 0;
  const ring = Ring.allocate(64 * 1024);
  ring.head[4] = 1; // It sleeps.
  log.sequencer.addMember(new Member(9, ring, () => woken++));
  t.equal(woken, 1);
  const before = log.control.failure();
  log.sequencer.close();
  t.equal(log.control.failure(), before, 'that the file cannot even be closed is no other failure');
});

/** Segments of two frames each, with two records in a frame, the clock going on in between. */
function withSegments(count: number): SimulatedLog {
  const log = new SimulatedLog();
  for (let segment = 0; segment < count; segment++) {
    log.clock += 1000;
    for (let frame = 0; frame < 2; frame++) {
      log.append(Level.Disk, 2);
      log.sequencer.step();
    }
    log.sequencer.rotate();
  }
  log.sequencer.close();
  return log;
}

t.test('of neighbours without headers the one without frames becomes one gap, and the other is kept', async (t) => {
  const { disk } = withSegments(4);
  const size = withFile(disk, SECOND, (file) => file.size());
  disk.overwrite(SECOND, new Uint8Array(size).fill(0xff), 0);
  loseHeader(disk, segmentName(3));
  const lost = [{ firstLsn: 5, lastLsn: 8 }];
  t.match(await repairStorage(disk), { verdict: 'repaired', kept: 12, lost });
  t.match(await verifyFiles(filesOf(disk)), { verdict: 'clean', records: 12, lastLsn: 16, lost });
  const records = await readAll(disk, 1, inspectLog(disk, 'strict').end.lastLsn);
  t.same(
    records.map(({ lsn }) => lsn),
    [...numbers(1, 4), ...numbers(9, 16)],
  );
});

t.test(
  'what a segment without a header had cut off is not lost, also when nothing can be read before it',
  async (t) => {
    const log = new SimulatedLog();
    const { disk } = log;
    for (let frame = 0; frame < 2; frame++) log.append(Level.Disk, 2);
    log.sequencer.step();
    log.clock += 1000;
    log.sequencer.truncateAfter(2);
    log.append(Level.Disk, 2);
    log.sequencer.step();
    log.sequencer.close();
    for (const offset of framesOf(disk, FIRST).offsets) disk.flip(FIRST, offset + 66, 1);
    loseHeader(disk, SECOND);
    const { recovered } = await salvageLog(disk);
    t.match(recovered.report, { records: 2, lastLsn: 4, lost: [{ firstLsn: 1, lastLsn: 2 }] });
  },
);

t.test('a survey tells how far it is also in the middle of a large segment', (t) => {
  const log = new KeyLog({ segmentBytes: 8 * 1024 * 1024 });
  // The first segment of a run is a small one.
  log.write(data('first'));
  log.sequencer.rotate();
  for (let i = 0; i < 120; i++) log.write(data('x'.repeat(50_000)));
  t.equal(log.sequencer.sealed.length, 1, 'all of them are in one segment');
  log.disk.crash();
  log.disk.restart('process');
  const told: SurveyProgress[] = [];
  t.equal(finish(planRepair(log.disk), (progress) => told.push(progress)).kept, 121);
  const midway = told.filter(({ records }) => records > 1 && records < 121);
  t.match(midway, [{ totalBytes: told[0].totalBytes }], 'once');
  t.ok(midway[0].bytes >= 4 * 1024 * 1024 && midway[0].bytes < midway[0].totalBytes);
  t.match(told.at(-1), { records: 121, bytes: midway[0].totalBytes });
  t.end();
});
