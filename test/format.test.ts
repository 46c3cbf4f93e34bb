import t from 'tap';
import { WalError } from '../src/errors.js';
import { crc32, NATIVE_CRC_BYTES } from '../src/format/checksum.js';
import { buildFrame, FRAME_HEADER_BYTES, FrameType, frameBytes, readFrameHeader } from '../src/format/frame.js';
import { align8, readU64, varintBytes, writeU64, writeVarint } from '../src/format/integers.js';
import { decodeRecords, type WalRecord } from '../src/format/record.js';
import { decodeSeal, encodeSeal, readSealFooter, SEAL_FOOTER_BYTES } from '../src/format/seal.js';
import {
  decodeSegmentHeader,
  encodeSegmentHeader,
  repeatHeader,
  SEGMENT_HEADER_UNIT,
} from '../src/format/segment-header.js';
import { decodeSparse, scanRecords, writeSparsePrefix } from '../src/format/sparse.js';
import { decodePositions, decodeState, EMPTY_STATE, encodePositions, encodeState } from '../src/format/state.js';
import { checkFrame } from '../src/segments/walk.js';
import { Random } from './simulation/random.js';
import { encodedBytes, idOf, writeRecord } from './simulation/records.js';

const SALT = { low: 0xdeadbeef, high: 0x01020304 };
const POSITION = { acknowledged: 1, level: 'disk' as const };
const ROUNDS = 4000;

/** Runs a decoder on hostile bytes: it may answer or throw a WalError, and nothing else. */
function survives(decode: () => unknown): unknown {
  try {
    return decode();
  } catch (error) {
    if (!(error instanceof WalError)) throw error;
    return error;
  }
}

function header(state = EMPTY_STATE) {
  const fields = {
    logId: new Uint8Array(16).fill(9),
    segmentId: 7,
    salt: SALT,
    firstLsn: 2 ** 40 + 3,
    createdAt: 1_700_000_000_000,
    segmentBytes: 64 * 1024 * 1024,
    previous: { segmentId: 6, lastLsn: 2 ** 40 + 2, endOffset: 123_456, headerCrc: 0xffffffff },
    flags: 1,
    state,
  };
  return { fields, ...encodeSegmentHeader(fields) };
}

function reader(bytes: Uint8Array, asked: number[] = []) {
  return (target: Uint8Array, position: number) => {
    asked.push(target.byteLength);
    const part = bytes.subarray(position, position + target.byteLength);
    target.set(part);
    return part.byteLength;
  };
}

/** A header with these 32-bit numbers in it, and a checksum that holds. */
function forged(bytes: Uint8Array, fields: Record<number, number>): Uint8Array {
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  for (const [offset, value] of Object.entries(fields)) view.setUint32(Number(offset), value, true);
  view.setUint32(124, crc32(copy.subarray(0, 124)), true);
  repeatHeader(copy);
  return copy;
}

t.test('integers, checksums and alignment are what they should be at their edges', (t) => {
  const view = new DataView(new ArrayBuffer(8));
  for (const value of [0, 1, 0xffffffff, 2 ** 32, 2 ** 53 - 1]) {
    writeU64(view, 0, value);
    t.equal(readU64(view, 0), value);
  }
  for (const value of [0, 127, 128, 16383, 16384, 2 ** 21, 2 ** 28, 2 ** 35 - 1]) {
    t.equal(writeVarint(new Uint8Array(8), 0, value), varintBytes(value), `${value}`);
  }
  t.same([0, 1, 7, 8, 9].map(align8), [0, 8, 8, 8, 16]);
  t.equal(crc32(Buffer.from('123456789')), 0xcbf43926);
  const bytes = new Random(1).bytes(NATIVE_CRC_BYTES * 2);
  const half = crc32(bytes.subarray(0, NATIVE_CRC_BYTES - 1));
  t.equal(crc32(bytes.subarray(NATIVE_CRC_BYTES - 1), half), crc32(bytes), 'both ways agree, and continue each other');
  t.end();
});

t.test('a segment header comes back as it was written, in one block or more', (t) => {
  const many = Object.fromEntries(
    Array.from({ length: 500 }, (_, i) => [`consumer-${i}`, { acknowledged: i, level: 'disk' as const }]),
  );
  for (const state of [EMPTY_STATE, { checkpoint: 5, low: 3, subscriptions: many }]) {
    const { fields, bytes, headerCrc } = header(state);
    t.equal(Math.log2(bytes.byteLength / SEGMENT_HEADER_UNIT) % 1, 0);
    const decoded = decodeSegmentHeader('x', reader(bytes));
    t.same(
      { ...decoded, logId: [...decoded.logId] },
      {
        ...fields,
        logId: [...fields.logId],
        headerBytes: bytes.byteLength,
        headerCrc,
      },
    );
  }
  t.end();
});

t.test('one flipped bit anywhere in a segment header is noticed', (t) => {
  const { bytes } = header();
  for (let bit = 0; bit < bytes.byteLength * 8; bit += bit < 2048 ? 1 : 509) {
    const copy = bytes.slice();
    copy[bit >> 3] ^= 1 << (bit & 7);
    const error = survives(() => decodeSegmentHeader('x', reader(copy)));
    if ((error as WalError).code !== 'ERR_WAL_CORRUPT') t.fail(`bit ${bit}: ${error}`);
  }
  t.pass();
  t.end();
});

t.test('a bit that is flipped in both copies of a segment header is noticed too, by its checksums', (t) => {
  const { bytes } = header();
  const half = bytes.byteLength / 2;
  for (let bit = 0; bit < half * 8; bit += bit < 4096 ? 1 : 509) {
    const copy = bytes.slice();
    for (const at of [bit >> 3, half + (bit >> 3)]) copy[at] ^= 1 << (bit & 7);
    const error = survives(() => decodeSegmentHeader('x', reader(copy)));
    if (!(error instanceof WalError)) t.fail(`bit ${bit}: ${error}`);
  }
  t.pass();
  t.end();
});

t.test('a header of a newer version, or with unknown features, says so', (t) => {
  const { bytes } = header();
  const newer: Record<number, number>[] = [{ 8: 2 }, { 20: 1 }, { 20: 0x80000000 }];
  for (const fields of newer) {
    t.throws(() => decodeSegmentHeader('x', reader(forged(bytes, fields))), { code: 'ERR_WAL_VERSION' });
  }
  t.equal(decodeSegmentHeader('x', reader(forged(bytes, { 16: 0xff }))).segmentId, 7, 'compatible bits are ignored');
  t.end();
});

t.test('sizes that a header lies about are refused, and nothing is set aside for them', (t) => {
  const { bytes } = header();
  for (const size of [0, 127, 4096, 8191, 8192 * 3, 2 ** 31, 2 ** 32 - 1]) {
    const asked: number[] = [];
    t.throws(() => decodeSegmentHeader('x', reader(forged(bytes, { 12: size }), asked)), { code: 'ERR_WAL_CORRUPT' });
    t.ok(Math.max(...asked) <= SEGMENT_HEADER_UNIT);
  }
  t.throws(() => decodeSegmentHeader('x', reader(forged(bytes, { 112: 2 ** 32 - 1 }))), { code: 'ERR_WAL_CORRUPT' });
  t.throws(() => decodeSegmentHeader('x', reader(forged(bytes, { 12: 16384 }))), { code: 'ERR_WAL_CORRUPT' });
  // Without a checksum that holds, not even the size is looked at.
  const unchecked = bytes.slice();
  new DataView(unchecked.buffer).setUint32(12, 2 ** 30, true);
  const asked: number[] = [];
  t.throws(() => decodeSegmentHeader('x', reader(unchecked, asked)), { code: 'ERR_WAL_CORRUPT' });
  t.same(asked, [SEGMENT_HEADER_UNIT]);
  t.end();
});

t.test('a frame comes back as it was written; another salt, one flipped bit or a cut make it none', (t) => {
  const payload = new Random(3).bytes(77);
  const { bytes, headerCrc } = buildFrame(FrameType.State, payload, 2 ** 35, 99, SALT, 1234, 42);
  const view = new DataView(bytes.buffer);
  t.equal(bytes.byteLength, frameBytes(77));
  const expected = { salt: SALT, lsn: 2 ** 35, previousCrc: 42 };
  const check = (b = bytes, e = expected, end = b.byteLength, fileEnd = end) =>
    checkFrame(b, new DataView(b.buffer, b.byteOffset), 0, end, fileEnd, e);
  t.match(check(), { type: FrameType.State, storedBytes: 77, firstLsn: 2 ** 35, durableLsn: 99, headerCrc });
  t.equal(readFrameHeader(view, bytes, 0, { low: SALT.low, high: SALT.high + 1 }), undefined);
  t.equal(check(bytes, { ...expected, lsn: 1 }), undefined);
  t.equal(check(bytes, { ...expected, previousCrc: 1 }), undefined);
  t.equal(check(bytes, expected, 10, bytes.byteLength), FRAME_HEADER_BYTES, 'a header first');
  t.equal(check(bytes, expected, FRAME_HEADER_BYTES, bytes.byteLength), bytes.byteLength, 'then its payload');
  t.equal(check(bytes, expected, bytes.byteLength - 8), undefined, 'longer than the file');
  for (let bit = 0; bit < (FRAME_HEADER_BYTES + 77) * 8; bit++) {
    const copy = bytes.slice();
    copy[bit >> 3] ^= 1 << (bit & 7);
    if (check(copy) !== undefined) t.fail(`bit ${bit}`);
  }
  t.end();
});

t.test('records of every kind and size come back byte for byte, from any part of a frame', (t) => {
  const ids = Array.from({ length: 200 }, (_, i) => i + 1);
  const bytes = Buffer.alloc(ids.reduce((sum, id) => sum + encodedBytes(id), 0));
  const end = ids.reduce((at, id) => writeRecord(bytes, at, id), 0);
  const decode = (from: number, to: number) => {
    const records: WalRecord[] = [];
    decodeRecords(bytes, 0, end, ids.length, 1, 5, from, to, records);
    return records.map((record) => [record.lsn, idOf(record)]);
  };
  t.same(
    decode(1, 200),
    ids.map((id) => [id, id]),
  );
  t.same(decode(50, 52), [
    [50, 50],
    [51, 51],
    [52, 52],
  ]);
  t.end();
});

t.test('a count or a length that lies makes records corrupt, soon and without memory', (t) => {
  const bytes = Buffer.alloc(4096);
  const end = [1, 2, 3].reduce((at, id) => writeRecord(bytes, at, id), 0);
  for (const count of [0, 2, 4, 2 ** 32 - 1]) {
    const records: WalRecord[] = [];
    t.throws(() => decodeRecords(bytes, 0, end, count, 1, 0, 1, 1e9, records), { code: 'ERR_WAL_CORRUPT' });
    t.ok(records.length <= 3);
  }
  for (const cut of [1, 5, end - 1]) {
    t.throws(() => decodeRecords(bytes, 0, cut, 3, 1, 0, 1, 1e9, []), { code: 'ERR_WAL_CORRUPT' });
  }
  t.end();
});

t.test('a seal and a state come back as they were written, with what a newer version adds', (t) => {
  const state = { checkpoint: 7, low: 3, subscriptions: { a: POSITION }, later: [1, 2] } as typeof EMPTY_STATE;
  const index = [
    { offset: 4096, firstLsn: 1, timestamp: 5 },
    { offset: 2 ** 33, firstLsn: 2 ** 40, timestamp: 6 },
  ];
  const bytes = encodeSeal({ state, index }, 8192);
  t.same(decodeSeal(bytes), { state, index });
  t.equal(readSealFooter(bytes.subarray(-SEAL_FOOTER_BYTES), 20_000), 8192);
  t.equal(readSealFooter(bytes.subarray(-SEAL_FOOTER_BYTES), 8000), undefined, 'behind the end of the file');
  t.same(decodeState(encodeState(EMPTY_STATE)), EMPTY_STATE);
  for (const text of ['', '{', 'null', '5', '{"low":"x"}', '{"checkpoint":1.5}']) {
    const result = survives(() => decodeState(Buffer.from(text)));
    t.ok(result instanceof WalError || (result as typeof EMPTY_STATE).low === 1, `state '${text}'`);
  }
  t.end();
});

t.test('random and mutated bytes make every decoder answer or throw a WalError', (t) => {
  const random = new Random(20);
  const { bytes } = header({ checkpoint: 1, low: 1, subscriptions: { a: POSITION } });
  const records = Buffer.alloc(4096);
  const recordsEnd = [1, 2, 3, 4, 5].reduce((at, id) => writeRecord(records, at, id), 0);
  const seal = encodeSeal({ state: EMPTY_STATE, index: [{ offset: 4096, firstLsn: 1, timestamp: 1 }] }, 4096);
  const mutated = (original: Uint8Array) => {
    const copy = original.slice(0, random.oneIn(4) ? random.below(original.byteLength + 1) : undefined);
    for (let i = random.between(1, 8); i > 0 && copy.byteLength > 0; i--) {
      copy[random.below(copy.byteLength)] = random.pick([0, 0xff, 0x80, 0x7f, random.below(256)]);
    }
    return copy;
  };
  for (let round = 0; round < ROUNDS; round++) {
    const noise = random.bytes(random.below(300));
    survives(() => decodeSegmentHeader('x', reader(noise)));
    survives(() => decodeSegmentHeader('x', reader(mutated(bytes))));
    const lie = mutated(bytes);
    if (lie.byteLength >= 128) survives(() => decodeSegmentHeader('x', reader(forged(lie, { 8: 1, 20: 0 }))));
    survives(() => decodeState(noise));
    survives(() => decodeSeal(noise));
    survives(() => decodeSeal(mutated(seal)));
    survives(() => decodeRecords(noise, 0, noise.byteLength, random.below(50), 1, 0, 1, 100, []));
    const broken = mutated(records.subarray(0, recordsEnd));
    survives(() => decodeRecords(broken, 0, broken.byteLength, 5, 1, 0, 1, 100, []));
    const view = new DataView(noise.buffer);
    survives(() => readFrameHeader(view, noise, 0, SALT));
  }
  t.pass();
  t.end();
});

t.test('positions that are nested deeper than any are corrupt, and ask for no stack', (t) => {
  const nested = (depth: number) =>
    Buffer.from(`{"a":{"acknowledged":1,"level":"disk","later":${'['.repeat(depth)}${']'.repeat(depth)}}}`);
  t.match(decodePositions(nested(20)), { a: { acknowledged: 1 } }, 'what a later version adds is kept');
  for (const depth of [40, 1000]) t.throws(() => decodePositions(nested(depth)), { code: 'ERR_WAL_CORRUPT' });
  t.same(decodePositions(encodePositions({ a: null, b: 5 })), { a: null, b: 5 });
  t.end();
});

t.test('records of a compacted frame that do not decode are corrupt, with their LSN', (t) => {
  const decode = (bytes: Uint8Array, lastLsn = 20) => {
    const records: WalRecord[] = [];
    decodeSparse(bytes, 0, bytes.byteLength, 10, lastLsn, 0, 1, 100, records);
    return records.map(({ lsn }) => lsn);
  };
  const whole = new Uint8Array(16);
  const at = writeSparsePrefix(whole, 0, 5, 0);
  whole[at] = 8;
  const bytes = whole.subarray(0, at + 2);
  t.same(decode(bytes), [15]);
  const corrupt = { code: 'ERR_WAL_CORRUPT' };
  t.throws(() => decode(bytes, 14), { ...corrupt, lsn: 15 }, 'one above those that the frame stands for');
  t.throws(() => decode(bytes.subarray(0, -1)), corrupt, 'one that goes on behind the end');
  t.throws(() => decode(Uint8Array.of(0x80)), { ...corrupt, lsn: 10 }, 'a number that goes on behind the end');
  t.throws(() => decode(new Uint8Array(20).fill(0x80)), corrupt, 'a number that is larger than any');
  const seen: number[] = [];
  scanRecords(bytes, 0, bytes.byteLength, true, 10, 7, ({ lsn, timestamp }) => seen.push(lsn, timestamp) > 0);
  t.same(seen, [15, 7]);
  t.end();
});
