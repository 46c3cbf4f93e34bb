import { corrupt } from '../errors.js';
import { FRAME_HEADER_BYTES, frameBytes } from './frame.js';
import { readU64, writeU64 } from './integers.js';
import { decodeState, encodeState, type LogState } from './state.js';

/**
 * The payload of a seal frame, the last frame of a finished segment:
 *
 *   | state bytes u32 | entries u32 | state, zeros up to a multiple of 8 | entries, 24 bytes each | footer, 16 bytes |
 *
 * An entry of the sparse index: offset of a frame, its first LSN, its time. The footer repeats the offset of the seal
 * frame and a magic, so that a file cut to the end of its seal can be read from behind. Nothing of it is trusted
 * before the frame's own checksums hold.
 */
export interface IndexEntry {
  offset: number;
  firstLsn: number;
  timestamp: number;
}

export interface Seal {
  state: LogState;
  index: IndexEntry[];
}

const ENTRY_BYTES = 24;
export const SEAL_FOOTER_BYTES = 16;
const FOOTER_MAGIC = 0x4c414553; // "SEAL"

/** Distance in bytes between two entries of the sparse index: what a lookup reads beyond what it needs. */
export const INDEX_INTERVAL_BYTES = 64 * 1024;

/** Adds a frame of records to the sparse index of its segment, when it is far enough from the last one in there. */
export function addToIndex(index: IndexEntry[], offset: number, firstLsn: number, timestamp: number): void {
  const last = index[index.length - 1];
  if (last === undefined || offset - last.offset >= INDEX_INTERVAL_BYTES) index.push({ offset, firstLsn, timestamp });
}

/** Room that a segment of this size must keep free for its seal. */
export function sealReserve(segmentBytes: number, stateBytes: number): number {
  const entries = Math.ceil(segmentBytes / INDEX_INTERVAL_BYTES) + 1;
  return frameBytes(8 + stateBytes + 8 + entries * ENTRY_BYTES + SEAL_FOOTER_BYTES);
}

export function encodeSeal(seal: Seal, frameOffset: number): Uint8Array {
  const state = encodeState(seal.state);
  const indexAt = 8 + Math.ceil(state.byteLength / 8) * 8;
  const bytes = new Uint8Array(indexAt + seal.index.length * ENTRY_BYTES + SEAL_FOOTER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, state.byteLength, true);
  view.setUint32(4, seal.index.length, true);
  bytes.set(state, 8);
  let at = indexAt;
  for (const { offset, firstLsn, timestamp } of seal.index) {
    writeU64(view, at, offset);
    writeU64(view, at + 8, firstLsn);
    writeU64(view, at + 16, timestamp);
    at += ENTRY_BYTES;
  }
  writeU64(view, at, frameOffset);
  view.setUint32(at + 8, FOOTER_MAGIC, true);
  return bytes;
}

export function decodeSeal(payload: Uint8Array): Seal {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const stateBytes = payload.byteLength >= 8 ? view.getUint32(0, true) : 0;
  const entries = payload.byteLength >= 8 ? view.getUint32(4, true) : 0;
  const indexAt = 8 + Math.ceil(stateBytes / 8) * 8;
  if (payload.byteLength !== indexAt + entries * ENTRY_BYTES + SEAL_FOOTER_BYTES) {
    throw corrupt('A seal does not decode, though its checksum holds.', {});
  }
  const index: IndexEntry[] = [];
  for (let i = 0, at = indexAt; i < entries; i++, at += ENTRY_BYTES) {
    index.push({ offset: readU64(view, at), firstLsn: readU64(view, at + 8), timestamp: readU64(view, at + 16) });
  }
  return { state: decodeState(payload.subarray(8, 8 + stateBytes)), index };
}

/** The offset of the seal frame that ends at the end of a file, if `footer` (the file's last 16 bytes) names one. */
export function readSealFooter(footer: Uint8Array, fileBytes: number): number | undefined {
  const view = new DataView(footer.buffer, footer.byteOffset, footer.byteLength);
  if (view.getUint32(8, true) !== FOOTER_MAGIC) return undefined;
  const offset = readU64(view, 0);
  return offset % 8 === 0 && offset + FRAME_HEADER_BYTES <= fileBytes ? offset : undefined;
}
