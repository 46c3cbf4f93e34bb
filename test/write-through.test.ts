import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { verifyLog } from 'ringwal';
import t, { type Test } from 'tap';
import { LEVEL_NAMES, Level } from '../src/format/levels.js';
import { nodeFiles } from '../src/reader/files.js';
import { type Control, Counter, FOLLOWED, Slot } from '../src/ring/control.js';
import { RingSlot } from '../src/ring/ring.js';
import { prepareSpare } from '../src/segments/prepare.js';
import { withFile } from '../src/segments/read-segment.js';
import type { Syncer } from '../src/sequencer/syncer.js';
import { pageAligned } from '../src/storage/direct-io.js';
import { NodeStorage, type SyncMethod } from '../src/storage/node-storage.js';
import type { StorageFile } from '../src/storage/storage.js';
import { collect, numbers, openLog, payloads, temporaryDirectory } from './helpers.js';
import { Random } from './simulation/random.js';
import { readAll } from './simulation/reading.js';
import { idOf } from './simulation/records.js';
import type { SentFrame } from './simulation/ring-producer.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';
import { during, type LogOptions, SimulatedLog } from './simulation/simulated-log.js';

const BLOCK = 4096;
const FILE_BYTES = 100 * BLOCK;
/** The most that is written through, in whole blocks. */
const MOST_BYTES = 4 * 1024 * 1024 + 2 * BLOCK;
const { O_DIRECT, O_DSYNC, O_WRONLY } = fs.constants;
const THROUGH = O_DIRECT | O_DSYNC;

/** Why files cannot be written through here; undefined when they can. */
function whyNot(): string | undefined {
  if (O_DIRECT === undefined || O_DSYNC === undefined) return 'this platform has no O_DIRECT, or no O_DSYNC';
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'ringwal-probe-'));
  try {
    const location = path.join(directory, 'file');
    fs.writeFileSync(location, Buffer.alloc(BLOCK));
    const fd = fs.openSync(location, O_WRONLY | THROUGH);
    try {
      fs.writeSync(fd, pageAligned(BLOCK), 0, BLOCK, 0);
    } finally {
      fs.closeSync(fd);
    }
    return undefined;
  } catch (error) {
    return `the filesystem of ${os.tmpdir()} takes nothing past the page cache: ${(error as Error).message}`;
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

const missing = whyNot();
if (missing !== undefined) t.comment(`${missing}: writing through is tested on the simulated disk alone`);
/** Of tests that write past the page cache. */
const REAL = { skip: missing ?? false };

/** A file of 0xAA on stable storage, in a directory of its own. */
function filledFile(t: Test, bytes = FILE_BYTES): { directory: string; location: string } {
  const directory = temporaryDirectory(t);
  const location = path.join(directory, 'file');
  fs.writeFileSync(location, Buffer.alloc(bytes, 0xaa), { flush: true });
  return { directory, location };
}

/** In several views, one of them in the memory that threads share, and one empty. */
function viewsOf(bytes: Buffer): Uint8Array[] {
  const third = Math.floor(bytes.byteLength / 3);
  const shared = Buffer.from(new SharedArrayBuffer(third));
  bytes.copy(shared, 0, third, 2 * third);
  return [bytes.subarray(0, third), shared, bytes.subarray(0, 0), bytes.subarray(2 * third)];
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / BLOCK) * BLOCK;
}

interface WatchedOptions {
  bytes?: number;
  at?: number;
  syncMethod?: SyncMethod;
}

/** A file that is written through, and what must be in it. */
class Watched {
  readonly location: string;
  readonly file: StorageFile;
  /** Where the next write goes. */
  at: number;
  readonly #expected: Buffer;
  readonly #random = new Random(1);

  constructor(t: Test, { bytes = FILE_BYTES, at = 0, syncMethod }: WatchedOptions = {}) {
    const { directory, location } = filledFile(t, bytes);
    this.location = location;
    this.file = new NodeStorage(directory, syncMethod).open('file', 'write');
    t.teardown(() => this.file.close());
    this.file.openThrough!();
    this.at = at;
    this.#expected = Buffer.alloc(bytes, 0xaa);
  }

  content(length: number): Buffer {
    return Buffer.from(this.#random.bytes(length));
  }

  /** Returns what writing through returned; the file is expected to hold the bytes if that was true. */
  through(bytes: Buffer): boolean {
    const { at } = this;
    if (!this.file.writeThrough!(viewsOf(bytes), bytes.byteLength, at)) return false;
    this.#expect(bytes, at);
    this.#expected.fill(0, this.at, roundUp(this.at));
    return true;
  }

  /** The other way, behind which everything is on stable storage too. */
  ordinary(bytes: Buffer, at = this.at): void {
    this.file.write(viewsOf(bytes), at);
    this.file.sync();
    this.#expect(bytes, at);
  }

  /** What was refused is written in the other way, as whoever is refused has to. */
  inEitherWay(bytes: Buffer): boolean {
    const done = this.through(bytes);
    if (!done) this.ordinary(bytes);
    return done;
  }

  cutOff(bytes: number): void {
    this.file.truncate(this.at - bytes);
    this.file.truncate(this.#expected.byteLength);
    this.file.sync();
    this.#expected.fill(0, this.at - bytes);
  }

  holds(content = fs.readFileSync(this.location)): boolean {
    return content.equals(this.#expected);
  }

  #expect(bytes: Buffer, at: number): void {
    bytes.copy(this.#expected, at);
    this.at = Math.max(this.at, at + bytes.byteLength);
  }
}

const LENGTHS = [1, 4095, 4096, 4097, 12 * 1024, 100_000, 3, 8191, 8192, 1, 20_000, 4095, 1];

t.test(
  'what is written through is in the file to the last byte, with zeros behind it, and no other byte changes',
  REAL,
  (t) => {
    for (const syncMethod of ['fdatasync', 'dsync'] as const) {
      for (const at of [0, 1, 4095, 4096, 3 * 4096 + 1000]) {
        const watched = new Watched(t, { at, syncMethod });
        const right = LENGTHS.filter((length) => watched.through(watched.content(length)) && watched.holds());
        t.same(right, LENGTHS, `${syncMethod}, from ${at} on`);
      }
    }
    t.end();
  },
);

t.test('a file is written through to its very end, and does not become longer', REAL, (t) => {
  for (const before of [0, 1, 5000]) {
    const watched = new Watched(t, { bytes: 8 * BLOCK, at: before });
    t.ok(watched.through(watched.content(8 * BLOCK - before - 3)));
    t.ok(watched.holds());
    t.ok(watched.through(watched.content(3)));
    t.ok(watched.holds());
  }
  t.end();
});

t.test('a file that ends before the write does becomes longer, by whole blocks', REAL, (t) => {
  const { directory, location } = filledFile(t, 100);
  const file = new NodeStorage(directory).open('file', 'write');
  t.teardown(() => file.close());
  file.openThrough!();
  const random = new Random(3);
  let expected = Buffer.alloc(100, 0xaa);
  for (const length of [10, 5000, 4096, 1, 300_000, 4095, 20_000]) {
    const bytes = Buffer.from(random.bytes(length));
    t.ok(file.writeThrough!(viewsOf(bytes), length, expected.byteLength));
    expected = Buffer.concat([expected, bytes]);
    t.equal(file.size(), roundUp(expected.byteLength));
    const whole = Buffer.concat([expected, Buffer.alloc(file.size() - expected.byteLength)]);
    t.ok(fs.readFileSync(location).equals(whole), `${length} bytes`);
    if (length === 4096) file.write([bytes], expected.byteLength - length);
  }
  t.end();
});

t.test('nothing of an earlier, longer write is left in the block that a shorter one ends in', REAL, (t) => {
  const one = new Watched(t);
  t.ok(one.through(one.content(50_000)));
  const other = new Watched(t);
  for (const length of [10, 4090, 3, 8000]) t.ok(other.through(other.content(length)) && other.holds());
  t.ok(one.through(one.content(10)));
  t.ok(one.holds(), 'nor of another file');
  t.end();
});

t.test('an ordinary write into the last block is not undone by the next one that goes through', REAL, (t) => {
  const watched = new Watched(t);
  const step = (what: string, work: () => unknown) => {
    t.not(work(), false, what);
    t.ok(watched.holds(), what);
  };
  step('through', () => watched.through(watched.content(5000)));
  step('an ordinary one behind it, in the same block', () => watched.ordinary(watched.content(100)));
  step('through, from where that ended', () => watched.through(watched.content(200)));
  step('an ordinary one into the last block', () => watched.ordinary(watched.content(30), watched.at - 50));
  step('through, from where the last one ended', () => watched.through(watched.content(7)));
  step('an ordinary one up to the end of the block', () =>
    watched.ordinary(watched.content(-watched.at & (BLOCK - 1))),
  );
  step('through, from the beginning of a block', () => watched.through(watched.content(4097)));
  step('an ordinary one over the next block, too', () => watched.ordinary(watched.content(6000)));
  step('through', () => watched.through(watched.content(1)));
  step('a part of the last block is cut off', () => watched.cutOff(1));
  step('through', () => watched.through(watched.content(1)));
  t.end();
});

t.test('writes that go through are made anywhere in a file', REAL, (t) => {
  const watched = new Watched(t);
  for (const at of [40_000, 8192, 8193, 90_000, 0, 4096, 40_000]) {
    watched.at = at;
    t.ok(watched.through(watched.content(5000)));
    t.ok(watched.holds(), `${at}`);
  }
  t.end();
});

t.test('hundreds of writes, some through and some not, leave the bytes of all of them', REAL, (t) => {
  for (let seed = 1; seed <= 4; seed++) {
    const random = new Random(seed);
    const watched = new Watched(t, { bytes: 200 * BLOCK, at: random.below(9000) });
    let through = 0;
    let wrong = 0;
    while (watched.at < 190 * BLOCK) {
      const bytes = watched.content(random.pick([random.between(1, 300), random.between(1, 9000), BLOCK]));
      const inBlock = watched.at % BLOCK;
      if (random.oneIn(3)) watched.ordinary(bytes, watched.at - random.between(0, inBlock));
      else if (watched.through(bytes)) through++;
      if (!watched.holds()) wrong++;
    }
    t.equal(wrong, 0, `seed ${seed}`);
    t.ok(through > 100, `${through} went through`);
  }
  t.end();
});

t.test('who had read the pages before reads what was written through them', REAL, (t) => {
  const watched = new Watched(t);
  const fd = fs.openSync(watched.location, 'r');
  t.teardown(() => fs.closeSync(fd));
  const content = Buffer.alloc(FILE_BYTES);
  const read = () => fs.readSync(fd, content, 0, FILE_BYTES, 0);
  read();
  for (const length of [100, 100, 5000, 1, 40_000, 8192, 10]) {
    t.ok(watched.through(watched.content(length)));
    t.equal(read(), FILE_BYTES);
    t.ok(watched.holds(content), `${length} bytes`);
    if (length === 5000) watched.ordinary(watched.content(100));
  }
  t.end();
});

t.test('what the last block holds is read from the file only where it was written in another way', REAL, (t) => {
  const { readSync } = fs;
  t.teardown(() => Object.assign(fs, { readSync }));
  let reads = 0;
  const counted: Transfer = (fd, view, offset, length, position) => {
    reads++;
    return readSync(fd, view, offset, length, position);
  };
  Object.assign(fs, { readSync: counted });
  const watched = new Watched(t);
  const readsFor = (length: number): number => {
    reads = 0;
    t.ok(watched.through(watched.content(length)));
    return reads;
  };
  t.same([5000, 1, 9000, 4096, 20].map(readsFor), [0, 0, 0, 0, 0]);
  watched.ordinary(watched.content(100));
  t.same([10, 10].map(readsFor), [1, 0]);
  Object.assign(fs, { readSync });
  t.ok(watched.holds());
  t.end();
});

t.test('a file that ends before the write begins is not written through', REAL, (t) => {
  const { directory, location } = filledFile(t, 100);
  const file = new NodeStorage(directory).open('file', 'write');
  file.openThrough!();
  t.equal(file.writeThrough!([Buffer.from('x')], 1, 200), false);
  file.close();
  t.ok(fs.readFileSync(location).equals(Buffer.alloc(100, 0xaa)), 'and not touched');
  t.end();
});

t.test('a file that was not opened for it is not written through', (t) => {
  const { directory, location } = filledFile(t);
  const file = new NodeStorage(directory).open('file', 'write');
  t.equal(file.writeThrough!([Buffer.from('x')], 1, 0), false);
  file.close();
  t.ok(fs.readFileSync(location).equals(Buffer.alloc(FILE_BYTES, 0xaa)), 'and not touched');
  t.end();
});

/** Asked instead of the operating system; `write` makes the write, or so many bytes of it. */
type Answer = (write: (bytes?: number) => number, bytes: number) => number;
type Transfer = (fd: number, view: Uint8Array, offset: number, length: number, position: number) => number;
type Open = (file: fs.PathLike, flags: fs.OpenMode, mode?: fs.Mode | null) => number;

function isThrough(flags: fs.OpenMode): boolean {
  return (Number(flags) & THROUGH) === THROUGH;
}

/** `answer` is asked whenever something is written through, from here on. Returns how often it was. */
function throughWrites(t: Test, answer: Answer): () => number {
  const { openSync, writeSync } = fs;
  t.teardown(() => Object.assign(fs, { openSync, writeSync }));
  let asked = 0;
  const through = new Set<number>();
  const open: Open = (file, flags, mode) => {
    const fd = openSync(file, flags, mode);
    if (isThrough(flags)) through.add(fd);
    else through.delete(fd);
    return fd;
  };
  const write: Transfer = (fd, view, offset, length, position) => {
    if (!through.has(fd)) return writeSync(fd, view, offset, length, position);
    asked++;
    return answer((bytes = length) => writeSync(fd, view, offset, bytes, position), length);
  };
  Object.assign(fs, { openSync: open, writeSync: write });
  return () => asked;
}

function failing(code: string): never {
  throw Object.assign(new Error(`${code}: write`), { code });
}

const REFUSALS = ['EINVAL', 'ENOTSUP', 'EOPNOTSUPP'];

t.test(
  'what is refused is for an ordinary write, and the file is not asked to write through again',
  REAL,
  async (t) => {
    for (const code of REFUSALS) {
      for (const nth of [1, 2, 4]) {
        await t.test(`${code} at write ${nth}`, async (t) => {
          let calls = 0;
          const asked = throughWrites(t, (write) => (++calls === nth ? failing(code) : write()));
          const watched = new Watched(t, { at: 1000 });
          const done = [5000, 300, 9000, 50, 4096, 1].map((length) => {
            const through = watched.inEitherWay(watched.content(length));
            t.ok(watched.holds(), `${length} bytes`);
            return through;
          });
          t.same(
            done,
            [1, 2, 3, 4, 5, 6].map((n) => n < nth),
          );
          t.equal(asked(), nth);
        });
      }
    }
  },
);

t.test('where a file cannot be opened for it, it is written in the ordinary way', REAL, async (t) => {
  for (const code of ['EINVAL', 'EMFILE', 'ENFILE']) {
    await t.test(code, async (t) => {
      const { openSync } = fs;
      t.teardown(() => Object.assign(fs, { openSync }));
      let asked = 0;
      const open: Open = (file, flags, mode) => {
        if (!isThrough(flags)) return openSync(file, flags, mode);
        asked++;
        return failing(code);
      };
      Object.assign(fs, { openSync: open });
      const watched = new Watched(t);
      for (const length of [5000, 1, 9000]) {
        t.equal(watched.inEitherWay(watched.content(length)), false);
        t.ok(watched.holds());
      }
      t.equal(asked, 1, 'once');
    });
  }
});

t.test('a short count is not taken for success, and all of it is for an ordinary write', REAL, async (t) => {
  const counts: [string, (bytes: number) => number][] = [
    ['nothing', () => 0],
    ['a part of a block', () => 100],
    ['one block', () => BLOCK],
    ['all but the last block', (bytes) => bytes - BLOCK],
  ];
  for (const [what, some] of counts) {
    await t.test(what, async (t) => {
      let short = false;
      const asked = throughWrites(t, (write, bytes) => {
        if (!short) return write();
        // Not by that descriptor: it takes whole blocks alone.
        return some(bytes) % BLOCK === 0 ? write(some(bytes)) : some(bytes);
      });
      const watched = new Watched(t, { at: 5000 });
      t.equal(watched.inEitherWay(watched.content(300)), true);
      short = true;
      const bytes = watched.content(20_000);
      t.equal(watched.through(bytes), false);
      watched.ordinary(bytes);
      t.ok(watched.holds());
      t.equal(watched.inEitherWay(watched.content(10)), false);
      t.ok(watched.holds());
      t.equal(asked(), 2, 'and it is not asked again');
    });
  }
});

t.test('an error of the disk is told', REAL, async (t) => {
  for (const code of ['EIO', 'ENOSPC', 'EDQUOT', 'EROFS']) {
    await t.test(code, async (t) => {
      let broken = false;
      throughWrites(t, (write) => (broken ? failing(code) : write()));
      const watched = new Watched(t);
      t.ok(watched.through(watched.content(10)));
      broken = true;
      t.throws(() => watched.through(watched.content(10)), { code });
    });
  }
});

t.test('an error in reading what the first block holds is told', REAL, (t) => {
  const watched = new Watched(t, { at: 10 });
  const { readSync } = fs;
  t.teardown(() => Object.assign(fs, { readSync }));
  Object.assign(fs, { readSync: () => failing('EIO') });
  t.throws(() => watched.through(watched.content(10)), { code: 'EIO' });
  t.end();
});

t.test('4 MiB go through wherever they begin, and more than the blocks of that do not', REAL, (t) => {
  const cases: [number, number, boolean][] = [
    [0, MOST_BYTES, true],
    [0, MOST_BYTES + 1, false],
    [1, MOST_BYTES - 1, true],
    [1, MOST_BYTES, false],
    [4095, MOST_BYTES - 2 * BLOCK, true],
  ];
  for (const [at, length, through] of cases) {
    const watched = new Watched(t, { bytes: MOST_BYTES + 2 * BLOCK, at });
    t.equal(watched.inEitherWay(Buffer.alloc(length, 'x')), through, `${length} bytes at ${at}`);
    t.ok(watched.holds());
  }
  t.end();
});

/** The descriptors that were opened and are not closed. `close` is called in the place of closing one, and does it. */
function openDescriptors(t: Test, close: (really: () => void) => void = (really) => really()): Set<number> {
  const { openSync, closeSync } = fs;
  t.teardown(() => Object.assign(fs, { openSync, closeSync }));
  const descriptors = new Set<number>();
  const open: Open = (file, flags, mode) => {
    const fd = openSync(file, flags, mode);
    descriptors.add(fd);
    return fd;
  };
  const closeOne = (fd: number) =>
    close(() => {
      descriptors.delete(fd);
      closeSync(fd);
    });
  Object.assign(fs, { openSync: open, closeSync: closeOne });
  return descriptors;
}

t.test('closing a file closes both of its descriptors', REAL, (t) => {
  const { directory } = filledFile(t);
  const descriptors = openDescriptors(t);
  const file = new NodeStorage(directory).open('file', 'write');
  t.equal(descriptors.size, 1);
  file.openThrough!();
  file.openThrough!();
  t.equal(descriptors.size, 2, 'however often it is opened for it');
  t.ok(file.writeThrough!([Buffer.alloc(10)], 10, 0));
  file.close();
  t.equal(descriptors.size, 0);
  t.end();
});

t.test('closing a file closes both of its descriptors, though closing the first fails', REAL, (t) => {
  const { directory } = filledFile(t);
  let closed = 0;
  const descriptors = openDescriptors(t, (really) => {
    really();
    if (closed++ === 0) failing('EIO');
  });
  const file = new NodeStorage(directory).open('file', 'write');
  file.openThrough!();
  t.throws(() => file.close(), { code: 'EIO' });
  t.equal(closed, 2);
  t.equal(descriptors.size, 0);
  t.end();
});

t.test('a file that was refused keeps one descriptor, and an error both until it is closed', REAL, async (t) => {
  for (const [code, left] of [
    ['EINVAL', 1],
    ['EIO', 2],
  ] as const) {
    await t.test(code, async (t) => {
      const { directory } = filledFile(t);
      throughWrites(t, () => failing(code));
      const descriptors = openDescriptors(t);
      const file = new NodeStorage(directory).open('file', 'write');
      file.openThrough!();
      try {
        t.equal(file.writeThrough!([Buffer.alloc(10)], 10, 0), false);
      } catch (error) {
        t.match(error, { code: 'EIO' });
      }
      t.equal(descriptors.size, left);
      file.close();
      t.equal(descriptors.size, 0);
    });
  }
});

/** A disk whose files can be written through, which notes how the segments are written behind their headers. */
class ThroughDisk extends SimulatedDisk {
  notes: string[] = [];
  /** Whether what is written through may end behind the end of its file. */
  mayGrow = false;
  /** Files that were opened to be written through, as they were called then. */
  readonly opened = new Set<string>();
  /** Makes a write, and a sync, in the place of both of them. */
  through = (write: () => void, sync: () => void): boolean => {
    write();
    sync();
    return true;
  };

  constructor(seed = 1) {
    super(new Random(seed));
  }

  override open(name: string, mode: 'read' | 'write' | 'create'): StorageFile {
    const file = super.open(name, mode);
    if (mode === 'write') this.#watch(file);
    return file;
  }

  /** What was noted since it was asked last. */
  take(): string[] {
    return this.notes.splice(0);
  }

  #watch(file: StorageFile): void {
    const { write, sync } = file;
    const { opened, notes } = this;
    file.write = (views, position) => {
      if (position > 0) notes.push('write');
      write(views, position);
    };
    file.sync = () => {
      notes.push('sync');
      sync();
    };
    file.openThrough = () => opened.add(file.name);
    file.writeThrough = (views, bytes, position) => {
      notes.push('through');
      const end = position + views.reduce((sum, { byteLength }) => sum + byteLength, 0);
      if (!opened.has(file.name)) throw new Error(`${file.name} was not opened for it.`);
      if (end !== position + bytes) throw new Error(`${bytes} bytes were to be written, not ${end - position}.`);
      const size = file.size();
      if (position > size || (roundUp(end) > size && !this.mayGrow)) throw new Error(`${file.name} has no such block.`);
      const whole = [...views, new Uint8Array(roundUp(end) - end)];
      return this.through(() => write(whole, position), sync);
    };
  }
}

interface ThroughLog extends SimulatedLog {
  readonly disk: ThroughDisk;
}

/** A log whose first segment exists already, with one record. */
function throughLog(options: LogOptions = {}): ThroughLog {
  const log = new SimulatedLog({ disk: new ThroughDisk(), ...options }) as ThroughLog;
  group(log);
  return log;
}

/** Appends so many frames that ask for this, as one group, and returns how they were written. */
function group(log: ThroughLog, level: number = Level.Disk, frames = 1): string[] {
  for (let i = 0; i < frames; i++) log.append(level);
  log.sequencer.step();
  log.collect();
  return log.disk.take();
}

function watermarks(log: SimulatedLog): number[] {
  return [Level.Memory, Level.Os, Level.Disk].map((level) => log.watermark(level));
}

const ORDINARY = ['write', 'sync'];

t.test('a group of which all wait for disk is written through, in one call that counts as one sync', async (t) => {
  const log = throughLog({ producers: 2, segmentBytes: 256 * 1024 });
  const { control } = log;
  t.same(watermarks(log), [1, 1, 1]);
  for (let i = 1; i <= 5; i++) {
    const before = [control.get(Counter.groups), control.get(Counter.syncs), control.get(Counter.records)];
    const frames = log.producers.flatMap((producer) => [1, 2, 3].map((n) => log.append(Level.Disk, n, producer)));
    t.equal(log.sequencer.step(), true);
    t.same(log.disk.take(), ['through']);
    const lsn = 1 + i * 12;
    t.same(watermarks(log), [lsn, lsn, lsn]);
    const after = [control.get(Counter.groups), control.get(Counter.syncs), control.get(Counter.records)];
    t.same(
      after.map((count, j) => count - before[j]),
      [1, 1, 12],
    );
    const synced: SentFrame[] = [];
    const nothing = () => undefined;
    for (const producer of log.producers) {
      producer.collect({
        sequenced: nothing,
        rejected: nothing,
        written: nothing,
        synced: (frame) => synced.push(frame),
      });
    }
    t.same(new Set(synced), new Set(frames), 'all of their producers are told');
  }
  t.equal(log.sequencer.timeToFlush(), undefined, 'nothing is left to be synced');
  log.sequencer.sync();
  t.same(log.disk.take(), []);
  const found = await log.read();
  t.same(found.toSorted(byNumber), numbers(1, 61));
});

function byNumber(a: number | undefined, b: number | undefined): number {
  return Number(a) - Number(b);
}

t.test('behind a write that went through the watermarks move in order, and only then the counters of the ring', (t) => {
  const log = throughLog();
  const { control, producers, disk } = log;
  const { notes } = disk;
  const { ring } = producers[0];
  const { publishCommit } = control;
  const { advance } = ring;
  control.publishCommit = (level, lsn, bytes, at) => {
    notes.push(`${LEVEL_NAMES[level]} ${lsn}, file to ${control.get(Counter.segmentOffset)}`);
    publishCommit.call(control, level, lsn, bytes, at);
  };
  const names = new Map<number, string>(Object.entries(RingSlot).map(([name, slot]) => [slot, name]));
  ring.advance = (slot, frames) => {
    if (frames > 0) notes.push(`${names.get(slot)} ${ring.lsn(ring.descriptor(1))} ${ring.lsn(ring.descriptor(2))}`);
    advance.call(ring, slot, frames);
  };
  const before = control.get(Counter.segmentOffset);
  t.same(watermarks(log), [1, 1, 1]);
  log.append(Level.Disk, 3);
  log.append(Level.Disk, 2);
  log.sequencer.step();
  const after = control.get(Counter.segmentOffset);
  t.ok(after > before);
  t.same(disk.take(), [
    'through',
    `memory 6, file to ${before}`,
    'sequenced 2 5',
    `os 6, file to ${after}`,
    'written 2 5',
    `disk 6, file to ${after}`,
    'synced 2 5',
  ]);
  t.end();
});

t.test('a group in which somebody waits for less than disk is not held up by a sync', (t) => {
  for (const level of [Level.Memory, Level.Os]) {
    const log = throughLog({ producers: 2 });
    log.append(Level.Disk);
    log.append(level, 1, log.producers[1]);
    log.append(Level.Disk);
    t.same(group(log), ORDINARY, LEVEL_NAMES[level]);
    t.same(watermarks(log), [5, 5, 5]);
    wait(log, 999);
    t.same(group(log), ORDINARY, 'for a second');
    wait(log, 1);
    t.same(group(log), ['through'], 'then they go through again');
    t.same(group(log, level), ['write'], 'and one that nobody waits for on disk is written');
    t.same(watermarks(log), [8, 8, 7]);
  }
  t.end();
});

t.test('nothing goes through while something written before is not on stable storage', (t) => {
  const work: [string, string[], (log: ThroughLog) => unknown][] = [
    ['a record at os', ['write'], (log) => log.append(Level.Os) && log.sequencer.step()],
    ['a record at memory', ['write'], (log) => log.append(Level.Memory) && log.sequencer.step()],
    ['the stamp of an idle log', ['write'], (log) => log.sequencer.idle()],
    ['a position', ['write'], (log) => log.sequencer.notePositions({ reader: { acknowledged: 1, level: 'disk' } })],
  ];
  for (const [what, notes, call] of work) {
    const log = throughLog();
    call(log);
    t.same(log.disk.take(), notes, what);
    t.same(group(log), ORDINARY, `behind ${what}`);
    wait(log, 1000);
    t.same(group(log), ['through'], 'and the next one does');
    t.equal(log.watermark(Level.Disk), log.watermark(Level.Memory));
  }
  t.end();
});

function wait(log: SimulatedLog, ms: number): void {
  log.clock += ms;
}

t.test('what was synced does not keep the next group from going through', (t) => {
  const log = throughLog({ flushIntervalMs: 1000 });
  const { sequencer } = log;
  const rotate = () => {
    sequencer.addSpare(prepareSpare(log.disk, 64 * 1024));
    sequencer.rotate();
  };
  const cut = () => {
    sequencer.addSpare(prepareSpare(log.disk, 64 * 1024));
    sequencer.truncateAfter(2);
  };
  const unsynced = () => group(log, Level.Os);
  const work: [string, (() => unknown)[]][] = [
    ['a state', [() => sequencer.updateState((state) => ({ ...state, checkpoint: 1 }))]],
    ['sync', [unsynced, () => sequencer.sync()]],
    ['a rotation', [rotate]],
    ['a rotation behind what was not synced', [unsynced, rotate]],
    ['time', [unsynced, () => wait(log, 1000), () => sequencer.step()]],
    ['a cut', [cut]],
  ];
  for (const [what, calls] of work) {
    for (const call of calls) call();
    // Behind a record that asked for less than disk.
    wait(log, 1000);
    log.disk.take();
    t.same(group(log), ['through'], what);
  }
  t.equal(sequencer.failed, false);
  t.end();
});

/** Has synced at once what it is asked to. */
class QuickSyncer implements Syncer {
  begun = 0;

  begin(file: StorageFile): boolean {
    this.begun++;
    file.sync();
    return true;
  }

  over(): number {
    return 1;
  }

  finish(): number {
    return 1;
  }
}

t.test('while the levels are mixed and a syncer is there, it syncs; later all goes through again', (t) => {
  const syncer = new QuickSyncer();
  const log = throughLog({ syncer });
  const { sequencer } = log;
  t.same(group(log), ['through'], 'nobody asked for less yet');
  t.same(group(log, Level.Os), ['write']);
  t.same(group(log), ORDINARY, 'behind an unsynced write');
  t.equal(syncer.begun, 1);
  t.equal(sequencer.step(), true, 'it is over');
  t.equal(log.watermark(Level.Disk), 4);
  log.clock += 999;
  t.same(group(log), ORDINARY, 'behind nothing, a second later');
  t.equal(syncer.begun, 2);
  sequencer.step();
  log.clock++;
  t.same(group(log), ['through']);
  t.equal(syncer.begun, 2);
  t.same(watermarks(log), [6, 6, 6]);
  t.end();
});

t.test('nothing goes through while the syncer is at it', (t) => {
  const syncer = new QuickSyncer();
  const over: (number | undefined)[] = [undefined, 1];
  syncer.over = () => over.shift()!;
  const log = throughLog({ syncer });
  group(log, Level.Os);
  t.same(group(log), ORDINARY);
  // The levels are not mixed any more; what the syncer was asked for is under way all the same.
  log.clock += 5000;
  t.same(group(log), ['write']);
  t.equal(log.watermark(Level.Disk), 1);
  log.sequencer.step();
  t.same(log.disk.take(), ['sync'], 'what came meanwhile');
  t.equal(log.watermark(Level.Disk), 4);
  t.same(group(log), ['through']);
  t.end();
});

/** A log whose current segment grows, and is written through like any other. */
function growingLog(disk = new ThroughDisk()): ThroughLog {
  const log = throughLog({ disk });
  disk.mayGrow = true;
  while (log.control.get(Counter.growing) === 0) log.appendUntilRotated(Level.Disk);
  disk.take();
  return log;
}

t.test('a segment that grows is written through, behind the end of its file', async (t) => {
  const log = growingLog();
  for (let i = 0; i < 30; i++) t.same(group(log), ['through']);
  t.same(new Set(watermarks(log)).size, 1);
  const last = log.watermark(Level.Disk);
  t.same(group(log, Level.Os), ['write'], 'and in the ordinary way as well');
  log.disk.crash();
  const again = SimulatedLog.reopen(log.disk, 'power');
  t.ok(again.recovered.end.lastLsn >= last, `${again.recovered.end.lastLsn} of ${last} are there`);
  t.equal((await again.read()).length, again.recovered.end.lastLsn);
});

t.test('a segment that grew by whole blocks ends with its seal all the same', (t) => {
  const log = growingLog();
  for (let i = 0; i < 3; i++) group(log);
  const file = log.disk.list().findLast((name) => name.endsWith('.wal'))!;
  const size = () => withFile(log.disk, file, (open) => open.size());
  t.equal(size() % BLOCK, 0);
  log.sequencer.rotate();
  t.same(log.disk.take().slice(0, 3), ['sync', 'write', 'sync']);
  const { endOffset, fileBytes } = log.sequencer.sealed.at(-1)!;
  t.equal(fileBytes, endOffset);
  t.equal(size(), endOffset, 'the zeros behind it are cut off');
  t.end();
});

t.test('what a full disk does not take behind the end of a segment is refused, and is not there later', async (t) => {
  const fates: [string, ThroughDisk['through']][] = [
    ['it says so', () => failing('ENOSPC')],
    [
      'it says so, with all of it in the file',
      (write) => {
        write();
        return failing('ENOSPC');
      },
    ],
    [
      'it takes a part',
      (write) => {
        write();
        return false;
      },
    ],
  ];
  for (const [what, through] of fates) {
    await t.test(what, async (t) => {
      const log = growingLog();
      const { disk } = log;
      group(log);
      const before = watermarks(log);
      const last = before[0];
      const ordinary = disk.through;
      disk.through = (write, sync) => {
        disk.through = ordinary;
        try {
          return through(write, sync);
        } finally {
          disk.arm({ failAt: 1, failing: ['write'], errno: 'ENOSPC' });
        }
      };
      const refused = log.append(Level.Disk, 3);
      log.sequencer.step();
      log.collect();
      disk.arm();
      t.equal(log.sequencer.failed, false);
      t.same(log.rejected.at(-1)?.ids, refused.ids);
      t.same(watermarks(log), before, 'nobody heard of it');
      disk.take();
      group(log);
      t.same(watermarks(log), [last + 1, last + 1, last + 1], 'no LSN was lost to what was refused');
      disk.crash();
      const again = SimulatedLog.reopen(disk, 'power');
      const ids = await again.read();
      t.equal(ids.length, last + 1);
      t.notOk(ids.some((id) => refused.ids.includes(id!)));
    });
  }
});

t.test('a segment that does not end with a block is written through as far as its blocks are whole', (t) => {
  const bytes = 7 * BLOCK + 1000;
  const log = throughLog({ segmentBytes: bytes });
  log.appendUntilRotated(Level.Disk);
  t.equal(log.sequencer.failed, false, 'the disk of this test throws where there is no such block');
  t.ok(log.disk.take().filter((note) => note === 'through').length > 3);
  t.end();
});

t.test('what could not be written through is written and synced once in the other way, and acknowledged', async (t) => {
  const refusals: [string, ThroughDisk['through']][] = [
    ['nothing of it was', () => false],
    [
      'all of it was written, and not all synced',
      (write) => {
        write();
        return false;
      },
    ],
  ];
  for (const [what, through] of refusals) {
    const log = throughLog();
    log.disk.through = through;
    const { control } = log;
    const before = [control.get(Counter.groups), control.get(Counter.syncs)];
    const end = control.get(Counter.segmentOffset);
    t.same(group(log, Level.Disk, 3), ['through', ...ORDINARY], what);
    t.same(watermarks(log), [4, 4, 4]);
    const after = [control.get(Counter.groups), control.get(Counter.syncs)];
    t.same(
      after.map((count, i) => count - before[i]),
      [1, 1],
    );
    t.ok(control.get(Counter.segmentOffset) > end);
    t.same(await log.read(), [1, 2, 3, 4]);
    log.disk.crash();
    const next = SimulatedLog.reopen(log.disk, 'power');
    t.equal(next.recovered.end.lastLsn, 4, 'also when the power goes');
  }
});

t.test('an error in a write that goes through ends the log: nothing is acknowledged, and nothing tried again', (t) => {
  const failures: [string, (write: () => void) => void, () => ThroughLog][] = [
    ['EIO', () => undefined, throughLog],
    ['EIO', (write) => write(), throughLog],
    ['ENOSPC', (write) => write(), throughLog],
    ['EIO', () => undefined, growingLog],
    ['EIO', (write) => write(), growingLog],
  ];
  for (const [code, before, make] of failures) {
    const log = make();
    const { disk, sequencer, control } = log;
    const reached = watermarks(log);
    disk.through = (write) => {
      before(write);
      return failing(code);
    };
    const syncs = control.get(Counter.syncs);
    const frame = log.append(Level.Disk, 3);
    t.equal(sequencer.step(), true);
    t.same(disk.take(), ['through'], code);
    t.equal(sequencer.failed, true);
    t.match(control.failure(), code);
    t.same(watermarks(log), reached);
    t.equal(control.get(Counter.syncs), syncs);
    log.collect();
    t.equal(frame.firstLsn, 0, 'its producer hears of no LSN');
    log.append(Level.Disk);
    t.equal(sequencer.step(), false, 'the next append is not taken');
    t.throws(() => sequencer.sync(), { code: 'ERR_WAL_FAILED' });
    sequencer.close();
    t.same(watermarks(log), reached);
    t.same(disk.take(), []);
    t.equal(disk.openFiles, 0);
  }
  t.end();
});

function follow(control: Control, followed: boolean): void {
  if (followed) Atomics.or(control.slots, Slot.interest, FOLLOWED);
  else Atomics.and(control.slots, Slot.interest, ~FOLLOWED);
}

t.test('while readers wait for what comes next, and for a second behind that, it stays in the page cache', (t) => {
  const log = throughLog();
  const { control } = log;
  follow(control, true);
  for (let i = 0; i < 3; i++) {
    t.same(group(log), ORDINARY);
    log.clock += 5000;
  }
  t.same(group(log), ORDINARY);
  follow(control, false);
  t.same(group(log), ORDINARY, 'it reads what came');
  log.clock += 999;
  t.same(group(log), ORDINARY);
  log.clock++;
  t.same(group(log), ['through'], 'it does not come again');
  follow(control, true);
  t.same(group(log), ORDINARY);
  follow(control, false);
  log.clock += 1000;
  t.same(group(log), ['through']);
  t.end();
});

t.test('who waits for a commit, or listens to commits, does not keep groups from going through', (t) => {
  const log = throughLog();
  Atomics.store(log.control.slots, Slot.interest, 7);
  t.same(group(log), ['through']);
  t.end();
});

t.test('whenever the power goes, what was acknowledged is there, and the log goes on', async (t) => {
  let through = 0;
  for (let call = 1, reached = true; reached; call++) {
    const log = throughLog({ disk: new ThroughDisk(call) });
    reached = during(log.disk, { crashAt: call }, () => {
      for (let i = 0; i < 12; i++) {
        const calls = group(log, i % 5 === 4 ? Level.Os : Level.Disk, 1 + (i % 3));
        if (calls[0] === 'through') through++;
        if (i % 7 === 6) log.sequencer.idle();
      }
    });
    const [, , durable] = watermarks(log);
    log.disk.crash();
    const next = SimulatedLog.reopen(log.disk, 'power') as ThroughLog;
    const { lastLsn } = next.recovered.end;
    t.ok(lastLsn >= durable, `call ${call}: ${durable} were durable, ${lastLsn} are there`);
    t.same(await next.read(lastLsn), numbers(1, lastLsn));
    next.append(Level.Disk);
    next.sequencer.step();
    t.equal(next.watermark(Level.Disk), lastLsn + 1);
  }
  t.ok(through > 50, `${through} groups went through`);
});

/** The engine of the simulation over a real directory, with all that it does in this thread. */
function realLog(directory: string): SimulatedLog {
  const disk = Object.assign(new NodeStorage(directory), { random: new Random(1) });
  return new SimulatedLog({ disk: disk as unknown as SimulatedDisk, segmentBytes: 128 * 1024, producers: 2 });
}

/** Prepares the spares that it asks for. */
function provideSpares(log: SimulatedLog, provided: number): number {
  for (; provided < log.spareWanted; provided++) log.sequencer.addSpare(prepareSpare(log.disk, 128 * 1024));
  return provided;
}

t.test(
  'a log on a real disk that is written both ways has every record, at any moment and at the end',
  REAL,
  async (t) => {
    const directory = temporaryDirectory(t);
    const asked = throughWrites(t, (write) => write());
    const log = realLog(directory);
    const random = new Random(7);
    let spares = 0;
    for (let i = 1; i <= 400; i++) {
      for (let n = random.between(1, 4); n > 0; n--) {
        log.append(random.oneIn(10) ? Level.Os : Level.Disk, random.between(1, 5), random.pick(log.producers));
      }
      log.sequencer.step();
      log.collect();
      if (random.oneIn(8)) log.sequencer.idle();
      wait(log, random.between(0, 1500));
      spares = provideSpares(log, spares);
      if (i % 100 !== 0) continue;
      const copy = temporaryDirectory(t);
      fs.cpSync(directory, copy, { recursive: true });
      t.equal(
        realLog(copy).recovered.end.lastLsn,
        log.watermark(Level.Os),
        'a process that died now would have left it so',
      );
    }
    const last = log.watermark(Level.Memory);
    log.sequencer.close();
    t.ok(asked() > 100, `${asked()} groups went through`);
    t.ok(log.control.get(Counter.segments) > 3);
    t.match(await verifyLog(directory), { verdict: 'clean', records: last, damage: [] });
    const records = await readAll(nodeFiles(directory), 1, last);
    t.same(
      records.map(({ lsn }) => lsn),
      numbers(1, last),
    );
    t.same(records.map(idOf).toSorted(byNumber), numbers(1, last));
  },
);

t.test('a log whose filesystem refuses in the middle of a segment goes on without a gap', REAL, async (t) => {
  const directory = temporaryDirectory(t);
  let calls = 0;
  const asked = throughWrites(t, (write) => (++calls === 5 ? failing('EINVAL') : write()));
  const log = realLog(directory);
  for (let i = 0; i < 20; i++) {
    log.append(Level.Disk, 3);
    log.sequencer.step();
    log.collect();
  }
  t.equal(asked(), 5);
  t.same(watermarks(log), [60, 60, 60]);
  log.sequencer.addSpare(prepareSpare(log.disk, 128 * 1024));
  log.sequencer.rotate();
  log.append(Level.Disk, 3);
  log.sequencer.step();
  t.equal(asked(), 6, 'the next segment is asked again');
  log.sequencer.close();
  t.match(await verifyLog(directory), { verdict: 'clean', records: 63, damage: [] });
});

t.test('a thousand records at disk are all there when the log is opened again', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { segmentBytes: 128 * 1024 }, directory);
  const written = numbers(1, 1000).map((i) => `${i} ${'x'.repeat((i * 37) % 900)}`);
  for (const record of written.slice(0, 300)) await wal.append(record, { durability: 'disk' });
  for (let i = 300; i < 1000; i += 50) {
    await Promise.all(written.slice(i, i + 50).map((record) => wal.append(record, { durability: 'disk' })));
  }
  t.equal(wal.watermark('disk'), 1000);
  t.same(payloads(await collect(wal.read())), written, 'and while it is open');
  await wal.close();
  t.match(await verifyLog(directory), { verdict: 'clean', records: 1000, firstLsn: 1, lastLsn: 1000, damage: [] });
  const again = await openLog(t, {}, directory);
  t.equal(again.recovery.verdict, 'clean');
  t.same(payloads(await collect(again.read())), written);
});

t.test('a reader that comes and goes while all is written at disk sees each record as it was written', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { segmentBytes: 256 * 1024 }, directory);
  const written = numbers(1, 600).map((i) => `${i} ${'y'.repeat((i * 53) % 1200)}`);
  const writing = (async () => {
    for (const record of written) await wal.append(record);
  })();
  const seen: string[] = [];
  while (seen.length < 600) {
    // Follows for some records, and looks again where it left off, when nobody counts on it any more.
    const to = Math.min(600, seen.length + 40);
    seen.push(...payloads(await collect(wal.read({ from: seen.length + 1, to, follow: true }))));
    seen.push(...payloads(await collect(wal.read({ from: seen.length + 1 }))));
  }
  await writing;
  t.same(seen, written);
});
