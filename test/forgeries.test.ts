import fs from 'node:fs';
import path from 'node:path';
import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { crc32 } from '../src/format/checksum.js';
import { Field, FrameType } from '../src/format/frame.js';
import { Level } from '../src/format/levels.js';
import {
  encodeSegmentHeader,
  repeatHeader,
  SEGMENT_HEADER_UNIT,
  type SegmentHeader,
} from '../src/format/segment-header.js';
import { decodePositions, decodeState, EMPTY_STATE } from '../src/format/state.js';
import type { CatalogEntry } from '../src/reader/catalog.js';
import { readIndex } from '../src/reader/index-lookup.js';
import { filesOf } from '../src/reader/storage-files.js';
import { verifyFiles } from '../src/reader/verify.js';
import { inspectPointInTime } from '../src/recovery/point-in-time.js';
import { inspectLog } from '../src/recovery/recover.js';
import { planRepair } from '../src/recovery/repair-plan.js';
import { finish } from '../src/recovery/survey.js';
import { Control, Slot } from '../src/ring/control.js';
import { Descriptor, FrameState } from '../src/ring/ring.js';
import { repairStorage } from '../src/upkeep/repair-log.js';
import { failsWith, temporaryDirectory } from './helpers.js';
import { largestAllocation } from './hostile/allocations.js';
import { frameOffsets } from './hostile/forge.js';
import { type RealLog, realLogs } from './hostile/logs.js';
import { MemoryDisk } from './hostile/memory-disk.js';
import { SimulatedLog } from './simulation/simulated-log.js';

/** What the properties of hostile bytes found, each by itself. */
const logs = new Map((await realLogs()).map((log) => [log.name, log]));
const SEGMENT_1 = '0000000000000001.wal';
const MIB = 1024 * 1024;

function bytesOf(log: RealLog, name: string): Buffer {
  return Buffer.from(log.image.get(name)!);
}

function sealHeader(block: Buffer): void {
  block.writeUInt32LE(crc32(block.subarray(0, 124)), 124);
  repeatHeader(block.subarray(0, SEGMENT_HEADER_UNIT));
}

t.test('a file that cannot be a segment of this log is none of it, or damage', async (t) => {
  const log = logs.get('closed')!;
  for (const name of ['0000000000000000.wal', '9999999999999999.wal', '00000000000000002.wal']) {
    const disk = new MemoryDisk(new Map([...log.image, [name, new Uint8Array(5000)]]));
    t.equal(inspectLog(disk, 'strict').report.lastLsn, log.lastLsn, `${name} is nobody's`);
  }
  const disk = new MemoryDisk(new Map([...log.image, ['9007199254740991.wal', new Uint8Array(5000)]]));
  await failsWith(t, 'ERR_WAL_CORRUPT', () => inspectLog(disk, 'strict'));
  const { quarantined, kept } = await repairStorage(disk);
  t.same([quarantined, kept], [['quarantine/9007199254740991.wal@0'], log.records.size]);
  t.equal(inspectLog(disk, 'strict').nextSegmentId, 2, 'segments go on to be counted from where this log is');
});

t.test('a directory of more files than there are arguments on a stack is opened', async (t) => {
  const disk = new MemoryDisk(logs.get('closed')!.image);
  const list = disk.list.bind(disk);
  const many = Array.from({ length: 200_000 }, (_, i) => `${String(i + 1).padStart(16, '0')}.wal@0`);
  disk.list = (folder) => (folder === 'quarantine' ? many : list(folder));
  t.equal(inspectLog(disk, 'strict').nextSegmentId, 200_001);
});

t.test(
  'what verify calls sound opens: a stranger among the segments does not make the others look cleaned up',
  async (t) => {
    const [rotated, cleaned] = [logs.get('rotated')!, logs.get('cleaned up and recycled')!];
    const disk = new MemoryDisk(new Map([...rotated.image, [SEGMENT_1, bytesOf(cleaned, '0000000000000004.wal')]]));
    await failsWith(t, 'ERR_WAL_CORRUPT', () => inspectLog(disk, 'tolerate-torn-tail'));
    const { verdict, damage } = await verifyFiles(filesOf(disk));
    t.equal(verdict, 'corrupt');
    t.ok(
      damage.some(({ segment }) => segment === SEGMENT_1),
      'and it says which one it is',
    );
    const { lost } = await repairStorage(disk);
    t.same(lost, [{ firstLsn: 1, lastLsn: 6 }], 'what it held is lost, the others are kept');
    t.equal(inspectLog(disk, 'strict').report.lastLsn, rotated.lastLsn);
  },
);

t.test('a segment that ends within its header is damaged, for verify as for open', async (t) => {
  const { image, lastLsn } = logs.get('rotated')!;
  for (const length of [127, 171, 4095]) {
    const disk = new MemoryDisk(new Map([...image, [SEGMENT_1, image.get(SEGMENT_1)!.subarray(0, length)]]));
    await failsWith(t, 'ERR_WAL_CORRUPT', () => inspectLog(disk, 'tolerate-torn-tail'));
    t.equal((await verifyFiles(filesOf(disk))).verdict, 'corrupt', `of ${length} bytes`);
    t.same((await repairStorage(disk)).lost, [{ firstLsn: 1, lastLsn: 6 }]);
    t.equal(inspectLog(disk, 'strict').report.lastLsn, lastLsn, 'and the repaired log opens');
  }
});

t.test('a file below the clean-up mark whose header is gone is damage until a repair sets it aside', async (t) => {
  const { image, lastLsn, records } = logs.get('cleaned up and recycled')!;
  const name = '0000000000000002.wal';
  const disk = new MemoryDisk(new Map([...image, [name, image.get('0000000000000004.wal')!]]));
  await failsWith(t, 'ERR_WAL_CORRUPT', () => inspectLog(disk, 'tolerate-torn-tail'));
  const { verdict, damage } = await verifyFiles(filesOf(disk));
  t.same([verdict, damage.map(({ segment }) => segment)], ['corrupt', [name]]);
  const { kept, quarantined } = await repairStorage(disk);
  t.same([kept, quarantined], [records.size, [`quarantine/${name}@0`]], 'nothing but that file is gone');
  t.equal(inspectLog(disk, 'strict').report.lastLsn, lastLsn);
});

t.test('a segment that is missing and said to be larger than any is not made up for', async (t) => {
  const image = new Map(logs.get('rotated')!.image);
  const second = Buffer.from(image.get('0000000000000002.wal')!);
  for (const end of [2 ** 33, Number.MAX_SAFE_INTEGER - 4095]) {
    second.writeBigUInt64LE(BigInt(end), 96);
    sealHeader(second);
    image.delete(SEGMENT_1);
    const disk = new MemoryDisk(image.set('0000000000000002.wal', second));
    const { largest } = await largestAllocation(() => failsWith(t, 'ERR_WAL_CORRUPT', () => finish(planRepair(disk))));
    t.ok(largest <= MIB, `${largest} bytes at once`);
    await failsWith(t, 'ERR_WAL_CORRUPT', repairStorage(disk));
    t.equal(disk.changes, 0, 'nothing was touched');
  }
});

t.test('a seal is not given the memory that a footer without a checksum asks for', async (t) => {
  const bytes = Buffer.alloc(24 * MIB);
  const header: Omit<SegmentHeader, 'headerBytes' | 'headerCrc'> = {
    logId: new Uint8Array(16),
    segmentId: 1,
    salt: { low: 1, high: 2 },
    firstLsn: 1,
    createdAt: 0,
    segmentBytes: 64 * MIB,
    previous: { segmentId: 0, lastLsn: 0, endOffset: 0, headerCrc: 0 },
    flags: 4,
    state: EMPTY_STATE,
  };
  bytes.set(encodeSegmentHeader(header).bytes);
  bytes.fill(0xaa, 8192);
  bytes.writeBigUInt64LE(8192n, bytes.byteLength - 16);
  bytes.write('SEAL', bytes.byteLength - 8);
  const disk = new MemoryDisk(new Map([[SEGMENT_1, bytes]]));
  const files = filesOf(disk);
  const file = await files.open(SEGMENT_1);
  const entry = { header: { ...header, headerBytes: 8192 }, next: { previous: { endOffset: bytes.byteLength } } };
  const index = await largestAllocation(() => readIndex(file, entry as unknown as CatalogEntry));
  t.equal(index.result, undefined, 'there is no index');
  t.ok(index.largest <= 4096, `and no more than ${index.largest} bytes were asked for`);
  for (const endOffset of [0, 15, 8192, 8271]) {
    const early = { ...entry, next: { previous: { endOffset } } } as unknown as CatalogEntry;
    t.equal(await readIndex(file, early), undefined, `nor one that ends at byte ${endOffset}`);
  }
  const { largest, result } = await largestAllocation(() => verifyFiles(files));
  t.equal(result.verdict, 'corrupt', 'a seal stood there, all of whose sectors were written');
  t.ok(largest <= 2 * MIB, `${largest} bytes at once`);
});

t.test('a log that would come to LSNs which a number cannot hold is not opened', async (t) => {
  const firstLsn = 2 ** 53 - 10;
  const { bytes } = encodeSegmentHeader({
    logId: new Uint8Array(16),
    segmentId: 1,
    salt: { low: 1, high: 2 },
    firstLsn,
    createdAt: 0,
    segmentBytes: 16384,
    previous: { segmentId: 0, lastLsn: firstLsn - 1, endOffset: 0, headerCrc: 0 },
    flags: 0,
    state: { ...EMPTY_STATE, low: firstLsn },
  });
  const disk = new MemoryDisk(new Map([[SEGMENT_1, Buffer.concat([bytes, Buffer.alloc(8192)])]]));
  const error = await failsWith(t, 'ERR_WAL_CORRUPT', () => inspectLog(disk, 'tolerate-torn-tail'));
  t.match(error.message, /no log comes to/);
  await failsWith(t, 'ERR_WAL_CORRUPT', () => finish(inspectPointInTime(disk)));
});

t.test('a state that is none is damage, also when its checksum holds', async (t) => {
  const deep = `{"x":${'['.repeat(100_000)}${']'.repeat(100_000)}}`;
  const states = ['{"subscriptions":null}', '{"subscriptions":{"a":{}}}', '{"low":0}', '{"checkpoint":-1}', deep];
  for (const text of states) await failsWith(t, 'ERR_WAL_CORRUPT', () => decodeState(Buffer.from(text)));
  for (const text of ['{"a":true}', '{"a":{}}', '{"a":-1}', '[]'])
    await failsWith(t, 'ERR_WAL_CORRUPT', () => decodePositions(Buffer.from(text)));
  t.same(decodeState(Buffer.from('{"later":{"a":[1]}}')).low, 1, 'a key of a later version is kept');
});

t.test('a follower in another process believes no more to be on disk than it has read', async (t) => {
  const { image, lastLsn } = logs.get('left as it is')!;
  const directory = temporaryDirectory(t);
  const bytes = Buffer.from(image.get(SEGMENT_1)!);
  const stamp = frameOffsets(bytes).at(-1)!;
  t.equal(bytes[stamp + Field.type], FrameType.Stamp);
  bytes.writeBigUInt64LE(2n ** 40n, stamp + Field.durableLsn);
  bytes.writeUInt32LE(crc32(bytes.subarray(stamp, stamp + Field.headerCrc)), stamp + Field.headerCrc);
  fs.writeFileSync(path.join(directory, SEGMENT_1), bytes);
  const log = await WriteAheadLog.open(directory, { readOnly: true });
  t.teardown(() => log.close());
  const follower = log.read({ follow: true, level: 'disk' })[Symbol.asyncIterator]();
  for (let lsn = 1; lsn <= lastLsn; lsn++) t.equal((await follower.next()).value?.lsn, lsn);
  const next = follower.next();
  t.equal(log.watermark('disk'), lastLsn, 'it waits for the next one');
  await log.close();
  t.equal((await next).done, true);
});

t.test('an actor that died while it told of a commit keeps nobody waiting', async (t) => {
  const control = new Control();
  control.publishCommit(Level.Disk, 7, 100, 5);
  Atomics.add(control.slots, Slot.commitVersion, 1);
  t.same(control.readCommit(Level.Disk), { lsn: 7, bytes: 100, at: 5 });
});

t.test('a frame whose descriptor lies fails the log before any of it is written', async (t) => {
  for (const [field, value] of [
    [Descriptor.bytes, 0x7fffffff],
    [Descriptor.bytes, 8],
    [Descriptor.bytes, -64],
    [Descriptor.offset, -8],
    [Descriptor.offset, 1 << 30],
  ]) {
    const log = new SimulatedLog();
    log.append(Level.Disk);
    log.sequencer.step();
    const before = inspectLog(log.disk, 'tolerate-torn-tail').end;
    const { ring } = log.producers[0];
    log.append(Level.Disk);
    ring.descriptors[ring.descriptor(1) + field] = value;
    t.equal(ring.state(1), FrameState.Ready);
    log.sequencer.step();
    t.ok(log.sequencer.failed, 'the log failed');
    t.match(log.control.failure(), /ring is damaged/, 'and says why');
    t.same(inspectLog(log.disk, 'tolerate-torn-tail').end, before, 'what was there is as it was');
  }
});
