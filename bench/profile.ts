import { crc32 } from '../src/format/checksum.js';
import { Level } from '../src/format/levels.js';
import { Appender } from '../src/producer/appender.js';
import { RecordWriter } from '../src/producer/producer.js';
import { Control } from '../src/ring/control.js';
import { FrameState, Ring, RingSlot } from '../src/ring/ring.js';

/**
 * `node dist/bench/profile.js`: where the time of a record goes in the thread that appends it, without a disk and
 * without the I/O actor, in processor time, and how much garbage it leaves. docs/BENCHMARKS.md says what was made of it.
 */
const RECORD = Buffer.alloc(100, 'x');
const IN_FLIGHT = 1000;
const ROUNDS = 7;

/** An appender whose frames are acknowledged, in the next turn, by nobody but a loop over the ring's counters. */
function writerWithoutDisk(): RecordWriter {
  const ring = Ring.allocate(16 * 1024 * 1024);
  const control = new Control();
  const limits = { frameBytes: 256 * 1024, maxRecordBytes: 4 * 1024 * 1024, encodeBytes: Number.POSITIVE_INFINITY };
  const appender = new Appender(ring, control, limits, { hold: () => {}, backpressure: () => {} });
  let taken = 0;
  let lsn = 1;
  const acknowledge = () => {
    let frames = 0;
    for (; ring.state(taken) === FrameState.Ready; taken++, frames++) {
      ring.setLsn(ring.descriptor(taken), lsn);
      ring.setState(taken, FrameState.Taken);
      lsn += 10_000;
    }
    for (const counter of [RingSlot.sequenced, RingSlot.written, RingSlot.synced]) ring.advance(counter, frames);
    setImmediate(acknowledge).unref();
  };
  setImmediate(acknowledge).unref();
  return new RecordWriter(appender, control, Level.Disk);
}

/** Promises that a loop makes and resolves, and nothing else: what every API of promises costs. */
function promisesOnly(): () => Promise<void> {
  let waiting: (() => void)[] = [];
  const resolveAll = () => {
    const all = waiting;
    waiting = [];
    for (const resolve of all) resolve();
  };
  return () =>
    new Promise((resolve) => {
      waiting.push(resolve);
      if (waiting.length === 1) setImmediate(resolveAll);
    });
}

async function calls(count: number, inFlight: number, call: () => Promise<unknown>): Promise<void> {
  let left = count;
  const caller = async () => {
    while (left-- > 0) await call();
  };
  // Keeps the process alive; what is in flight here holds nothing.
  const alive = setInterval(() => {}, 1000);
  await Promise.all(Array.from({ length: inFlight }, caller));
  clearInterval(alive);
}

interface Cost {
  nanoseconds: number;
  /** Bytes of garbage; the least that was seen, because a collection in between hides some. */
  allocated: number;
}

async function cost(
  count: number,
  inFlight: number,
  recordsPerCall: number,
  call: () => Promise<unknown>,
): Promise<Cost> {
  await calls(count, inFlight, call);
  const times: number[] = [];
  const allocated: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const before = process.cpuUsage();
    await calls(count, inFlight, call);
    const { user, system } = process.cpuUsage(before);
    times.push(((user + system) * 1000) / count / recordsPerCall);
    const few = Math.max(200, Math.ceil(10_000 / recordsPerCall));
    globalThis.gc?.();
    const heap = process.memoryUsage().heapUsed;
    await calls(few, Math.min(inFlight, few), call);
    allocated.push((process.memoryUsage().heapUsed - heap) / few / recordsPerCall);
  }
  const middle = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1];
  return { nanoseconds: middle(times), allocated: middle(allocated.filter((bytes) => bytes > 0)) };
}

function timeOf(times: number, work: () => void): number {
  for (let i = 0; i < times; i++) work();
  const before = process.cpuUsage();
  for (let i = 0; i < times; i++) work();
  const { user, system } = process.cpuUsage(before);
  return ((user + system) * 1000) / times;
}

function show(what: string, nanoseconds: number, allocated?: number): void {
  const bytes = allocated === undefined ? '' : `${allocated.toFixed(0).padStart(8)} B`;
  console.log(`${what.padEnd(58)}${nanoseconds.toFixed(0).padStart(6)} ns${bytes}`);
}

console.log('for each record of 100 bytes                                processor   garbage');
const promises = await cost(300_000, IN_FLIGHT, 1, promisesOnly());
show('a promise, made, resolved and awaited', promises.nanoseconds, promises.allocated);
const writer = writerWithoutDisk();
const append = await cost(300_000, IN_FLIGHT, 1, () => writer.append(RECORD));
show(`append, ${IN_FLIGHT} in flight, all of it but the disk`, append.nanoseconds, append.allocated);
const batch = new Array<Buffer>(1000).fill(RECORD);
const many = await cost(2000, 4, 1000, () => writer.appendMany(batch));
show('appendMany of 1,000, 4 in flight, its checksum included', many.nanoseconds, many.allocated);

const shared = Buffer.from(new SharedArrayBuffer(1024 * 1024) as unknown as ArrayBuffer);
const own = Buffer.alloc(1024 * 1024);
const place = () => (at = at + 103 > 1_000_000 ? 3 : at + 103);
let at = 3;
console.log('\nparts of it');
show(
  'copying 100 bytes into shared memory, where they fall',
  timeOf(1e6, () => shared.set(RECORD, place())),
);
show(
  'copying 100 bytes into memory of its own',
  timeOf(1e6, () => own.set(RECORD, place())),
);
const piece = own.subarray(0, 16_000);
show('their part of copying 16,000 on, aligned', timeOf(1e5, () => shared.set(piece, 64)) / 160);
show('their part of a checksum over 100,000', timeOf(1e4, () => crc32(shared.subarray(0, 100_000))) / 1000);
process.exit(0);
