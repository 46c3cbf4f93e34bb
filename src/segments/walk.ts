import { crc32 } from '../format/checksum.js';
import {
  Field,
  FRAME_HEADER_BYTES,
  FRAME_MAGIC,
  type FrameHeader,
  frameBytes,
  HeaderFlag,
  isOfLaterVersion,
  laterVersion,
  readFrameHeader,
  type Salt,
} from '../format/frame.js';
import type { StorageFile } from '../storage/storage.js';

/** What the next frame of a segment must look like. */
export interface Expectation {
  salt: Salt;
  lsn: number;
  /** Checksum of the header before it: the segment's own for the first frame. Undefined: not known. */
  previousCrc: number | undefined;
  /** For those who want to know more than the checksums tell: whether what the frame holds can be brought back. */
  isSound?: (header: FrameHeader, bytes: Uint8Array, payloadAt: number) => boolean;
}

/**
 * Looks at the frame that should start at `bytes[at]`, of which `end` bytes are at hand and `fileEnd` would be in the
 * file (in the same coordinates). Returns its header when everything about it holds; how many bytes from `at` on must
 * be at hand to say more; or undefined when no valid frame is there.
 */
export function checkFrame(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  end: number,
  fileEnd: number,
  expected: Expectation,
): FrameHeader | number | undefined {
  if (at + FRAME_HEADER_BYTES > fileEnd) return undefined;
  if (at + FRAME_HEADER_BYTES > end) return FRAME_HEADER_BYTES;
  const header = readFrameHeader(view, bytes, at, expected.salt);
  if (header === undefined) return undefined;
  if (header.firstLsn !== expected.lsn) return undefined;
  if (expected.previousCrc !== undefined && header.previousCrc !== expected.previousCrc) return undefined;
  const total = frameBytes(header.storedBytes);
  if (at + total > fileEnd) return undefined;
  if (at + total > end) return total;
  const payload = bytes.subarray(at + FRAME_HEADER_BYTES, at + FRAME_HEADER_BYTES + header.storedBytes);
  if (crc32(payload) !== header.payloadCrc) return undefined;
  return (expected.isSound?.(header, bytes, at + FRAME_HEADER_BYTES) ?? true) ? header : undefined;
}

const WINDOW_BYTES = 1024 * 1024;

/** Reads a file through one buffer that moves along with the reader and grows only to what a checked header asked for. */
export class Window {
  readonly #file: StorageFile;
  readonly fileBytes: number;
  #buffer = Buffer.allocUnsafeSlow(0);
  #start = 0;

  constructor(file: StorageFile) {
    this.#file = file;
    this.fileBytes = file.size();
  }

  /** Bytes `[offset, offset + length)` of the file, fewer at its end. Valid until the next call. */
  at(offset: number, length: number): Buffer {
    const end = Math.min(offset + length, this.fileBytes);
    if (offset < this.#start || end > this.#start + this.#buffer.byteLength) {
      const size = Math.min(Math.max(WINDOW_BYTES, end - offset), this.fileBytes - offset);
      const buffer = Buffer.allocUnsafeSlow(Math.max(size, 0));
      this.#buffer = buffer.subarray(0, this.#file.read(buffer, offset));
      this.#start = offset;
    }
    return this.#buffer.subarray(offset - this.#start, Math.min(end - this.#start, this.#buffer.byteLength));
  }
}

export interface WalkedFrame {
  header: FrameHeader;
  offset: number;
  /** The frame's payload, valid until the next frame is asked for. */
  payload: Uint8Array;
  /** The same with the header before it. */
  frame: Uint8Array;
}

/**
 * Walks the valid frames of a segment from `offset` on; ends behind the last one that holds. Throws `ERR_WAL_VERSION` at one
 * that holds records in a way that only a later version knows.
 */
export function* walkFrames(window: Window, offset: number, expected: Expectation): Generator<WalkedFrame> {
  const next = { ...expected };
  for (;;) {
    let need = FRAME_HEADER_BYTES;
    let header: FrameHeader | number | undefined = need;
    let bytes = window.at(offset, need);
    while (typeof header === 'number') {
      if (bytes.byteLength < need) return;
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      header = checkFrame(bytes, view, 0, bytes.byteLength, window.fileBytes - offset, next);
      if (typeof header === 'number') {
        need = header;
        bytes = window.at(offset, need);
      }
    }
    if (header === undefined) return;
    if (isOfLaterVersion(header)) throw laterVersion(header);
    const frame = bytes.subarray(0, FRAME_HEADER_BYTES + header.storedBytes);
    yield { header, offset, payload: frame.subarray(FRAME_HEADER_BYTES), frame };
    offset += frameBytes(header.storedBytes);
    next.lsn += header.records;
    next.previousCrc = header.headerCrc;
  }
}

export interface LaterFrame {
  /** The highest durable LSN that any of them is stamped with. */
  durableLsn: number;
  /** One of them says that everything before it was on stable storage when it was written. */
  provesPrefix: boolean;
}

/** What lies behind the last valid frame of a segment. */
export interface Remains {
  /** What the valid frame headers of this very segment say that stand there. */
  laterFrame: LaterFrame | undefined;
  /** Where the last of these frames starts; -1 when there is none. */
  lastFrameAt: number;
  /** Offset behind the last byte that is not zero; the start when all are. */
  end: number;
}

/** How much two pieces of a file must overlap, so that no frame header is missed between them. */
export const SEARCH_OVERLAP_BYTES = FRAME_HEADER_BYTES - 8;
const MAGIC = Buffer.alloc(4);
MAGIC.writeUInt32LE(FRAME_MAGIC);

/** The salt that the frame at `at` claims to have. */
export function saltAt(view: DataView, at: number): Salt {
  return { low: view.getUint32(at + Field.salt, true), high: view.getUint32(at + Field.salt + 4, true) };
}

/**
 * The valid frame headers of a segment within `bytes`, which start at `base` in the file. Without a salt, because the
 * segment's own header is lost, those of any segment.
 */
export function* headersIn(
  bytes: Buffer,
  base: number,
  salt: Salt | undefined,
): Generator<{ offset: number; header: FrameHeader }, void, undefined> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = bytes.indexOf(MAGIC); at >= 0; at = bytes.indexOf(MAGIC, at + 1)) {
    if (at + FRAME_HEADER_BYTES > bytes.byteLength) return;
    if ((base + at) % 8 !== 0) continue;
    const header = readFrameHeader(view, bytes, at, salt ?? saltAt(view, at));
    if (header !== undefined) yield { offset: base + at, header };
  }
}

/** Adds what one more frame says. `itself`: it is the one that does not hold, though its header does. */
export function withLaterFrame(known: LaterFrame | undefined, header: FrameHeader, itself: boolean): LaterFrame {
  // About what is before it, the frame that does not hold says nothing that was not known.
  const provesPrefix = !itself && (header.flags & HeaderFlag.PrefixDurable) !== 0;
  return {
    durableLsn: Math.max(known?.durableLsn ?? 0, header.durableLsn),
    provesPrefix: (known?.provesPrefix ?? false) || provesPrefix,
  };
}

/** Looks through `[offset, end of file)` for later frames of this segment and for anything that is not zero. */
export function searchRemains(window: Window, offset: number, salt: Salt): Remains {
  const remains: Remains = { laterFrame: undefined, lastFrameAt: -1, end: offset };
  // Payloads of later frames are not searched: a record may hold a copy of a frame.
  let from = offset;
  for (let base = offset; base < window.fileBytes; base += WINDOW_BYTES - SEARCH_OVERLAP_BYTES) {
    const bytes = window.at(base, WINDOW_BYTES);
    const last = lastNonZero(bytes);
    if (last < 0) continue;
    remains.end = base + last + 1;
    for (const { header, offset: at } of headersIn(bytes, base, salt)) {
      if (at < from) continue;
      from = at + frameBytes(header.storedBytes);
      remains.lastFrameAt = at;
      remains.laterFrame = withLaterFrame(remains.laterFrame, header, at === offset);
    }
  }
  return remains;
}

/** Index of the last byte that is not zero; -1 when all are. */
export function lastNonZero(bytes: Uint8Array): number {
  let i = bytes.byteLength - 1;
  // Four at a time through the zeros of a prepared file, which are most of it.
  if (bytes.byteOffset % 4 === 0 && bytes.byteLength % 4 === 0) {
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    let w = words.length - 1;
    while (w >= 0 && words[w] === 0) w--;
    i = w * 4 + 3;
  }
  while (i >= 0 && bytes[i] === 0) i--;
  return i;
}
