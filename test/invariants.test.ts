import fs from 'node:fs';
import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { Level } from '../src/format/levels.js';
import { RingSlot } from '../src/ring/ring.js';
import { retireSegments } from '../src/segments/retire.js';
import { temporaryDirectory } from './helpers.js';
import { Random } from './simulation/random.js';
import { framesOf } from './simulation/reading.js';
import type { SentFrame } from './simulation/ring-producer.js';
import { type CrashKind, SimulatedDisk } from './simulation/simulated-disk.js';
import { during, SEGMENT_BYTES, SimulatedLog } from './simulation/simulated-log.js';

const SEEDS = 60;

/** A log with a durable part, and behind it frames of three producers that were only handed to the kernel. */
function halfSynced(seed: number): { log: SimulatedLog; frames: SentFrame[] } {
  const random = new Random(seed);
  const log = new SimulatedLog({ disk: new SimulatedDisk(random), producers: 3 });
  const frames: SentFrame[] = [];
  const append = (level: number) => {
    for (const producer of log.producers) frames.push(log.append(level, random.between(1, 6), producer));
    while (log.sequencer.step());
    log.collect();
  };
  for (let i = 0; i < 3; i++) append(Level.Disk);
  for (let i = 0; i < 3; i++) append(Level.Os);
  return { log, frames: frames.sort((a, b) => a.firstLsn - b.firstLsn) };
}

function crashed(log: SimulatedLog, kind: CrashKind): SimulatedLog {
  log.disk.crash();
  return SimulatedLog.reopen(log.disk, kind);
}

function idsOf(frames: SentFrame[]): number[] {
  return frames.flatMap((frame) => frame.ids);
}

t.test(
  '1 Durable: a record acknowledged at a level is read back after any crash that the level survives',
  async (t) => {
    for (const [kind, level] of [
      ['process', Level.Os],
      ['power', Level.Disk],
    ] as const) {
      for (let seed = 0; seed < SEEDS; seed++) {
        const { log, frames } = halfSynced(seed);
        const acknowledged = log.watermark(level);
        const ids = await crashed(log, kind).read();
        const expected = idsOf(frames).slice(0, acknowledged);
        if (ids.slice(0, acknowledged).join() !== expected.join()) t.fail(`${kind}, seed ${seed}`);
      }
      t.pass(kind);
    }
  },
);

t.test('1 Durable: nothing is acknowledged at disk before its bytes and its file name are synced', (t) => {
  const disk = new SimulatedDisk(new Random(1));
  const log = new SimulatedLog({ disk });
  const calls: string[] = [];
  const seen: number[] = [];
  disk.observe = (call) => {
    calls.push(call);
    seen.push(Atomics.load(log.producers[0].ring.head, RingSlot.synced), log.watermark(Level.Disk));
  };
  log.append(Level.Disk, 2);
  log.sequencer.step();
  t.same(calls.slice(-2), ['write', 'sync']);
  t.ok(calls.indexOf('syncFolder') < calls.lastIndexOf('write'));
  t.ok(calls.indexOf('syncFolder') > calls.lastIndexOf('rename'));
  t.ok(seen.every((mark) => mark === 0));
  t.equal(log.watermark(Level.Disk), 2);
  t.end();
});

t.test('2 Prefix: what recovery returns is an unbroken run of LSNs from the first on', async (t) => {
  const ends = new Set<number>();
  for (let seed = 0; seed < SEEDS; seed++) {
    const { log, frames } = halfSynced(seed);
    const again = crashed(log, 'power');
    const ids = await again.read();
    if (ids.join() !== idsOf(frames).slice(0, ids.length).join()) t.fail(`seed ${seed}`);
    t.equal(ids.length, again.recovered.report.records);
    ends.add(frames.filter((frame) => frame.firstLsn <= ids.length).length);
  }
  t.ok(ends.size > 3, 'it ended in different places');
});

t.test('3 Honest: every record returned was appended, byte for byte, once, in the order of its producer', async (t) => {
  for (let seed = 0; seed < SEEDS; seed++) {
    const { log, frames } = halfSynced(seed);
    // Published, and never taken: it was not appended as far as anybody knows.
    const untaken = log.append(Level.Disk, 3);
    const ids = await crashed(log, seed % 2 === 0 ? 'process' : 'power').read();
    if (ids.includes(undefined)) t.fail(`seed ${seed}: bytes that nobody appended`);
    if (new Set(ids).size !== ids.length) t.fail(`seed ${seed}: a record came twice`);
    if (untaken.ids.some((id) => ids.includes(id))) t.fail(`seed ${seed}: a record that was not taken`);
    for (const producer of log.producers) {
      const own = idsOf(frames.filter((frame) => frame.producer === producer.id));
      const found = ids.filter((id) => own.includes(id!));
      if (found.join() !== own.slice(0, found.length).join()) t.fail(`seed ${seed}: out of order`);
    }
  }
  t.pass();
});

t.test('4 Whole: an atomic batch is there whole or absent', async (t) => {
  const fates = new Set<string>();
  for (let seed = 0; seed < SEEDS; seed++) {
    const log = new SimulatedLog({ disk: new SimulatedDisk(new Random(seed)) });
    log.append(Level.Disk);
    log.sequencer.step();
    // Some thirty sectors, each kept, lost or torn on its own.
    const batch = log.append(Level.Os, 30);
    log.sequencer.step();
    const found = (await crashed(log, 'power').read()).filter((id) => batch.ids.includes(id!));
    if (found.length > 0 && found.length < batch.ids.length) t.fail(`seed ${seed}: ${found.length} of 30`);
    fates.add(found.length === 0 ? 'absent' : 'whole');
  }
  t.ok(fates.has('absent'));
});

t.test('5 Forward: LSNs and watermarks never go back or repeat, across restarts too', async (t) => {
  for (let seed = 0; seed < 10; seed++) {
    const random = new Random(seed);
    const disk = new SimulatedDisk(random);
    let log = new SimulatedLog({ disk });
    for (let round = 0; round < 12; round++) {
      const durable = log.watermark(Level.Disk);
      const before = [Level.Memory, Level.Os, Level.Disk].map((level) => log.watermark(level));
      const frame = log.append(random.pick([Level.Os, Level.Disk]), 2);
      log.sequencer.step();
      log.collect();
      t.equal(frame.firstLsn, before[0] + 1);
      [Level.Memory, Level.Os, Level.Disk].forEach((level, i) => {
        t.ok(log.watermark(level) >= before[i]);
      });
      if (random.oneIn(3)) log.sequencer.rotate();
      if (!random.oneIn(3)) continue;
      const kind = random.pick(['process', 'power'] as const);
      const promised = kind === 'power' ? Math.max(durable, log.watermark(Level.Disk)) : log.watermark(Level.Os);
      log = crashed(log, kind);
      t.ok(log.watermark(Level.Disk) >= promised);
      t.equal(log.watermark(Level.Memory), log.watermark(Level.Disk), 'all that is left is on disk');
    }
  }
});

t.test('6 Buried: what was cut off does not come back, through several further losses of power', async (t) => {
  let cut = 0;
  for (let seed = 0; seed < SEEDS; seed++) {
    const { log, frames } = halfSynced(seed);
    let again = crashed(log, 'power');
    const known = await again.read();
    const gone = new Set(idsOf(frames).slice(known.length));
    if (gone.size > 0) cut++;
    for (let round = 0; round < 3; round++) {
      known.push(...again.append(Level.Disk, 2).ids);
      again.sequencer.step();
      again = crashed(again, 'power');
      const ids = await again.read();
      if (ids.some((id) => gone.has(id!))) t.fail(`seed ${seed}: a record came back`);
      if (ids.join() !== known.join()) t.fail(`seed ${seed}: ${ids} instead of ${known}`);
    }
  }
  t.ok(cut > SEEDS / 4, `${cut} of ${SEEDS} were cut`);
});

t.test('6 Buried: what was cleaned up does not come back, though a crash brings its file back', async (t) => {
  for (let seed = 0; seed < SEEDS; seed++) {
    const log = new SimulatedLog({ disk: new SimulatedDisk(new Random(seed)) });
    for (let i = 0; i < 3; i++) log.appendUntilRotated(Level.Disk);
    log.append(Level.Disk);
    log.sequencer.step();
    const last = log.watermark(Level.Disk);
    log.sequencer.updateState((state) => ({ ...state, checkpoint: last }));
    const names = log.sequencer.cleanup().map((segment) => segment.name);
    // The removals are not synced when the power goes.
    during(log.disk, { crashAt: names.length + 1 }, () => retireSegments(log.disk, names, 0, SEGMENT_BYTES));
    const again = crashed(log, 'power');
    const { low } = again.sequencer.state;
    t.equal(low, log.sequencer.state.low);
    t.equal((await again.read()).length, last - low + 1);
    await t.rejects(again.read(last, low - 1), { code: 'ERR_WAL_TRUNCATED' });
  }
});

t.test('7 Loud: damage to a record that a later frame vouches for is reported, wherever it is', (t) => {
  const log = new SimulatedLog({ disk: new SimulatedDisk(new Random(1)) });
  for (let i = 0; i < 6; i++) {
    log.append(Level.Disk, 2);
    log.sequencer.step();
  }
  log.disk.crash();
  log.disk.restart('power');
  const name = '0000000000000001.wal';
  const { offsets } = framesOf(log.disk, name);
  const random = new Random(7);
  for (let round = 0; round < 200; round++) {
    const frame = random.below(5);
    const position = random.between(offsets[frame], offsets[frame + 1] - 8);
    log.disk.flip(name, position, round % 8);
    t.throws(() => new SimulatedLog({ disk: log.disk }), {
      code: 'ERR_WAL_CORRUPT',
      segment: name,
      lsn: frame * 2 + 1,
    });
    log.disk.flip(name, position, round % 8);
  }
  t.end();
});

t.test('7 Loud: a failed sync is followed by no acknowledgement, and is not tried again', (t) => {
  const log = new SimulatedLog({ disk: new SimulatedDisk(new Random(1)) });
  log.append(Level.Disk);
  log.sequencer.step();
  log.append(Level.Disk, 3);
  log.append(Level.Os, 3);
  during(log.disk, { failAt: 2, failing: ['sync'] }, () => log.sequencer.step());
  t.ok(log.disk.syncFailed && log.sequencer.failed);
  const marks = () => [Level.Memory, Level.Os, Level.Disk].map((level) => log.watermark(level));
  const before = marks();
  t.equal(before[Level.Disk], 1);
  log.append(Level.Os);
  log.disk.arm();
  for (const call of [() => log.sequencer.sync(), () => log.sequencer.rotate()])
    t.throws(call, { code: 'ERR_WAL_FAILED' });
  t.equal(log.sequencer.step(), false);
  log.sequencer.close();
  t.equal(log.disk.calls, 0);
  t.same(marks(), before);
  t.end();
});

t.test('8 Bounded: files and handles do not grow with the log when it is cleaned up', (t) => {
  const log = new SimulatedLog({ disk: new SimulatedDisk(new Random(1)) });
  const counts = new Set<number>();
  for (let round = 0; round < 40; round++) {
    log.appendUntilRotated(Level.Os);
    log.sequencer.updateState((state) => ({ ...state, checkpoint: log.watermark(Level.Os) }));
    const gone = log.sequencer.cleanup().map((segment) => segment.name);
    for (const spare of retireSegments(log.disk, gone, 1, SEGMENT_BYTES).spares) log.sequencer.addSpare(spare);
    counts.add(log.disk.fileNames().length);
    t.equal(log.disk.openFiles, 1);
  }
  t.ok(Math.max(...counts) <= 3, [...counts].join());
  t.ok(log.disk.usedBytes() <= 3 * SEGMENT_BYTES);
  t.end();
});

t.test('8 Bounded: memory and file handles do not grow with what is appended', async (t) => {
  const log = await WriteAheadLog.open(temporaryDirectory(t), {
    segmentBytes: 1024 * 1024,
    ringBytes: 512 * 1024,
    durability: 'os',
  });
  const payload = new Uint8Array(4000).fill(7);
  const megabytes = async (count: number) => {
    for (let i = 0; i < count * 4; i++) {
      // Fewer than the ring holds: what waits for room in it is copied, and collected again when the collector likes.
      const sent = await Promise.all(Array.from({ length: 62 }, () => log.append(payload)));
      if (i % 4 === 0) await log.checkpoint(sent[sent.length - 1]);
    }
  };
  await megabytes(10);
  const handles = openHandles();
  const { arrayBuffers } = process.memoryUsage();
  await megabytes(40);
  const grown = process.memoryUsage().arrayBuffers - arrayBuffers;
  t.ok(grown < 8 * 1024 * 1024, `${grown} bytes more after 40 MB`);
  if (handles === undefined) t.comment('open handles cannot be counted on this platform');
  else t.ok(openHandles()! <= handles + 2, `${handles} handles before, ${openHandles()} after`);
  t.ok(log.stats().segments <= 4, `${log.stats().segments} segments`);
  await log.close();
});

function openHandles(): number | undefined {
  try {
    return fs.readdirSync('/proc/self/fd').length;
  } catch {
    return undefined;
  }
}
