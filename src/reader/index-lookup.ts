import { crc32 } from '../format/checksum.js';
import { FRAME_HEADER_BYTES, FrameType, frameBytes, readFrameHeader } from '../format/frame.js';
import { decodeSeal, type IndexEntry, readSealFooter, SEAL_FOOTER_BYTES } from '../format/seal.js';
import type { SegmentHeader } from '../format/segment-header.js';
import { statedEnd } from '../segments/segment-end.js';
import type { CatalogEntry } from './catalog.js';
import type { ReadableFile } from './files.js';

/**
 * The sparse index of a sealed segment, from its seal; undefined when there is none that holds, which makes a lookup
 * slower and nothing else: an index is a hint, and every frame vouches for itself.
 */
export async function readIndex(file: ReadableFile, { header, next }: CatalogEntry): Promise<IndexEntry[] | undefined> {
  const seal = await readSealAt(file, header, statedEnd(header, next)?.endOffset ?? (await file.size()));
  return seal && decodeSeal(seal).index;
}

/** The payload of the seal that ends at `end`, if one does that holds by its checksum. */
export async function readSealAt(
  file: ReadableFile,
  header: Pick<SegmentHeader, 'headerBytes' | 'salt'>,
  end: number,
): Promise<Uint8Array | undefined> {
  if (end < header.headerBytes + FRAME_HEADER_BYTES + SEAL_FOOTER_BYTES) return undefined;
  const footer = new Uint8Array(SEAL_FOOTER_BYTES);
  if ((await file.read(footer, end - SEAL_FOOTER_BYTES)) < SEAL_FOOTER_BYTES) return undefined;
  const offset = readSealFooter(footer, end);
  if (offset === undefined || offset < header.headerBytes) return undefined;
  // The footer has no checksum: how much memory the seal takes, its own header says.
  const head = new Uint8Array(FRAME_HEADER_BYTES);
  await file.read(head, offset);
  const frame = readFrameHeader(new DataView(head.buffer), head, 0, header.salt);
  if (frame?.type !== FrameType.Seal || offset + frameBytes(frame.storedBytes) !== end) return undefined;
  const payload = new Uint8Array(frame.storedBytes);
  await file.read(payload, offset + FRAME_HEADER_BYTES);
  return crc32(payload) === frame.payloadCrc ? payload : undefined;
}

/** The last entry for which `isBefore` holds; the entries are in order. */
export function lastEntry(
  index: readonly IndexEntry[],
  isBefore: (entry: IndexEntry) => boolean,
): IndexEntry | undefined {
  let low = 0;
  let high = index.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (isBefore(index[middle])) low = middle + 1;
    else high = middle;
  }
  return index[low - 1];
}
