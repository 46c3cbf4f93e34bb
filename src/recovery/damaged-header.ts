import { isCorrupt } from '../errors.js';
import { crc32 } from '../format/checksum.js';
import {
  decodePrelude,
  decodeStateOf,
  MAX_HEADER_BYTES,
  repeatHeader,
  SEGMENT_HEADER_UNIT,
  SEGMENT_PRELUDE_BYTES,
  type SegmentPrelude,
} from '../format/segment-header.js';
import type { LogState } from '../format/state.js';
import { segmentIdOf } from '../segments/names.js';
import type { StorageFile } from '../storage/storage.js';
import type { SegmentHead } from './survey.js';

/** What can be told of a header block that is not whole. */
export interface DamagedHeader {
  head: SegmentHead;
  /** Undefined when it is damaged in both halves. */
  headState?: LogState;
  /** The prelude and the state as they should stand in both halves; undefined when there is no telling the state. */
  headContent?: Uint8Array;
}

/** Reads of a damaged header what one of its halves, or both together, still tell; undefined when that is nothing. */
export function readDamagedHeader(file: StorageFile): DamagedHeader | undefined {
  for (const at of halvesIn(file.size())) {
    const prelude = preludeAt(file, at);
    if (prelude === undefined) continue;
    const { stateBytes, stateCrc, ...head } = prelude;
    const content = stateContent(file, prelude);
    if (content === undefined) return { head };
    content.set(bytesAt(file, at, SEGMENT_PRELUDE_BYTES));
    const { state, records } = decodeStateOf(content.subarray(SEGMENT_PRELUDE_BYTES));
    return { head: { ...head, records }, headState: state, headContent: content };
  }
  return undefined;
}

/** The whole block that a header with this content is. */
export function headerBlock(content: Uint8Array, headerBytes: number): Uint8Array {
  const bytes = new Uint8Array(headerBytes);
  bytes.set(content);
  repeatHeader(bytes);
  return bytes;
}

/** Where a half of the header may begin: the first one, and behind it the second of a block of each size that there is. */
function* halvesIn(fileBytes: number): Generator<number> {
  yield 0;
  const most = Math.min(fileBytes, MAX_HEADER_BYTES) / 2;
  for (let at = SEGMENT_HEADER_UNIT / 2; at <= most; at *= 2) yield at;
}

function preludeAt(file: StorageFile, at: number): SegmentPrelude | undefined {
  try {
    const prelude = decodePrelude(file.name, bytesAt(file, at, SEGMENT_PRELUDE_BYTES));
    // A record may hold a copy of some header, or a recycled file an older one.
    const belongs = prelude.segmentId === segmentIdOf(file.name) && (at === 0 || at * 2 === prelude.headerBytes);
    return belongs ? prelude : undefined;
  } catch (error) {
    if (!isCorrupt(error)) throw error;
    return undefined;
  }
}

/** The state, behind room for the prelude, from whichever half it holds in. */
function stateContent(
  file: StorageFile,
  { headerBytes, stateBytes, stateCrc }: SegmentPrelude,
): Uint8Array | undefined {
  for (const half of [0, headerBytes / 2]) {
    const content = bytesAt(file, half, SEGMENT_PRELUDE_BYTES + stateBytes);
    const whole = content.byteLength === SEGMENT_PRELUDE_BYTES + stateBytes;
    if (whole && crc32(content.subarray(SEGMENT_PRELUDE_BYTES)) === stateCrc) return content;
  }
  return undefined;
}

/** No more memory than the file has bytes, whatever a header states. */
function bytesAt(file: StorageFile, at: number, length: number): Uint8Array {
  const bytes = new Uint8Array(Math.max(0, Math.min(length, file.size() - at)));
  return bytes.subarray(0, file.read(bytes, at));
}
