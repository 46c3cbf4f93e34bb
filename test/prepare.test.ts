import fs from 'node:fs';
import path from 'node:path';
import t, { type Test } from 'tap';
import { Level } from '../src/format/levels.js';
import { Counter } from '../src/ring/control.js';
import { fillWithZeros, growingSpare, prepareSpare, type Spare } from '../src/segments/prepare.js';
import { NodeStorage } from '../src/storage/node-storage.js';
import type { StorageFile } from '../src/storage/storage.js';
import { collect, openLog, payloads, temporaryDirectory } from './helpers.js';
import { Random } from './simulation/random.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';
import { SimulatedLog } from './simulation/simulated-log.js';

const BYTES = 600_000;
/** Not of whole pages. */
const PREPARED_BYTES = 203_000;
const { O_DIRECT } = fs.constants;
type Write = (fd: number, view: Uint8Array, offset: number, length: number, position: number) => number;

/**
 * `answer` is asked instead of the operating system whenever something is written past the page cache. Returns how far
 * the last file was written without leaving anything out.
 */
function directWrites(
  t: Test,
  answer: (write: () => number, length: number, position: number) => number,
): () => number {
  const { openSync, writeSync } = fs;
  let written = 0;
  const direct = new Set<number>();
  t.teardown(() => Object.assign(fs, { openSync, writeSync }));
  const open: typeof openSync = (file, flags, mode) => {
    const fd = openSync(file, flags, mode);
    if ((Number(flags) & O_DIRECT) === 0) direct.delete(fd);
    else direct.add(fd);
    return fd;
  };
  const write: Write = (fd, view, offset, length, position) => {
    const really = () => writeSync(fd, view, offset, length, position);
    const count = direct.has(fd) ? answer(really, length, position) : really();
    if (position === 0) written = count;
    else if (position === written) written += count;
    return count;
  };
  Object.assign(fs, { openSync: open, writeSync: write });
  return () => written;
}

function failing(code: string): never {
  throw Object.assign(new Error(`${code}: write`), { code });
}

function isZeros(t: Test, directory: string, { name }: Spare, bytes: number): void {
  const content = fs.readFileSync(path.join(directory, name));
  t.equal(content.length, bytes);
  t.ok(content.equals(Buffer.alloc(bytes)), 'zeros from end to end');
}

t.test('a spare is full of zeros to its last byte, whatever its size', async (t) => {
  const directory = temporaryDirectory(t);
  const storage = new NodeStorage(directory);
  for (const bytes of [1, 4095, 4096, 256 * 1024, BYTES, 1024 * 1024 + 4097]) {
    isZeros(t, directory, prepareSpare(storage, bytes), bytes);
  }
});

if (O_DIRECT === undefined) t.comment('this platform has no O_DIRECT: what is past the page cache is not tested');
else {
  t.test('what a filesystem does not take past the page cache goes through it', async (t) => {
    const directory = temporaryDirectory(t);
    const storage = new NodeStorage(directory);
    let asked = 0;
    await t.test('refused at once, and in the middle', async (t) => {
      const written = directWrites(t, (write) => (asked++ % 3 === 0 ? write() : failing('EINVAL')));
      for (let i = 0; i < 2; i++) {
        isZeros(t, directory, prepareSpare(storage, BYTES), BYTES);
        t.equal(written(), BYTES, 'without a hole');
      }
      t.equal(asked, 3);
    });
    await t.test('no descriptor left for it', async (t) => {
      const { openSync } = fs;
      t.teardown(() => Object.assign(fs, { openSync }));
      fs.openSync = (file, flags, mode) =>
        (Number(flags) & O_DIRECT) === 0 ? openSync(file, flags, mode) : failing('EMFILE');
      const spare = prepareSpare(storage, BYTES);
      isZeros(t, directory, spare, BYTES);
      t.equal(spare.fillRate, undefined, 'which says nothing of how quick the other way is');
    });
  });

  t.test('a short count past the page cache is made up for', async (t) => {
    const directory = temporaryDirectory(t);
    const { writeSync } = fs;
    directWrites(t, (_, length, position) => {
      const file = fs.openSync(path.join(directory, fs.readdirSync(directory)[0]), 'r+');
      const count = writeSync(file, Buffer.alloc(length), 0, position === 0 ? length : 5000, position);
      fs.closeSync(file);
      return count;
    });
    isZeros(t, directory, prepareSpare(new NodeStorage(directory), BYTES), BYTES);
  });

  t.test('a disk that takes nothing past the page cache and says nothing is not asked for ever', async (t) => {
    const directory = temporaryDirectory(t);
    let asked = 0;
    const written = directWrites(t, (write) => (asked++ === 0 ? write() : 0));
    const spare = prepareSpare(new NodeStorage(directory), BYTES);
    isZeros(t, directory, spare, BYTES);
    t.equal(written(), BYTES, 'without a hole');
    t.equal(asked, 2);
    t.ok(Number(spare.fillRate) > 0, 'what went past it tells how quick that is');
  });

  for (const code of ['ENOSPC', 'EDQUOT', 'EIO']) {
    t.test(`${code} past the page cache is told, and the unfinished spare is gone`, async (t) => {
      const directory = temporaryDirectory(t);
      directWrites(t, (write, _, position) => (position === 0 ? write() : failing(code)));
      t.throws(() => prepareSpare(new NodeStorage(directory), BYTES), { code });
      t.same(fs.readdirSync(directory), []);
    });
  }

  t.test('what is behind a recycled segment is filled from any byte on, and what it held stays', async (t) => {
    const directory = temporaryDirectory(t);
    for (const from of [4096, 5000]) {
      const location = path.join(directory, `${from}`);
      fs.writeFileSync(location, Buffer.alloc(from, 'x'));
      const file = new NodeStorage(directory).open(`${from}`, 'write');
      fillWithZeros(file, from, BYTES);
      file.close();
      t.ok(fs.readFileSync(location).equals(Buffer.concat([Buffer.alloc(from, 'x'), Buffer.alloc(BYTES - from)])));
    }
  });

  t.test(
    'a record that is read while its page was never in the cache is whole, and so are those before it',
    async (t) => {
      const directory = temporaryDirectory(t);
      const wal = await openLog(t, { segmentBytes: 1024 * 1024 }, directory);
      const written: string[] = [];
      for (let i = 0; i < 300; i++) {
        written.push(`${i} ${'x'.repeat((i * 37) % 900)}`);
        await wal.append(written[i]);
        if (i % 50 === 0) t.same(payloads(await collect(wal.read())), written);
      }
      await wal.close();
      const again = await openLog(t, {}, directory);
      t.equal(again.recovery.verdict, 'clean');
      t.same(payloads(await collect(again.read())), written);
    },
  );
}

/** A disk that notes where the writes to segments end. */
function notingDisk(): { disk: SimulatedDisk; ends: { name: string; end: number; size: number }[] } {
  const disk = new SimulatedDisk(new Random(1));
  const ends: { name: string; end: number; size: number }[] = [];
  const open = disk.open.bind(disk);
  disk.open = (name, mode): StorageFile => {
    const file = open(name, mode);
    const write = file.write.bind(file);
    file.write = (views, position) => {
      write(views, position);
      const end = position + views.reduce((sum, { byteLength }) => sum + byteLength, 0);
      if (position > 0) ends.push({ name, end, size: file.size() });
    };
    return file;
  };
  return { disk, ends };
}

t.test('into a prepared segment whole pages are written, and nothing behind its end', (t) => {
  const { disk, ends } = notingDisk();
  const log = new SimulatedLog({ disk, segmentBytes: PREPARED_BYTES });
  const spare = prepareSpare(disk, PREPARED_BYTES);
  ends.length = 0;
  log.sequencer.addSpare(spare);
  while (log.control.get(Counter.segments) < 2) {
    log.append(Level.Disk, 3);
    log.sequencer.step();
    log.collect();
  }
  const prepared = ends.filter(({ name }) => name === spare.name);
  t.ok(prepared.length > 20);
  t.ok(prepared.every(({ size }) => size === PREPARED_BYTES));
  const whole = prepared.filter(({ end }) => end % 4096 === 0);
  t.ok(whole.length > prepared.length / 2);
  const others = prepared.filter(({ end }) => end % 4096 !== 0);
  t.ok(others.every(({ end }) => Math.ceil(end / 4096) * 4096 > PREPARED_BYTES));
  t.end();
});

t.test('a segment that grows ends where its last frame does', (t) => {
  const { disk, ends } = notingDisk();
  const log = new SimulatedLog({ disk });
  while (log.control.get(Counter.growing) === 0) log.appendUntilRotated(Level.Disk);
  // Beyond what existed of it when it began.
  for (let i = 0; i < 3; i++) {
    ends.length = 0;
    log.append(Level.Disk, 20);
    log.sequencer.step();
    log.collect();
  }
  t.equal(ends.length, 1);
  t.equal(ends[0].end, ends[0].size);
  t.not(ends[0].end % 4096, 0);
  t.end();
});

const KIB = 1024;
const MIB = 1024 * KIB;

/** Writes to the current segment at `rate` bytes a millisecond, up to this offset or until it is full. */
function writeAt(log: SimulatedLog, rate: number, upTo: number): void {
  const { control } = log;
  const [startedAt, segment] = [log.clock, control.get(Counter.segmentId)];
  const from = control.get(Counter.segmentOffset);
  let groups = 0;
  for (let offset = from; offset < upTo; offset = control.get(Counter.segmentOffset)) {
    log.clock = startedAt + Math.floor((offset - from) / rate);
    // A sync of a file that grows takes the simulated disk long.
    log.append(groups++ % 100 === 0 ? Level.Disk : Level.Os, 20);
    log.sequencer.step();
    log.collect();
    if (segment > 0 && control.get(Counter.segmentId) !== segment) return;
  }
}

t.test('a spare is asked for as long as the disk has time to fill one beside the log', (t) => {
  /** How often one was asked for, in a log of so many bytes a millisecond whose last spare was filled at `fillRate`. */
  const asked = (rate: number, fillRate?: number): number => {
    const log = new SimulatedLog({ segmentBytes: 32 * MIB });
    log.sequencer.addSpare({ ...growingSpare(log.disk, 64 * KIB, 32 * MIB), fillRate });
    writeAt(log, rate, 9 * MIB);
    return log.spareWanted;
  };
  t.equal(asked(100 * KIB), 1, 'one goes through the page cache: at a moderate rate');
  t.equal(asked(300 * KIB), 0, 'and not at a high one');
  t.equal(asked(300 * KIB, 2000 * KIB), 1, 'past the page cache: also at a high one');
  t.equal(asked(300 * KIB, 700 * KIB), 1, 'up to half of the rate that one was filled at');
  t.equal(asked(300 * KIB, 500 * KIB), 1, 'and above that, as long as nobody knows that it does not pay');
  t.equal(asked(300 * KIB, 250 * KIB), 0, 'not if it could not be there in time');
  t.equal(asked(100 * KIB, 80 * KIB), 0, 'however low the rate is');
  t.end();
});

/** Of segments that have a quarter which is larger than what spares are asked for at any rate. */
const SEGMENT_BYTES = 17 * MIB;
/** Of the disk under them: up to a half of it nobody has to find out what pays, and above it nothing does. */
const FILL_RATE = 500 * KIB;

/** A log whose first segment grows, and what brings it the next spare: one that is whole, or one that grows. */
function growingLog(): { log: SimulatedLog; prepared: () => void; growing: () => void } {
  const log = new SimulatedLog({ segmentBytes: SEGMENT_BYTES });
  const { disk, sequencer } = log;
  const add = (spare: Spare) => sequencer.addSpare({ ...spare, fillRate: FILL_RATE });
  const growing = () => add(growingSpare(disk, 64 * KIB, SEGMENT_BYTES));
  growing();
  return { log, growing, prepared: () => add(prepareSpare(disk, SEGMENT_BYTES)) };
}

t.test('where that is not plain, it goes by how quickly those were written that grew, and prepared ones', (t) => {
  /** Whether one is asked for behind a segment that grew, of which a half was written at this rate, and a prepared one. */
  const askedBehind = (grewAt: number, preparedAt: number): number => {
    const { log, prepared } = growingLog();
    writeAt(log, 600 * KIB, SEGMENT_BYTES / 2);
    t.equal(log.spareWanted, 0, 'it could not be there in time');
    prepared();
    writeAt(log, grewAt, SEGMENT_BYTES);
    writeAt(log, preparedAt, SEGMENT_BYTES / 2);
    t.equal(log.spareWanted, 1, 'nothing is known of prepared ones yet');
    prepared();
    writeAt(log, preparedAt, SEGMENT_BYTES);
    writeAt(log, 300 * KIB, SEGMENT_BYTES / 2);
    return log.spareWanted - 1;
  };
  t.equal(askedBehind(600 * KIB, 400 * KIB), 0, 'those that grow are written quicker');
  t.equal(askedBehind(200 * KIB, 400 * KIB), 1, 'prepared ones are');
  t.end();
});

t.test('a segment that ended early, or beside which a late spare was filled, tells nothing of its way', (t) => {
  /** Whether one is asked for behind a segment that grew, and was quicker than the prepared one behind it. */
  const askedBehind = (how: 'in time' | 'late' | 'ended early'): number => {
    const { log, prepared, growing } = growingLog();
    writeAt(log, 300 * KIB, SEGMENT_BYTES / 2);
    t.equal(log.spareWanted, 1);
    if (how !== 'late') growing();
    writeAt(log, 300 * KIB, SEGMENT_BYTES);
    writeAt(log, 600 * KIB, SEGMENT_BYTES / 3);
    t.equal(log.spareWanted, 1, 'it could not be there in time');
    prepared();
    if (how === 'ended early') log.sequencer.rotate();
    else writeAt(log, 600 * KIB, SEGMENT_BYTES);
    writeAt(log, 400 * KIB, SEGMENT_BYTES / 2);
    t.equal(log.spareWanted, 2, 'nothing is known of prepared ones yet');
    prepared();
    writeAt(log, 400 * KIB, SEGMENT_BYTES);
    writeAt(log, 300 * KIB, SEGMENT_BYTES / 2);
    return log.spareWanted - 2;
  };
  t.equal(askedBehind('in time'), 0, 'those that grow are written quicker');
  t.equal(askedBehind('late'), 1, 'a spare was being filled beside it');
  t.equal(askedBehind('ended early'), 1, 'it was less than half full');
  t.end();
});

t.test('a spare that grows is filled as far as it is there', (t) => {
  const disk = new SimulatedDisk(new Random(1));
  t.match(growingSpare(disk, 10_000, 100_000), { bytes: 100_000, growing: 10_000 });
  t.end();
});
