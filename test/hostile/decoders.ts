import { crc32 as zlibCrc32 } from 'node:zlib';
import fc from 'fast-check';
import { fromPlainError, toPlainError, WAL_ERROR_CODES } from '../../src/errors.js';
import { crc32 } from '../../src/format/checksum.js';
import {
  buildFrame,
  Field,
  FRAME_HEADER_BYTES,
  FRAME_MAGIC,
  FrameType,
  frameBytes,
  readFrameHeader,
} from '../../src/format/frame.js';
import { gapFrames } from '../../src/format/gap.js';
import { align8, readU64, varintBytes, writeU64, writeVarint } from '../../src/format/integers.js';
import { LEVEL_NAMES, levelNumber } from '../../src/format/levels.js';
import { decodeRecords, RecordKind, type WalRecord } from '../../src/format/record.js';
import { decodeSeal, encodeSeal, readSealFooter, SEAL_FOOTER_BYTES } from '../../src/format/seal.js';
import {
  decodeSegmentHeader,
  encodeSegmentHeader,
  FORMAT_VERSION,
  repeatHeader,
  SEGMENT_HEADER_UNIT,
  type SegmentHeader,
} from '../../src/format/segment-header.js';
import {
  decodePositions,
  decodeState,
  EMPTY_STATE,
  encodePositions,
  encodeState,
  type LogState,
  withPositions,
} from '../../src/format/state.js';
import { bodyBytes, type Entry, writeEntryAt } from '../../src/producer/records.js';
import { quarantinedIdOf, segmentIdOf, segmentName } from '../../src/segments/names.js';
import { checkFrame } from '../../src/segments/walk.js';
import { largestAllocation } from './allocations.js';
import { hostileJson, hostileNumber } from './forge.js';
import { outcomeNow } from './outcome.js';
import { must, type Property, property } from './property.js';

const MIB = 1024 * 1024;
const anyBytes = fc.uint8Array({ maxLength: 300 });
const lsn = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER - 2 ** 33 });
const u32 = fc.integer({ min: 0, max: 0xffffffff });
const salt = fc.record({ low: u32, high: u32 });

const entry: fc.Arbitrary<Entry> = fc.oneof(
  anyBytes.map((value) => ({ kind: RecordKind.Data, key: undefined, value })),
  fc.tuple(anyBytes, anyBytes).map(([key, value]) => ({ kind: RecordKind.Put, key, value })),
  anyBytes.map((key) => ({ kind: RecordKind.Delete, key, value: undefined })),
  fc.constant({ kind: RecordKind.Clear, key: undefined, value: undefined }),
);

function payloadOf(entries: readonly Entry[]): Buffer {
  const target = Buffer.alloc(entries.reduce((sum, one) => sum + bodyBytes(one) + 10, 0));
  let at = 0;
  for (const one of entries) at = writeEntryAt(target, at, one, bodyBytes(one));
  return target.subarray(0, at);
}

const sameBytes = (a: Uint8Array | string | undefined, b: Uint8Array | undefined) =>
  Buffer.compare((a ?? new Uint8Array()) as Uint8Array, b ?? new Uint8Array()) === 0;

const level = fc.constantFrom(...LEVEL_NAMES);
const aState: fc.Arbitrary<LogState> = fc.record({
  checkpoint: fc.nat(),
  low: fc.integer({ min: 1, max: 2 ** 31 }),
  subscriptions: fc.dictionary(fc.string(), fc.record({ acknowledged: fc.nat(), level }), { maxKeys: 4 }),
});

const header: fc.Arbitrary<Omit<SegmentHeader, 'headerBytes' | 'headerCrc'>> = fc.record({
  logId: fc.uint8Array({ minLength: 16, maxLength: 16 }),
  segmentId: fc.integer({ min: 1, max: 2 ** 40 }),
  salt,
  firstLsn: lsn,
  createdAt: fc.nat(),
  segmentBytes: fc.nat(),
  previous: fc.record({ segmentId: fc.nat(), lastLsn: fc.nat(), endOffset: fc.nat(), headerCrc: u32 }),
  flags: fc.integer({ min: 0, max: 7 }),
  state: aState,
});

/** Reads from a block as from a file; counts. */
function reader(block: Uint8Array) {
  const read = (target: Uint8Array, position: number) => {
    read.calls++;
    const part = block.subarray(position, position + target.byteLength);
    target.set(part);
    return part.byteLength;
  };
  read.calls = 0;
  return read;
}

/** Also what the state of a forged log comes to is fit to be written again. */
function checkState(state: LogState): void {
  must(Number.isSafeInteger(state.checkpoint) && state.checkpoint >= 0, 'a checkpoint that is no LSN');
  must(Number.isSafeInteger(state.low) && state.low >= 1, 'a low that is no LSN');
  for (const { acknowledged, level: name } of Object.values(state.subscriptions)) {
    must(Number.isSafeInteger(acknowledged) && acknowledged >= 0, 'a position that is no LSN');
    must(levelNumber(name) >= 0, 'a level that is none');
  }
  must(outcomeNow(() => decodeState(encodeState(state))).ok, 'a state that cannot be written again');
}

export const decoders: Property[] = [
  property(
    'integers: what was written is read back',
    300,
    fc.tuple(fc.maxSafeNat(), fc.nat(0x7fffffff)),
    ([big, small]) => {
      const view = new DataView(new ArrayBuffer(8));
      writeU64(view, 0, big);
      must(readU64(view, 0) === big, 'a 64-bit number changed');
      const bytes = new Uint8Array(8);
      must(writeVarint(bytes, 0, small) === varintBytes(small), 'a varint of another length');
      must(align8(small) % 8 === 0 && align8(small) - small < 8 && align8(small) >= small, 'not aligned');
    },
  ),

  property(
    'a checksum is that of zlib, in one piece or in two',
    200,
    fc.tuple(fc.uint8Array({ maxLength: 2000 }), fc.nat()),
    ([bytes, at]) => {
      const cut = at % (bytes.byteLength + 1);
      must(crc32(bytes) === zlibCrc32(bytes), 'not the CRC-32 of zlib');
      must(crc32(bytes.subarray(cut), crc32(bytes.subarray(0, cut))) === crc32(bytes), 'not the same in two pieces');
    },
  ),

  property('levels: only the names of levels are levels', 200, fc.anything(), (value) => {
    const number = levelNumber(value);
    must(number === -1 ? !LEVEL_NAMES.includes(value as never) : LEVEL_NAMES[number] === value, 'not a level');
  }),

  property(
    'names: a segment has one name, and no other name is a segment',
    300,
    fc.oneof(fc.string(), fc.stringMatching(/^\d{14,17}\.wal$/), fc.nat().map(segmentName)),
    (name) => {
      const id = segmentIdOf(name);
      must(
        id === undefined || (Number.isSafeInteger(id) && segmentName(id) === name),
        `${name} is taken for segment ${id}`,
      );
      const quarantined = quarantinedIdOf(`${name}@0`);
      must(quarantined === undefined || Number.isSafeInteger(quarantined), 'a quarantined id that is none');
    },
  ),

  property(
    'records: what was written is read back, and of it what was asked for',
    300,
    fc.tuple(fc.array(entry, { minLength: 1, maxLength: 12 }), lsn, fc.nat(14), fc.nat(14)),
    ([entries, first, skip, take]) => {
      const bytes = payloadOf(entries);
      const from = first + skip;
      const into: WalRecord[] = [];
      decodeRecords(bytes, 0, bytes.byteLength, entries.length, first, 5, from, from + take, into);
      const wanted = entries.slice(skip, skip + take + 1);
      must(into.length === wanted.length, 'another number of records');
      for (const [i, record] of into.entries()) {
        must(
          record.lsn === from + i && record.kind === ['data', 'put', 'del', 'clear'][wanted[i].kind],
          'another record',
        );
        must(sameBytes(wanted[i].value, record.payload) && sameBytes(wanted[i].key, record.key), 'other bytes');
      }
    },
  ),

  property(
    'records: bytes that are none are ERR_WAL_CORRUPT, and no record reaches outside of them',
    600,
    fc.tuple(
      fc.oneof(
        anyBytes,
        fc.tuple(fc.array(entry, { maxLength: 6 }), fc.nat(), fc.nat(255)).map(([entries, at, byte]) => {
          const bytes = payloadOf(entries);
          if (bytes.byteLength > 0) bytes[at % bytes.byteLength] = byte;
          return bytes;
        }),
      ),
      fc.oneof(fc.nat(8), u32),
      lsn,
    ),
    ([bytes, count, first]) => {
      const framed = Buffer.concat([Buffer.alloc(8, 0xff), bytes, Buffer.alloc(8, 0xff)]);
      const into: WalRecord[] = [];
      const done = outcomeNow(() =>
        decodeRecords(framed, 8, 8 + bytes.byteLength, count, first, 0, 0, Number.MAX_SAFE_INTEGER, into),
      );
      must(into.length <= Math.min(count, bytes.byteLength), 'more records than there are bytes');
      must(!done.ok || into.length === count, 'fewer records than the frame says, without an error');
      must(
        done.ok || (done.error.code === 'ERR_WAL_CORRUPT' && done.error.lsn === first + into.length),
        'not said where',
      );
      const [least, most] = [framed.byteOffset + 8, framed.byteOffset + 8 + bytes.byteLength];
      for (const view of into.flatMap(({ payload, key }) => [payload, ...(key ? [key] : [])])) {
        const inside = view.byteLength === 0 || (view.byteOffset >= least && view.byteOffset + view.byteLength <= most);
        must(inside, 'a record reaches outside of its frame');
      }
    },
  ),

  property(
    'frames: any change of one is noticed, in its header or in its payload',
    400,
    fc.tuple(anyBytes, lsn, salt, fc.nat(), fc.nat(7)),
    ([payload, first, theSalt, at, bit]) => {
      const { bytes, headerCrc } = buildFrame(FrameType.Records, payload, first, first - 1, theSalt, 7, 9);
      const expected = { salt: theSalt, lsn: first, previousCrc: 9 };
      const look = () => checkFrame(bytes, new DataView(bytes.buffer), 0, bytes.byteLength, bytes.byteLength, expected);
      const found = look();
      must(typeof found === 'object' && found.headerCrc === headerCrc, 'a whole frame does not hold');
      bytes[at % (FRAME_HEADER_BYTES + payload.byteLength)] ^= 1 << bit;
      must(look() === undefined, 'a changed frame holds');
    },
  ),

  property(
    'frames: random bytes are none',
    300,
    fc.tuple(fc.uint8Array({ minLength: 0, maxLength: 200 }), salt, fc.boolean()),
    ([bytes, theSalt, dressed]) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      if (dressed && bytes.byteLength >= FRAME_HEADER_BYTES) {
        view.setUint32(0, FRAME_MAGIC, true);
        view.setUint32(Field.salt, theSalt.low, true);
        view.setUint32(Field.salt + 4, theSalt.high, true);
      }
      for (let at = 0; at <= bytes.byteLength; at += 8) {
        must(readFrameHeader(view, bytes, at, theSalt) === undefined, 'random bytes are taken for a frame');
      }
    },
  ),

  property(
    'frames: lengths that lie ask for no byte behind the end of the file, and never for too few',
    500,
    fc.tuple(
      anyBytes,
      fc.constantFrom(
        Field.storedBytes,
        Field.rawBytes,
        Field.records,
        Field.firstLsn,
        Field.durableLsn,
        Field.timestamp,
      ),
      hostileNumber,
      fc.nat(400),
    ),
    ([payload, field, value, behind]) => {
      const theSalt = { low: 1, high: 2 };
      const { bytes } = buildFrame(FrameType.Records, payload, 5, 4, theSalt, 7, 9);
      const view = new DataView(bytes.buffer);
      if (field >= Field.firstLsn) view.setBigUint64(field, value, true);
      else view.setUint32(field, Number(BigInt.asUintN(32, value)), true);
      view.setUint32(Field.headerCrc, crc32(bytes.subarray(0, Field.headerCrc)), true);
      const fileEnd = bytes.byteLength + behind;
      const expected = { salt: theSalt, lsn: readU64(view, Field.firstLsn), previousCrc: 9 };
      const found = checkFrame(bytes, view, 0, bytes.byteLength, fileEnd, expected);
      if (typeof found === 'number') must(found > bytes.byteLength && found <= fileEnd, `asks for ${found} bytes`);
      if (typeof found !== 'object') return;
      must(frameBytes(found.storedBytes) <= bytes.byteLength, 'a frame that reaches behind its bytes');
      for (const number of [found.firstLsn, found.durableLsn, found.timestamp, found.firstLsn + found.records]) {
        must(Number.isSafeInteger(number), `${number} is not a whole number any more`);
      }
    },
  ),

  property(
    'segment headers: what was written is read back, in two reads at the most and one look at the end',
    200,
    header,
    async (wanted) => {
      const { bytes, headerCrc } = encodeSegmentHeader(wanted);
      const read = reader(bytes);
      const found = decodeSegmentHeader('a.wal', read);
      must(
        read.calls <= 3 && found.headerCrc === headerCrc && found.headerBytes === bytes.byteLength,
        'another header',
      );
      must(JSON.stringify(found.state) === JSON.stringify(wanted.state), 'another state');
      must(found.firstLsn === wanted.firstLsn && found.segmentId === wanted.segmentId, 'other numbers');
      must(sameBytes(wanted.logId, found.logId) && found.salt.low === wanted.salt.low, 'another identity');
    },
  ),

  property(
    'segment headers: random and changed bytes are ERR_WAL_CORRUPT, and ask for no memory',
    400,
    fc.tuple(header, fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.boolean()),
    async ([wanted, at, noise, random]) => {
      const { bytes } = encodeSegmentHeader(wanted);
      const place = at % 124;
      const damaged = random ? noise : bytes;
      const before = Buffer.from(bytes);
      if (!random) bytes.set(noise.subarray(0, 128 - place), place);
      if (!random && before.equals(bytes)) return;
      const { largest, result } = await largestAllocation(() =>
        outcomeNow(() => decodeSegmentHeader('a.wal', reader(damaged))),
      );
      must(
        !result.ok && result.error.code === 'ERR_WAL_CORRUPT' && result.error.segment === 'a.wal',
        'taken for a header',
      );
      must(largest <= SEGMENT_HEADER_UNIT, `asked for ${largest} bytes before a checksum held`);
    },
  ),

  property(
    'segment headers: numbers that lie, their checksum right, ask for no more memory than the file has bytes',
    500,
    fc.tuple(
      header,
      fc.constantFrom(12, 40, 48, 56, 64, 72, 80, 88, 96, 104, 108, 112, 116, 120),
      hostileNumber,
      fc.option(hostileJson, { nil: undefined }),
    ),
    async ([wanted, field, value, content]) => {
      const { bytes } = encodeSegmentHeader(wanted);
      const view = new DataView(bytes.buffer);
      if (content !== undefined && content.byteLength <= bytes.byteLength / 2 - 128) {
        bytes.fill(0, 128);
        bytes.set(content, 128);
        view.setUint32(112, content.byteLength, true);
        view.setUint32(116, crc32(content), true);
      } else if ([12, 104, 108, 112, 116, 120].includes(field)) {
        view.setUint32(field, Number(BigInt.asUintN(32, value)), true);
      } else {
        view.setBigUint64(field, value, true);
      }
      view.setUint32(124, crc32(bytes.subarray(0, 124)), true);
      repeatHeader(bytes);
      const { largest, result } = await largestAllocation(() =>
        outcomeNow(() => decodeSegmentHeader('a.wal', reader(bytes))),
      );
      must(largest <= bytes.byteLength + SEGMENT_HEADER_UNIT, `asked for ${largest} bytes`);
      if (!result.ok) return must(result.error.code === 'ERR_WAL_CORRUPT', `${result.error.code}`);
      const { segmentId, firstLsn, createdAt, segmentBytes, previous, headerBytes, state } = result.value;
      const numbers = [
        segmentId,
        firstLsn,
        createdAt,
        segmentBytes,
        previous.segmentId,
        previous.lastLsn,
        previous.endOffset,
      ];
      must(numbers.every(Number.isSafeInteger), 'a number that is none any more');
      must(headerBytes % SEGMENT_HEADER_UNIT === 0 && headerBytes <= bytes.byteLength, 'a size that cannot be');
      checkState(state);
    },
  ),

  property(
    'segment headers: a later version, or a feature that is not known, is ERR_WAL_VERSION; a compatible one is ignored',
    200,
    fc.tuple(
      header,
      u32,
      fc.integer({ min: FORMAT_VERSION + 1, max: 0xffffffff }),
      fc.constantFrom('version', 'incompatible', 'compatible'),
    ),
    ([wanted, bits, version, kind]) => {
      const { bytes } = encodeSegmentHeader(wanted);
      const view = new DataView(bytes.buffer);
      if (kind === 'version') view.setUint32(8, version, true);
      // The highest bits: the last that a version will use.
      if (kind === 'incompatible') view.setUint32(20, (bits | 0x80000000) >>> 0, true);
      if (kind === 'compatible') view.setUint32(16, bits, true);
      // What a later version keeps behind the first 128 bytes, nobody knows.
      if (kind !== 'compatible') bytes.fill(0xaa, 128);
      view.setUint32(124, crc32(bytes.subarray(0, 124)), true);
      repeatHeader(bytes);
      const found = outcomeNow(() => decodeSegmentHeader('a.wal', reader(bytes)));
      if (kind === 'compatible') return must(found.ok, 'a compatible feature is refused');
      must(!found.ok && found.error.code === 'ERR_WAL_VERSION', 'a later version is not told');
    },
  ),

  property(
    'states: what was written is read back, and what is none is ERR_WAL_CORRUPT',
    400,
    fc.tuple(aState, fc.oneof(hostileJson, anyBytes)),
    ([state, bytes]) => {
      const back = decodeState(encodeState(state));
      must(Buffer.compare(encodeState(back), encodeState(state)) === 0, 'another state');
      const found = outcomeNow(() => decodeState(bytes));
      if (found.ok) checkState(found.value);
      else must(found.error.code === 'ERR_WAL_CORRUPT', found.error.code);
    },
  ),

  property(
    'positions: what is none is ERR_WAL_CORRUPT, and what they make of a state is one',
    400,
    fc.tuple(
      aState,
      fc.oneof(
        hostileJson,
        anyBytes,
        fc
          .dictionary(fc.string(), fc.oneof(fc.nat(), fc.constant(null), fc.record({ acknowledged: fc.nat(), level })))
          .map((given) => encodePositions(given)),
      ),
    ),
    ([state, bytes]) => {
      const found = outcomeNow(() => decodePositions(bytes));
      if (!found.ok) return must(found.error.code === 'ERR_WAL_CORRUPT', found.error.code);
      checkState(withPositions(state, found.value));
    },
  ),

  property(
    'seals: what was written is read back, footer included',
    200,
    fc.tuple(
      aState,
      fc.array(fc.record({ offset: fc.nat(), firstLsn: lsn, timestamp: fc.nat() }), { maxLength: 20 }),
      fc.nat(1000),
    ),
    ([state, index, at]) => {
      const payload = encodeSeal({ state, index }, at * 8);
      const seal = decodeSeal(payload);
      must(JSON.stringify(seal.index) === JSON.stringify(index), 'another index');
      const footer = payload.subarray(payload.byteLength - SEAL_FOOTER_BYTES);
      must(readSealFooter(footer, at * 8 + FRAME_HEADER_BYTES) === at * 8, 'another offset');
    },
  ),

  property(
    'seals: bytes that are none are ERR_WAL_CORRUPT, whatever lengths they state',
    500,
    fc.tuple(
      fc.oneof(
        anyBytes,
        fc.tuple(aState, hostileNumber, hostileNumber, fc.boolean()).map(([state, a, b, both]) => {
          const payload = encodeSeal({ state, index: [{ offset: 4096, firstLsn: 1, timestamp: 1 }] }, 8192);
          const view = new DataView(payload.buffer);
          view.setUint32(0, Number(BigInt.asUintN(32, a)), true);
          if (both) view.setUint32(4, Number(BigInt.asUintN(32, b)), true);
          return payload;
        }),
      ),
      u32,
    ),
    async ([payload, fileBytes]) => {
      const { largest, result } = await largestAllocation(() => outcomeNow(() => decodeSeal(payload)));
      must(largest <= MIB, `asked for ${largest} bytes`);
      if (result.ok) checkState(result.value.state);
      else must(result.error.code === 'ERR_WAL_CORRUPT', result.error.code);
      const footer = Buffer.concat([payload, Buffer.alloc(SEAL_FOOTER_BYTES)]).subarray(0, SEAL_FOOTER_BYTES);
      const offset = readSealFooter(footer, fileBytes);
      must(
        offset === undefined || (offset % 8 === 0 && offset + FRAME_HEADER_BYTES <= fileBytes),
        'a seal outside of the file',
      );
    },
  ),

  property(
    'gaps: the frames of a gap fill it, hold, and end in the checksum that is expected behind them',
    60,
    fc.tuple(fc.integer({ min: 8, max: 400_000 }), fc.nat(1000), lsn, salt, u32, fc.option(u32, { nil: undefined })),
    ([words, records, first, theSalt, previousCrc, endCrc]) => {
      const [from, to] = [4096, 4096 + words * 8];
      const { pieces, headerCrc } = gapFrames({
        from,
        to,
        firstLsn: first,
        records,
        salt: theSalt,
        timestamp: 3,
        previousCrc,
        endCrc,
      });
      const file = Buffer.alloc(to);
      for (const { at, bytes } of pieces) file.set(bytes, at);
      const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
      const expected = { salt: theSalt, lsn: first, previousCrc };
      let at = from;
      for (const _ of pieces) {
        const frame = checkFrame(file, view, at, to, to, expected);
        must(typeof frame === 'object' && frame.type === FrameType.Gap, 'a frame of a gap does not hold');
        at += frameBytes(frame.storedBytes);
        expected.lsn += frame.records;
        expected.previousCrc = frame.headerCrc;
      }
      must(at === to && expected.lsn === first + records, 'it does not fill the gap');
      must(expected.previousCrc === headerCrc && (endCrc === undefined || headerCrc === endCrc), 'another checksum');
    },
  ),

  property(
    'errors: whatever was thrown travels between threads as plain data and comes back as a WalError',
    300,
    fc.tuple(fc.anything(), fc.constantFrom(...WAL_ERROR_CODES)),
    ([thrown, code]) => {
      const plain = toPlainError(thrown, code);
      const back = fromPlainError(structuredClone(plain));
      must(back.code === code, 'another code');
    },
  ),

  property(
    'a state that positions were added to keeps the names that are special to JavaScript',
    50,
    fc.constantFrom('__proto__', 'constructor', 'toString', 'hasOwnProperty'),
    (name) => {
      const given = Object.fromEntries([[name, { acknowledged: 3, level: 'disk' as const }]]);
      const state = withPositions(EMPTY_STATE, decodePositions(encodePositions(given)));
      const back = decodeState(encodeState(state));
      must(
        Object.hasOwn(back.subscriptions, name) && ({} as { acknowledged?: number }).acknowledged === undefined,
        name,
      );
      must(withPositions(back, Object.fromEntries([[name, 4]])).subscriptions[name].acknowledged === 4, 'not moved');
      must(
        !Object.hasOwn(withPositions(back, Object.fromEntries([[name, null]])).subscriptions, name),
        'not forgotten',
      );
    },
  ),
];
