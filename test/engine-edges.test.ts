import fs from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { Appender } from '../src/producer/appender.js';
import { Catalog } from '../src/reader/catalog.js';
import { nodeFiles, type ReadableFiles } from '../src/reader/files.js';
import { FilesSource } from '../src/reader/files-source.js';
import type { LogSource } from '../src/reader/log-source.js';
import { readLog } from '../src/reader/read-log.js';
import { inspectLive } from '../src/recovery/inspect-live.js';
import { inspectLog } from '../src/recovery/recover.js';
import { Control } from '../src/ring/control.js';
import { Ring, RingPhase, RingSlot } from '../src/ring/ring.js';
import { Member } from '../src/sequencer/member.js';
import { Sequencer } from '../src/sequencer/sequencer.js';
import { NodeStorage } from '../src/storage/node-storage.js';
import { failsWith, numbers, openLog, type Scope, temporaryDirectory } from './helpers.js';

const DISK = 2;
const OS = 1;

/** A sequencer over a real directory, stepped by hand, with a clock of its own. */
function sequencer(t: Scope, flushIntervalMs: number, segmentBytes = 65536) {
  const directory = temporaryDirectory(t);
  const storage = new NodeStorage(directory);
  const control = new Control();
  const clock = { now: 1_000_000 };
  const forgotten: number[] = [];
  const host = {
    now: () => clock.now,
    randomBytes: (count: number) => new Uint8Array(count).fill(7),
    wakeOpener: () => {},
    wantSpare: () => {},
    rotated: () => {},
    forgotten: (member: Member) => forgotten.push(member.id),
  };
  const recovered = inspectLog(storage, 'strict');
  const engine = new Sequencer(storage, control, host, { segmentBytes, flushIntervalMs }, recovered);
  t.teardown(() => engine.close());
  const producer = (id: number) => {
    const ring = Ring.allocate(65536);
    engine.addMember(new Member(id, ring, () => {}));
    const options = { frameBytes: 4096, maxRecordBytes: 4096, encodeBytes: 65536 };
    const appender = new Appender(ring, control, options, { hold: () => {}, backpressure: () => {} });
    const append = (level = OS) => {
      appender.append(
        { kind: 0, key: undefined, value: 'x' },
        level,
        () => {},
        () => {},
      );
      appender.publish();
    };
    return { ring, append, appender };
  };
  return { directory, engine, control, clock, producer, forgotten };
}

t.test('flushIntervalMs holds under unbroken load too', async (t) => {
  const { engine, control, clock, producer } = sequencer(t, 100);
  const { append } = producer(0);
  for (let i = 1; i <= 10; i++) {
    append();
    t.equal(engine.step(), true, 'there is something to write each time');
    t.ok(control.watermark(OS) - control.watermark(DISK) <= 4, 'no record stays unsynced for longer');
    clock.now += 30;
  }
  t.ok(control.watermark(DISK) > 0);
});

t.test('an append gets its LSN also when its frame passes through the actor while its producer looks', async (t) => {
  const { engine, producer } = sequencer(t, 0);
  const { ring, appender } = producer(0);
  const ahead = ring.ahead.bind(ring);
  // Between any two looks at the counters the actor takes a frame all the way.
  ring.ahead = (counter, mine) => {
    const found = ahead(counter, mine);
    engine.step();
    return found;
  };
  for (let i = 1; i <= 30; i++) {
    const lsn = new Promise((resolve, reject) => {
      appender.append({ kind: 0, key: undefined, value: 'x' }, i % 3, resolve, reject);
      appender.publish();
    });
    appender.wake();
    t.equal(await lsn, i);
  }
});

t.test('a producer that leaves does not keep what another has ready waiting', async (t) => {
  const { engine, control, producer, forgotten } = sequencer(t, 0);
  const members = numbers(0, 5).map(producer);
  members[0].append();
  engine.step();
  for (const leaving of [1, 2, 3]) Atomics.store(members[leaving].ring.head, RingSlot.phase, RingPhase.Closing);
  members[0].append();
  members[4].append();
  members[5].append();
  engine.step();
  t.equal(control.watermark(OS), 4, 'one step takes all that is ready');
  t.same(forgotten.sort(), [1, 2, 3]);
});

t.test("the first sync of a file opened for 'dsync' syncs what was written to it before", async (t) => {
  const directory = temporaryDirectory(t);
  fs.writeFileSync(path.join(directory, 'file'), 'from before');
  const original = fs.fdatasyncSync;
  let syncs = 0;
  fs.fdatasyncSync = (fd) => {
    syncs++;
    original(fd);
  };
  t.teardown(() => {
    fs.fdatasyncSync = original;
  });
  const file = new NodeStorage(directory, 'dsync').open('file', 'write');
  file.sync();
  t.equal(syncs, 1);
  file.write([Buffer.from('more')], 0);
  file.sync();
  t.equal(syncs, 1, 'the writes after it sync themselves');
  file.close();
});

t.test('a look at the directory that is out of date takes nothing from one that is not', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, {}, directory);
  const real = nodeFiles(directory);
  for (let i = 0; i < 3; i++) {
    await wal.append('x');
    await wal.rotate();
  }
  const names = (await real.list()).filter((name) => name.endsWith('.wal'));
  t.equal(names.length, 4);
  // The second look finds all four files; the first, of the time when there were two, ends in the middle of it.
  const lists = [names.slice(0, 2), names];
  let finishFirst = () => {};
  const firstMayEnd = new Promise<void>((resolve) => {
    finishFirst = resolve;
  });
  let first: Promise<unknown> = Promise.resolve();
  const files: ReadableFiles = {
    async list() {
      const names = lists.shift()!;
      if (names.length === 2) await firstMayEnd;
      return names;
    },
    async open(name) {
      if (name === names[3]) {
        finishFirst();
        await first;
      }
      return real.open(name);
    },
  };
  const catalog = new Catalog(files);
  first = catalog.refresh();
  const entries = await catalog.refresh();
  t.same(
    entries.map((entry) => entry.header.segmentId),
    [1, 2, 3, 4],
  );
  t.equal(entries[1].next?.segmentId, 3);
});

t.test('a file that a writer takes for its next segment between two looks at it is gone, not damaged', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { autoCleanup: false }, directory);
  for (let i = 0; i < 3; i++) {
    await wal.append('x');
    await wal.rotate();
  }
  const real = nodeFiles(directory);
  const [oldest, ...others] = (await real.list()).filter((name) => name.endsWith('.wal'));
  const renamed = '0000000000000009.wal';
  const files: ReadableFiles = {
    list: () => real.list(),
    async open(name) {
      const file = await real.open(name);
      if (name !== oldest) return file;
      return {
        ...file,
        read: (target, position) => {
          // The header of another segment, under the same handle.
          fs.renameSync(path.join(directory, oldest), path.join(directory, renamed));
          fs.copyFileSync(path.join(directory, others[0]), path.join(directory, renamed));
          return file.read(target, position);
        },
      };
    },
  };
  const entries = await new Catalog(files).refresh();
  t.same(
    entries.map(({ name }) => name),
    others,
  );
  const damaged: ReadableFiles = { ...files, open: (name) => real.open(name === others[1] ? others[0] : name) };
  await t.rejects(
    new Catalog(damaged).refresh(),
    { code: 'ERR_WAL_CORRUPT', segment: others[1] },
    'what stays is damage',
  );
  fs.renameSync(path.join(directory, renamed), path.join(directory, oldest));
});

t.test(
  'a clean-up that overtakes a read between its start and its end is told, not taken for an empty log',
  async (t) => {
    const directory = temporaryDirectory(t);
    const wal = await openLog(t, { autoCleanup: false }, directory);
    for (let i = 0; i < 3; i++) {
      await wal.append('x');
      await wal.rotate();
    }
    const segments = (await nodeFiles(directory).list()).filter((name) => name.endsWith('.wal'));
    const found = inspectLog(new NodeStorage(directory), 'tolerate-torn-tail');
    const real = new FilesSource(directory, new Catalog(nodeFiles(directory)), found);
    t.teardown(() => real.close());
    const source: LogSource = Object.create(real, {
      catalog: { value: real.catalog },
      readable: {
        value: async () => {
          const lsn = await real.readable();
          await wal.checkpoint(3);
          await wal.cleanup();
          return lsn;
        },
      },
      low: { value: () => real.low() },
      promised: { value: () => real.promised() },
    });
    const reading = readLog(source, {
      from: undefined,
      to: 9,
      follow: undefined,
      signal: new AbortController().signal,
    });
    await failsWith(t, 'ERR_WAL_TRUNCATED', reading.next());
    t.equal(segments.length, 4);
  },
);

t.test('whose append has resolved sees its record: in the watermark, in a read, for a checkpoint', async (t) => {
  const wal = await openLog(t, { autoCleanup: false, flushIntervalMs: 0 });
  let missed = 0;
  for (let i = 0; i < 100; i++) {
    const memory = await wal.append('x', { durability: 'memory' });
    if (i % 10 === 0) await wal.checkpoint(memory);
    const os = await wal.append('x', { durability: 'os' });
    if (wal.watermark('os') < os) missed++;
    for await (const { lsn } of wal.read({ from: os })) if (lsn !== os) missed++;
    const disk = await wal.append('x', { durability: 'disk' });
    if (wal.watermark('disk') < disk) missed++;
  }
  t.equal(missed, 0);
});

t.test('what a writer adds while the log is inspected is not taken for damage', async (t) => {
  const { directory, engine, control, producer } = sequencer(t, 0, 4 * 1024 * 1024);
  const { append } = producer(0);
  append(DISK);
  engine.step();
  // Between any two reads of the inspection the writer makes two more groups durable.
  class Live extends NodeStorage {
    override open(name: string, mode: 'read' | 'write' | 'create') {
      const file = super.open(name, mode);
      const read = file.read.bind(file);
      file.read = (target, position) => {
        const count = read(target, position);
        for (let i = 0; i < 2; i++) {
          append(DISK);
          engine.step();
        }
        return count;
      };
      return file;
    }
  }
  const { report } = inspectLog(new Live(directory), 'tolerate-torn-tail');
  t.ok(report.lastLsn >= 1 && report.lastLsn <= control.watermark(DISK));
  engine.close();
});

t.test('a group that a writer is in the middle of is no torn tail to a read-only open', async (t) => {
  const { directory, engine, producer } = sequencer(t, 0);
  const { append } = producer(0);
  append(DISK);
  engine.step();
  const [name] = fs.readdirSync(directory).filter((file) => file.endsWith('.wal'));
  const file = path.join(directory, name);
  const before = fs.readFileSync(file);
  append(DISK);
  engine.step();
  const after = fs.readFileSync(file);
  // The first look finds half of the frame, the next one all of it.
  const half = Buffer.from(before);
  after.copy(half, 0, 0, after.indexOf('RWLF', 8192 + 64) + 40);
  class Live extends NodeStorage {
    looks = 0;
    override list(folder?: string) {
      if (folder === undefined) fs.writeFileSync(file, ++this.looks === 1 ? half : after);
      return super.list(folder);
    }
  }
  for (const mode of ['tolerate-torn-tail', 'strict'] as const) {
    const { report } = await inspectLive(new Live(directory), mode);
    t.match(report, { verdict: 'clean', lastLsn: 2 });
  }
  fs.writeFileSync(file, half);
  const torn = await inspectLive(new NodeStorage(directory), 'tolerate-torn-tail');
  t.match(torn.report, { verdict: 'torn-tail', lastLsn: 1 }, 'one that stays is one');
  await failsWith(t, 'ERR_WAL_CORRUPT', inspectLive(new NodeStorage(directory), 'strict'));
  fs.writeFileSync(file, after);
});

t.test('a segment that is cleaned up while the log is inspected is not missed', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { autoCleanup: false }, directory);
  for (let i = 0; i < 3; i++) {
    await wal.append('x');
    await wal.rotate();
  }
  await wal.append('x');
  await wal.checkpoint(2);
  const gone = ['0000000000000001.wal', '0000000000000002.wal'];
  class Live extends NodeStorage {
    override open(name: string, mode: 'read' | 'write' | 'create') {
      for (const path of gone.splice(0)) this.remove(path);
      return super.open(name, mode);
    }
  }
  // The writer's mark comes before the files go.
  const { segments } = await wal.cleanup();
  t.equal(segments, 2);
  // As if they went between the inspection's look at the directory and its look at the files.
  for (const name of gone) fs.writeFileSync(path.join(directory, name), '');
  const { report } = inspectLog(new Live(directory), 'tolerate-torn-tail');
  t.match(report, { firstLsn: 3, lastLsn: 4 });
});
