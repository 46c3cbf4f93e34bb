import { type FrameHeader, frameBytes, type Salt } from '../format/frame.js';
import { headersIn, type LaterFrame, lastNonZero, SEARCH_OVERLAP_BYTES, withLaterFrame } from '../segments/walk.js';
import type { ReadableFile } from './files.js';

const PIECE_BYTES = 1024 * 1024;

export interface FoundFrame {
  offset: number;
  header: FrameHeader;
}

async function* pieces(file: ReadableFile, from: number, end: number): AsyncGenerator<{ bytes: Buffer; base: number }> {
  for (let base = from; base < end; base += PIECE_BYTES - SEARCH_OVERLAP_BYTES) {
    const buffer = Buffer.allocUnsafeSlow(Math.min(PIECE_BYTES, end - base));
    yield { bytes: buffer.subarray(0, await file.read(buffer, base)), base };
  }
}

/** The first frame in `[from, end)` whose header holds, of the segment with that salt. */
export async function findFrame(
  file: ReadableFile,
  from: number,
  end: number,
  salt: Salt | undefined,
): Promise<FoundFrame | undefined> {
  for await (const { bytes, base } of pieces(file, from, end)) {
    for (const found of headersIn(bytes, base, salt)) return found;
  }
  return undefined;
}

/** What lies behind the frames of the last segment. */
export interface Rest {
  /** What later frames of this segment say. */
  laterFrame: LaterFrame | undefined;
  /** Something other than zeros is there. */
  anything: boolean;
}

export async function searchRest(file: ReadableFile, from: number, end: number, salt: Salt): Promise<Rest> {
  const rest: Rest = { laterFrame: undefined, anything: false };
  let next = from;
  for await (const { bytes, base } of pieces(file, from, end)) {
    if (lastNonZero(bytes) < 0) continue;
    rest.anything = true;
    for (const { offset, header } of headersIn(bytes, base, salt)) {
      // Payloads of later frames are not searched: a record may hold a copy of a frame.
      if (offset < next) continue;
      next = offset + frameBytes(header.storedBytes);
      rest.laterFrame = withLaterFrame(rest.laterFrame, header, offset === from);
    }
  }
  return rest;
}

/** A disk writes a sector whole, or from its beginning up to somewhere, or from somewhere up to its end. */
const SECTOR_BYTES = 512;

/**
 * Whether a part of `[from, end)` may never have been written: a sector's worth of it begins or ends with a zero. That may
 * be so by chance, too; `open`, which does not look at this at all, judges such an end as a torn tail.
 */
export async function isTornIn(file: ReadableFile, from: number, end: number): Promise<boolean> {
  // Piece by piece, of whole sectors: no checksum vouches for how long it is.
  for (let at = from; at < end; ) {
    const stop = Math.min(end, at - (at % SECTOR_BYTES) + PIECE_BYTES);
    const bytes = Buffer.alloc(stop - at);
    await file.read(bytes, at);
    if (isTorn(bytes, at)) return true;
    at = stop;
  }
  return false;
}

function isTorn(bytes: Uint8Array, from: number): boolean {
  for (let at = 0; at < bytes.byteLength; ) {
    const end = Math.min(bytes.byteLength, at + SECTOR_BYTES - ((from + at) % SECTOR_BYTES));
    if (bytes[at] === 0 || bytes[end - 1] === 0) return true;
    at = end;
  }
  return false;
}

/** The offset of the first byte in `[from, end)` that is not zero. */
export async function firstNonZero(file: ReadableFile, from: number, end: number): Promise<number | undefined> {
  for await (const { bytes, base } of pieces(file, from, end)) {
    if (lastNonZero(bytes) >= 0) return base + bytes.findIndex((byte) => byte !== 0);
  }
  return undefined;
}
