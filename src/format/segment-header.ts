import { corrupt, WalError } from '../errors.js';
import { crc32 } from './checksum.js';
import type { Salt } from './frame.js';
import { readU64, writeU64 } from './integers.js';
import { decodeState, encodeState, type LogState } from './state.js';

/**
 * The first block of every segment. It stands there twice, one half of the block behind the other, byte for byte the same: what
 * it says (that something was cut off, how far the log was cleaned up) nobody else may say, and one damaged place must not
 * take it. Of each half:
 *
 *   0          8         12       16            20              24      40          48    56
 *   |"RINGWAL\0"|version |bytes   |compat. bits |incompat. bits |log id |segment id |salt |first LSN|
 *   64         72             80          88              96              104           108   112
 *   |created ms|segment bytes |previous id|previous last LSN|previous end |previous CRC |flags|
 *   112         116       120      124        128
 *   |state bytes|state CRC|reserved|header CRC| state ... zeros up to the middle of the block
 *
 * "previous end" and "previous CRC" are where the predecessor's frames end and the checksum of its last frame's
 * header. So a predecessor that lost its tail, or came back from the dead, is noticed without reading it.
 * Every later version keeps bytes 0 to 128 where they are, so that an old reader can tell "newer" from "damaged".
 */
/** The smallest block. A larger one is this size times a power of two, so that its second half is found without the first. */
export const SEGMENT_HEADER_UNIT = 8192;
export const SEGMENT_PRELUDE_BYTES = 128;
export const FORMAT_VERSION = 1;
const MAGIC = [0x52, 0x49, 0x4e, 0x47, 0x57, 0x41, 0x4c, 0x00];
/** Bits of the incompatible features: a version that does not know one must not read on. */
const IncompatibleBit = {
  /** Frames of type `Sparse`, which an older version would step over in silence. */
  Compacted: 8,
} as const;
const KNOWN_INCOMPATIBLE_BITS = IncompatibleBit.Compacted;
/** No header is larger. Whatever claims to be is a forgery, and no memory is set aside for it. */
export const MAX_HEADER_BYTES = 256 * 1024 * 1024;

/** Of the 64-bit numbers in it. */
const FIRST_LSN_AT = 56;
const LARGE_NUMBERS_AT = [40, FIRST_LSN_AT, 64, 72, 80, 88, 96];

export const SegmentFlag = {
  /** The file held another segment before: bytes behind the last frame may be that one's. */
  Recycled: 1,
  /** Records of earlier segments at or above this one's first LSN are void (`truncateAfter`). */
  Truncates: 2,
  /** The file was not prepared: it grows as it is written, so that its size says nothing before it is sealed. */
  Growing: 4,
  /**
   * Compaction put this file in the place of segments: of the one with this id, and of those between its predecessor and
   * that. What the successor says of the end is about the old file; this one ends where its seal does.
   */
  Compacted: 8,
} as const;

export interface Predecessor {
  segmentId: number;
  lastLsn: number;
  endOffset: number;
  headerCrc: number;
}

export interface SegmentHeader {
  logId: Uint8Array;
  segmentId: number;
  salt: Salt;
  firstLsn: number;
  createdAt: number;
  segmentBytes: number;
  /** segmentId 0: there is none. */
  previous: Predecessor;
  flags: number;
  state: LogState;
  /** Of a compacted segment: how many records are in it. */
  records?: number;
  /** Where the first frame starts. */
  headerBytes: number;
  headerCrc: number;
}

/** `least`: the size of the block, when it must be larger than the state needs. */
export function encodeSegmentHeader(
  header: Omit<SegmentHeader, 'headerBytes' | 'headerCrc'>,
  least = 0,
): { bytes: Uint8Array; headerCrc: number } {
  const state = encodeStateOf(header);
  const bytes = new Uint8Array(Math.max(segmentHeaderBytes(state.byteLength), least));
  const view = new DataView(bytes.buffer);
  bytes.set(MAGIC);
  view.setUint32(8, FORMAT_VERSION, true);
  view.setUint32(12, bytes.byteLength, true);
  if ((header.flags & SegmentFlag.Compacted) !== 0) view.setUint32(20, IncompatibleBit.Compacted, true);
  bytes.set(header.logId, 24);
  writeU64(view, 40, header.segmentId);
  view.setUint32(48, header.salt.low, true);
  view.setUint32(52, header.salt.high, true);
  writeU64(view, 56, header.firstLsn);
  writeU64(view, 64, header.createdAt);
  writeU64(view, 72, header.segmentBytes);
  writeU64(view, 80, header.previous.segmentId);
  writeU64(view, 88, header.previous.lastLsn);
  writeU64(view, 96, header.previous.endOffset);
  view.setUint32(104, header.previous.headerCrc, true);
  view.setUint32(108, header.flags, true);
  view.setUint32(112, state.byteLength, true);
  view.setUint32(116, crc32(state), true);
  const headerCrc = crc32(bytes.subarray(0, 124));
  view.setUint32(124, headerCrc, true);
  bytes.set(state, SEGMENT_PRELUDE_BYTES);
  repeatHeader(bytes);
  return { bytes, headerCrc };
}

/** Makes the second half of a header block what the first is. */
export function repeatHeader(block: Uint8Array): void {
  block.copyWithin(block.byteLength / 2, 0, block.byteLength / 2);
}

/** Bytes of a header block that carries `stateBytes` of state. */
export function segmentHeaderBytes(stateBytes: number): number {
  let bytes = SEGMENT_HEADER_UNIT;
  while (bytes / 2 < SEGMENT_PRELUDE_BYTES + stateBytes) bytes *= 2;
  return bytes;
}

/** The largest header block that has room before `offset`, where there is room for one. */
export function headerBytesUpTo(offset: number): number {
  let bytes = SEGMENT_HEADER_UNIT;
  while (bytes * 2 <= Math.min(offset, MAX_HEADER_BYTES)) bytes *= 2;
  return bytes;
}

/** Reads a header through `read(target, position)`, which returns how many bytes it got. Three reads at the most. */
export function decodeSegmentHeader(
  name: string,
  read: (target: Uint8Array, position: number) => number,
): SegmentHeader {
  const unit = new Uint8Array(SEGMENT_HEADER_UNIT);
  const block = unit.subarray(0, read(unit, 0));
  const prelude = decodePrelude(name, block);
  if (prelude.headerBytes <= unit.byteLength) return decodeHeaderState(name, prelude, block);
  // A file that is too short for what its header states gets no memory for it.
  if (read(new Uint8Array(1), prelude.headerBytes - 1) === 0) throw tooShort(name);
  const whole = new Uint8Array(prelude.headerBytes);
  return decodeHeaderState(name, prelude, whole.subarray(0, read(whole, 0)));
}

export type SegmentPrelude = Omit<SegmentHeader, 'state'> & { stateBytes: number; stateCrc: number };

/** The rest of the header. `block`: the first `headerBytes` bytes of the file. */
export function decodeHeaderState(name: string, prelude: SegmentPrelude, block: Uint8Array): SegmentHeader {
  const { stateBytes, stateCrc, ...header } = prelude;
  if (block.byteLength < header.headerBytes) throw tooShort(name);
  const end = SEGMENT_PRELUDE_BYTES + stateBytes;
  const state = block.subarray(SEGMENT_PRELUDE_BYTES, end);
  if (crc32(state) !== stateCrc) throw damaged(name, 'has a header whose state does not match its checksum');
  // A loop: a log of many segments checks this for each of them when it is opened.
  const half = header.headerBytes / 2;
  for (let i = end; i < half; i++) {
    if (block[i] !== 0) throw damaged(name, 'has something behind its header where zeros belong');
  }
  if (Buffer.compare(block.subarray(0, half), block.subarray(half, header.headerBytes)) !== 0) {
    throw damaged(name, 'has a header whose two copies are not the same');
  }
  return { ...header, ...decodeStateOf(state) };
}

/** The state as a segment header has it. */
export function encodeStateOf({ state, records }: Pick<SegmentHeader, 'state' | 'records'>): Uint8Array {
  return encodeState(records === undefined ? state : ({ ...state, records } as LogState));
}

export function decodeStateOf(bytes: Uint8Array): Pick<SegmentHeader, 'state' | 'records'> {
  const { records, ...state } = decodeState(bytes) as LogState & { records?: number };
  return Number.isSafeInteger(records) ? { state, records } : { state };
}

/** The first 128 bytes. Nothing in them is used, and nothing allocated for it, before their checksum held. */
export function decodePrelude(name: string, block: Uint8Array): SegmentPrelude {
  if (block.byteLength < SEGMENT_PRELUDE_BYTES) throw damaged(name, 'is shorter than a segment header');
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  const headerCrc = view.getUint32(124, true);
  if (MAGIC.some((byte, i) => block[i] !== byte)) throw damaged(name, 'does not start like a segment of ringwal');
  if (crc32(block.subarray(0, 124)) !== headerCrc) throw damaged(name, 'has a header that does not match its checksum');
  const version = view.getUint32(8, true);
  const unknownBits = view.getUint32(20, true) & ~KNOWN_INCOMPATIBLE_BITS;
  if (version > FORMAT_VERSION || unknownBits !== 0) {
    throw new WalError(
      'ERR_WAL_VERSION',
      `${name} was written by a newer ringwal (format ${version}, feature bits ${unknownBits}); this one reads format ` +
        `${FORMAT_VERSION}. Upgrade ringwal to open this log; nothing was touched.`,
    );
  }
  const headerBytes = view.getUint32(12, true);
  if (headerBytes < segmentHeaderBytes(view.getUint32(112, true)))
    throw damaged(name, 'states a header size that is too small');
  if (headerBytes > MAX_HEADER_BYTES) throw damaged(name, 'states a header size that is too large');
  if (headerBytesUpTo(headerBytes) !== headerBytes) throw damaged(name, 'states a header size that cannot be');
  for (const at of LARGE_NUMBERS_AT) {
    const least = at === FIRST_LSN_AT ? 1 : 0;
    if (!Number.isSafeInteger(readU64(view, at)) || readU64(view, at) < least)
      throw damaged(name, `states a number that cannot be, at byte ${at}`);
  }
  return {
    headerBytes,
    headerCrc,
    logId: block.slice(24, 40),
    segmentId: readU64(view, 40),
    salt: { low: view.getUint32(48, true), high: view.getUint32(52, true) },
    firstLsn: readU64(view, 56),
    createdAt: readU64(view, 64),
    segmentBytes: readU64(view, 72),
    previous: {
      segmentId: readU64(view, 80),
      lastLsn: readU64(view, 88),
      endOffset: readU64(view, 96),
      headerCrc: view.getUint32(104, true),
    },
    flags: view.getUint32(108, true),
    stateBytes: view.getUint32(112, true),
    stateCrc: view.getUint32(116, true),
  };
}

export function tooShort(name: string): WalError {
  return damaged(name, 'is shorter than its header');
}

function damaged(name: string, what: string): WalError {
  return corrupt(`${name} ${what}.`, { segment: name, offset: 0 });
}
