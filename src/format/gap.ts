import { crc32 } from './checksum.js';
import {
  Field,
  FRAME_HEADER_BYTES,
  FRAME_MAGIC,
  FrameType,
  HeaderFlag,
  type Salt,
  writeSequencerFields,
} from './frame.js';
import { repeatHeader, SEGMENT_PRELUDE_BYTES } from './segment-header.js';

/**
 * Gap frames take the place of frames that were lost, byte for byte: what follows them is not moved and not changed.
 * The frame behind repeats the header checksum of a frame that is gone, so the last gap is given that very checksum:
 * a CRC is linear, and four free bytes (raw bytes, which mean nothing in a frame without content) bring about any value.
 */

/** No gap is larger, so that no reader needs much memory to step over one. */
const MOST_GAP_BYTES = 1024 * 1024;
/** Where a segment header has four bytes to spare. */
const HEADER_RESERVED_AT = 120;

export interface Gap {
  /** Of the region to fill: multiples of 8, at least a frame header apart. */
  from: number;
  to: number;
  firstLsn: number;
  /** LSNs that are lost; may be 0. */
  records: number;
  salt: Salt;
  timestamp: number;
  previousCrc: number;
  /** The checksum that what follows expects; undefined when nothing does. */
  endCrc: number | undefined;
}

/** Bytes at their place in a file. */
export interface Piece {
  at: number;
  bytes: Uint8Array;
}

/** The headers of the frames that fill a gap (all of their content is zeros), and the last one's checksum. */
export function gapFrames(gap: Gap): { pieces: Piece[]; headerCrc: number } {
  const pieces: Piece[] = [];
  let { records, firstLsn, previousCrc } = gap;
  for (let at = gap.from; at < gap.to; ) {
    const left = gap.to - at;
    // What is left over must be able to hold a frame of its own.
    const bytes = left <= MOST_GAP_BYTES ? left : Math.min(MOST_GAP_BYTES, left - FRAME_HEADER_BYTES);
    const last = bytes === left;
    const frame = gapFrame({ ...gap, records, firstLsn, previousCrc }, bytes - FRAME_HEADER_BYTES);
    if (last && gap.endCrc !== undefined) giveChecksum(frame, Field.headerCrc, Field.rawBytes, gap.endCrc);
    previousCrc = new DataView(frame.buffer).getUint32(Field.headerCrc, true);
    pieces.push({ at, bytes: frame });
    // The first one stands for all that is lost.
    firstLsn += records;
    records = 0;
    at += bytes;
  }
  return { pieces, headerCrc: previousCrc };
}

function gapFrame(gap: Gap, storedBytes: number): Uint8Array {
  const frame = new Uint8Array(FRAME_HEADER_BYTES);
  const view = new DataView(frame.buffer);
  view.setUint32(Field.magic, FRAME_MAGIC, true);
  view.setUint8(Field.type, FrameType.Gap);
  view.setUint32(Field.storedBytes, storedBytes, true);
  view.setUint32(Field.records, gap.records, true);
  view.setUint32(Field.payloadCrc, crc32(new Uint8Array(storedBytes)), true);
  const { firstLsn, salt, timestamp, previousCrc } = gap;
  const flags = HeaderFlag.PrefixDurable;
  writeSequencerFields(view, frame, 0, firstLsn, firstLsn - 1, salt, timestamp, previousCrc, flags);
  return frame;
}

/** Gives a segment header that is made anew the checksum that its first frame repeats. */
export function giveHeaderChecksum(block: Uint8Array, wanted: number): void {
  giveChecksum(block, SEGMENT_PRELUDE_BYTES - 4, HEADER_RESERVED_AT, wanted);
  repeatHeader(block);
}

/** Sets the four bytes at `free` so that the CRC of `bytes[0, crcAt)` is `wanted`, and stores it at `crcAt`. */
function giveChecksum(bytes: Uint8Array, crcAt: number, free: number, wanted: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const crcWith = (value: number) => {
    view.setUint32(free, value, true);
    return crc32(bytes.subarray(0, crcAt));
  };
  const base = crcWith(0);
  view.setUint32(
    free,
    solve((bit) => (crcWith((1 << bit) >>> 0) ^ base) >>> 0, (wanted ^ base) >>> 0),
    true,
  );
  view.setUint32(crcAt, wanted, true);
}

/** The set of bits whose effects, taken together by exclusive or, are `target`: Gauss's elimination. */
function solve(effectOf: (bit: number) => number, target: number): number {
  /** By the highest bit of the effect. */
  const rows: { effect: number; bits: number }[] = [];
  const reduce = (effect: number, bits: number) => {
    while (effect !== 0) {
      const row = rows[Math.clz32(effect)];
      if (row === undefined) break;
      effect = (effect ^ row.effect) >>> 0;
      bits = (bits ^ row.bits) >>> 0;
    }
    return { effect, bits };
  };
  for (let bit = 0; bit < 32; bit++) {
    const row = reduce(effectOf(bit), (1 << bit) >>> 0);
    rows[Math.clz32(row.effect)] = row;
  }
  return reduce(target, 0).bits;
}
