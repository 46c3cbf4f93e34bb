import t, { type Test } from 'tap';
import { Codec } from '../src/format/codec.js';
import { writeVarint } from '../src/format/integers.js';
import { RecordKind } from '../src/format/record.js';
import { SegmentFlag } from '../src/format/segment-header.js';
import { EMPTY_STATE } from '../src/format/state.js';
import { filesOf } from '../src/reader/storage-files.js';
import { verifyFiles } from '../src/reader/verify.js';
import { inspectLog } from '../src/recovery/recover.js';
import { CompactedWriter } from '../src/segments/compacted-writer.js';
import { segmentName } from '../src/segments/names.js';
import { prepareSpare } from '../src/segments/prepare.js';
import { SegmentWriter } from '../src/segments/segment-writer.js';
import { Random } from './simulation/random.js';
import { readAll } from './simulation/reading.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';

const NOW = 1_700_000_000_000;

/** What a compacted segment writes is read back. */
interface Kept {
  lsn: number;
  timestamp: number;
  payload: Buffer;
}

function recordOf(payload: Buffer): Uint8Array {
  const bytes = new Uint8Array(payload.byteLength + 8);
  const at = writeVarint(bytes, 0, payload.byteLength * 8 + RecordKind.Data);
  bytes.set(payload, at);
  return bytes.subarray(0, at + payload.byteLength);
}

/** A log of a compacted segment with these records, up to `lastLsn`, and an empty one behind it. */
function compacted(kept: readonly Kept[], lastLsn: number): { disk: SimulatedDisk; writes: number } {
  const disk = new SimulatedDisk(new Random(1));
  const file = disk.open(segmentName(1), 'create');
  let writes = 0;
  disk.observe = (call) => {
    if (call === 'write') writes++;
  };
  const logId = disk.random.bytes(16);
  const start = {
    logId,
    salt: { low: 1, high: 2 },
    previous: { segmentId: 0, lastLsn: 0, endOffset: 0, headerCrc: 0 },
  };
  const header = { ...start, segmentId: 1, firstLsn: 1, createdAt: NOW, segmentBytes: 2 ** 30, state: EMPTY_STATE };
  const writer = new CompactedWriter(file, { ...header, flags: SegmentFlag.Compacted, records: kept.length });
  for (const { lsn, timestamp, payload } of kept) writer.add(lsn, timestamp, recordOf(payload), Codec.None);
  writer.coverTo(lastLsn);
  const info = writer.seal(EMPTY_STATE, NOW);
  file.close();
  disk.observe = undefined;
  const previous = { segmentId: 1, lastLsn, endOffset: info.endOffset, headerCrc: info.endCrc };
  const next = SegmentWriter.create(disk, prepareSpare(disk, 65_536), {
    ...start,
    segmentId: 2,
    firstLsn: lastLsn + 1,
    now: NOW,
    previous,
    state: EMPTY_STATE,
    flags: 0,
  });
  next.seal(NOW);
  next.trim();
  next.close();
  return { disk, writes };
}

async function comesBack(t: Test, disk: SimulatedDisk, kept: readonly Kept[], lastLsn: number): Promise<void> {
  t.match(await verifyFiles(filesOf(disk)), { verdict: 'clean', records: kept.length, damage: [], lost: [] });
  t.match(inspectLog(disk, 'strict').report, { lastLsn, records: kept.length });
  const found = await readAll(disk, 1, lastLsn);
  t.same(
    found.map(({ lsn, timestamp }) => [lsn, timestamp]),
    kept.map(({ lsn, timestamp }) => [lsn, timestamp]),
  );
  t.ok(found.every(({ payload }, i) => Buffer.compare(payload, kept[i].payload) === 0));
}

t.test('records of more than a frame, and of more than one write takes, come back as they were', async (t) => {
  const sizes = Array.from({ length: 600 }, (_, i) => 3000 + i);
  // Larger than what a frame is made for.
  sizes[300] = 200_000;
  const kept = sizes.map((bytes, i) => ({
    lsn: 2 * i + 1,
    timestamp: NOW + i,
    payload: Buffer.alloc(bytes, i),
  }));
  const { disk, writes } = compacted(kept, 1300);
  t.ok(writes > 1 && writes < 10, `it was written in ${writes} pieces`);
  await comesBack(t, disk, kept, 1300);
});

t.test('of more LSNs than a frame can stand for all are accounted for, in the middle and at the end', async (t) => {
  const leap = 2 ** 32;
  const kept = [1, 2, leap + 10, leap + 11, 3 * leap].map((lsn, i) => ({
    lsn,
    timestamp: NOW + i,
    payload: Buffer.from(`${lsn}`),
  }));
  const { disk } = compacted(kept, 5 * leap);
  await comesBack(t, disk, kept, 5 * leap);
});
