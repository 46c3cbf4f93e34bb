import fc from 'fast-check';
import { crc32 } from '../../src/format/checksum.js';
import { Field, FRAME_HEADER_BYTES, FRAME_MAGIC, frameBytes } from '../../src/format/frame.js';
import { repeatHeader, SEGMENT_HEADER_UNIT } from '../../src/format/segment-header.js';
import type { Image } from './memory-disk.js';

/**
 * Forgeries: bytes whose checksums were computed anew, so that what they say gets through to whoever believes a header.
 * An accident does not make them; somebody who can write to the directory does, and so does a bug of the writer.
 */
export interface Forgery {
  /** Which of the log's segment files, modulo their number. */
  file: number;
  /** 0: the segment's header; n: its nth frame, modulo their number. */
  structure: number;
  /** Which field of that structure, modulo their number. */
  field: number;
  value: bigint;
  /** What is to stand in the state or in a payload, instead of a field. */
  content: Uint8Array | undefined;
  /** Give everything behind it the checksums that follow from it, so that the chain holds. */
  relink: boolean;
}

/** Where the numbers of a segment's header stand, and their bytes. */
export const HEADER_FIELDS: readonly (readonly [number, number])[] = [
  [8, 4],
  [12, 4],
  [16, 4],
  [20, 4],
  [24, 8],
  [40, 8],
  [48, 8],
  [56, 8],
  [64, 8],
  [72, 8],
  [80, 8],
  [88, 8],
  [96, 8],
  [104, 4],
  [108, 4],
  [112, 4],
  [116, 4],
  [120, 4],
];
const FRAME_FIELDS: readonly (readonly [number, number])[] = [
  [Field.type, 1],
  [Field.flags, 1],
  [Field.codec, 1],
  [Field.encryption, 1],
  [Field.storedBytes, 4],
  [Field.rawBytes, 4],
  [Field.records, 4],
  [Field.payloadCrc, 4],
  [Field.firstLsn, 8],
  [Field.durableLsn, 8],
  [Field.timestamp, 8],
];
const STATE_AT = 128;

/** Numbers that a reader might trip over: around every border there is. */
export const hostileNumber: fc.Arbitrary<bigint> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.constantFrom(0n, 1n, 7n, 8n, 63n, 64n, 65n, 128n, 4095n, 4096n, 4097n, 8192n, 32768n, 65536n),
  },
  {
    weight: 4,
    arbitrary: fc
      .constantFrom(31n, 32n, 40n, 48n, 52n, 53n, 56n, 63n, 64n)
      .chain((bits) =>
        fc.constantFrom(-4096n, -64n, -8n, -2n, -1n, 0n, 1n).map((by) => BigInt.asUintN(64, (1n << bits) + by)),
      ),
  },
  { weight: 2, arbitrary: fc.bigInt({ min: 0n, max: 40n }) },
  { weight: 1, arbitrary: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }) },
);

/** Texts that decode to something, though not to a state: and some that do. */
export const hostileJson: fc.Arbitrary<Uint8Array> = fc
  .oneof(
    fc.json({ maxDepth: 3 }),
    fc.constantFrom(
      'null',
      '[]',
      '{"subscriptions":null}',
      '{"subscriptions":[1]}',
      '{"subscriptions":{"a":1}}',
      '{"subscriptions":{"a":{"acknowledged":-1,"level":"disk"}}}',
      '{"subscriptions":{"a":{"acknowledged":1e300,"level":"disk"}}}',
      '{"subscriptions":{"a":{"acknowledged":1,"level":{}}}}',
      '{"subscriptions":{"__proto__":{"acknowledged":1,"level":"os"}}}',
      '{"__proto__":{"low":5}}',
      '{"checkpoint":-1}',
      '{"low":0}',
      '{"low":9007199254740991}',
      '{"checkpoint":9007199254740991}',
      '{"a":true,"b":"x","c":[],"d":-5,"e":1.5}',
      `{"x":${'['.repeat(1500)}${']'.repeat(1500)}}`,
      '{"x"',
      '',
    ),
  )
  .map((text) => new TextEncoder().encode(text));

export const forgery: fc.Arbitrary<Forgery> = fc.record({
  file: fc.nat(5),
  structure: fc.oneof(fc.constant(0), fc.nat(12)),
  field: fc.nat(40),
  value: hostileNumber,
  content: fc.option(hostileJson, { nil: undefined, freq: 4 }),
  relink: fc.boolean(),
});

/** The forged log; a new image. */
export function forge(
  image: Image,
  { file, structure, field, value, content, relink }: Forgery,
): Map<string, Uint8Array> {
  const forged = new Map([...image].map(([name, bytes]) => [name, Uint8Array.from(bytes)]));
  const names = segmentsOf(forged);
  if (names.length === 0) return forged;
  const name = names[file % names.length];
  const bytes = forged.get(name)!;
  const frames = frameOffsets(bytes);
  if (bytes.byteLength < STATE_AT) return forged;
  if (structure === 0 || frames.length === 0) forgeHeader(bytes, field, value, content);
  else forgeFrame(bytes, frames[structure % frames.length], field, value, content);
  if (relink) relinkAll(forged);
  return forged;
}

export function segmentsOf(image: Image): string[] {
  return [...image.keys()].filter((name) => /^\d+\.wal$/.test(name)).sort();
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function put(view: DataView, at: number, width: number, value: bigint): void {
  if (width === 8) view.setBigUint64(at, BigInt.asUintN(64, value), true);
  else if (width === 4) view.setUint32(at, Number(BigInt.asUintN(32, value)), true);
  else view.setUint8(at, Number(BigInt.asUintN(8, value)));
}

function forgeHeader(bytes: Uint8Array, field: number, value: bigint, content: Uint8Array | undefined): void {
  const view = viewOf(bytes);
  if (content !== undefined && STATE_AT + content.byteLength <= Math.min(SEGMENT_HEADER_UNIT / 2, bytes.byteLength)) {
    bytes.fill(0, STATE_AT, Math.min(SEGMENT_HEADER_UNIT / 2, bytes.byteLength));
    bytes.set(content, STATE_AT);
    view.setUint32(112, content.byteLength, true);
    view.setUint32(116, crc32(content), true);
  } else {
    const [at, width] = HEADER_FIELDS[field % HEADER_FIELDS.length];
    put(view, at, width, value);
  }
  sealHeader(bytes);
}

function sealHeader(bytes: Uint8Array): void {
  viewOf(bytes).setUint32(124, crc32(bytes.subarray(0, 124)), true);
  if (bytes.byteLength >= SEGMENT_HEADER_UNIT) repeatHeader(bytes.subarray(0, SEGMENT_HEADER_UNIT));
}

function sealFrame(bytes: Uint8Array, at: number): void {
  viewOf(bytes).setUint32(at + Field.headerCrc, crc32(bytes.subarray(at, at + Field.headerCrc)), true);
}

function forgeFrame(
  bytes: Uint8Array,
  at: number,
  field: number,
  value: bigint,
  content: Uint8Array | undefined,
): void {
  const view = viewOf(bytes);
  const from = at + FRAME_HEADER_BYTES;
  const room = view.getUint32(at + Field.storedBytes, true);
  const payload = bytes.subarray(from, Math.min(from + room, bytes.byteLength));
  if (content !== undefined && content.byteLength <= payload.byteLength) {
    // Spaces are nothing to JSON, and something else to records.
    payload.fill(0x20);
    payload.set(content);
    view.setUint32(at + Field.payloadCrc, crc32(payload), true);
  } else if (field % (FRAME_FIELDS.length + 1) === FRAME_FIELDS.length && payload.byteLength >= 8) {
    // The first numbers of a payload: a record's length, or the lengths in a seal.
    put(viewOf(payload), Number(value % 2n) * 4, 4, value);
    view.setUint32(at + Field.payloadCrc, crc32(payload), true);
  } else {
    const [offset, width] = FRAME_FIELDS[field % FRAME_FIELDS.length];
    put(view, at + offset, width, value);
  }
  sealFrame(bytes, at);
}

/** Where frames begin, by their magic alone. */
export function frameOffsets(bytes: Uint8Array): number[] {
  const view = viewOf(bytes);
  const offsets: number[] = [];
  for (let at = SEGMENT_HEADER_UNIT; at + FRAME_HEADER_BYTES <= bytes.byteLength; at += 8) {
    if (view.getUint32(at, true) === FRAME_MAGIC) offsets.push(at);
  }
  return offsets;
}

/** Makes every checksum that repeats another one what it should be, from the first segment to the last. */
function relinkAll(image: Map<string, Uint8Array>): void {
  let before: { id: bigint; crc: number } | undefined;
  for (const name of segmentsOf(image)) {
    const bytes = image.get(name)!;
    if (bytes.byteLength < SEGMENT_HEADER_UNIT) continue;
    const view = viewOf(bytes);
    if (before !== undefined && view.getBigUint64(80, true) === before.id) view.setUint32(104, before.crc, true);
    sealHeader(bytes);
    before = { id: BigInt(name.slice(0, 16)), crc: relinkFrames(bytes, view) };
  }
}

function relinkFrames(bytes: Uint8Array, view: DataView): number {
  let crc = view.getUint32(124, true);
  const salt = view.getBigUint64(48, true);
  let at = Math.max(view.getUint32(12, true), 128);
  while (at + FRAME_HEADER_BYTES <= bytes.byteLength && at % 8 === 0) {
    if (view.getUint32(at, true) !== FRAME_MAGIC) break;
    view.setBigUint64(at + Field.salt, salt, true);
    view.setUint32(at + Field.previousCrc, crc, true);
    sealFrame(bytes, at);
    crc = view.getUint32(at + Field.headerCrc, true);
    at += frameBytes(view.getUint32(at + Field.storedBytes, true));
  }
  return crc;
}
