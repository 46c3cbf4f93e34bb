import { corrupt } from '../errors.js';
import { crc32 } from '../format/checksum.js';
import {
  FRAME_HEADER_BYTES,
  type FrameHeader,
  FrameType,
  frameBytes,
  readFrameHeader,
  type Salt,
  tellsCompacted,
} from '../format/frame.js';
import { decodeSeal, readSealFooter, SEAL_FOOTER_BYTES } from '../format/seal.js';
import { decodeSegmentHeader, SegmentFlag, type SegmentHeader } from '../format/segment-header.js';
import { afterTransaction, decodePositions, decodeState, type LogState, withPositions } from '../format/state.js';
import { mayDecide, readTransactionPrefix } from '../format/transaction.js';
import type { Storage, StorageFile } from '../storage/storage.js';
import { segmentIdOf } from './names.js';
import { isCompacted } from './segment-end.js';
import { type Remains, saltAt, searchRemains, Window, walkFrames } from './walk.js';

/** Reads and checks the header of a segment file; a header that names another id is damage too. */
export function readHeader(file: StorageFile): SegmentHeader {
  const header = decodeSegmentHeader(file.name, (target, position) => file.read(target, position));
  if (header.segmentId !== segmentIdOf(file.name)) {
    throw corrupt(`${file.name} holds segment ${header.segmentId}: it was renamed or copied.`, {
      segment: file.name,
      offset: 0,
      lsn: header.firstLsn,
    });
  }
  return header;
}

/** The header of the newest segment whose header can be read: it knows every key that the log was ever written with. */
export function newestHeader(storage: Storage): SegmentHeader | undefined {
  const names = storage.list().filter((name) => segmentIdOf(name) !== undefined);
  for (const name of names.reverse()) {
    try {
      return withFile(storage, name, readHeader);
    } catch (error) {
      // Damaged, which is recovery's to judge; or cleaned up since the directory was listed.
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ERR_WAL_CORRUPT' && code !== 'ENOENT') throw error;
    }
  }
  return undefined;
}

export function withFile<T>(storage: Storage, name: string, use: (file: StorageFile) => T): T {
  const file = storage.open(name, 'read');
  try {
    return use(file);
  } finally {
    file.close();
  }
}

/** How far the reading of a segment is. */
export type OnScan = (progress: { bytes: number; totalBytes: number; records: number }) => void;

/** How much is read between two reports of progress. */
const PROGRESS_BYTES = 4 * 1024 * 1024;

/** What the frames of a segment came to. */
export interface SegmentContent {
  sealed: boolean;
  /** LSN of its last record; the header's first LSN - 1 when it has none. */
  lastLsn: number;
  /** Behind the last valid frame. */
  endOffset: number;
  /**
   * Frames from here on may be in the page cache only: no stamp of a later frame vouches for them. `endOffset` when all
   * of them are known to be on disk.
   */
  unprovenFrom: number;
  /** Checksum of the last valid frame's header; the segment header's when there is no frame. */
  headerCrc: number;
  /** Of the last valid frame, ms since the epoch. */
  timestamp: number;
  /** The newest state in it. */
  state: LogState;
  remains: Remains;
  fileBytes: number;
}

/**
 * Reads the last segment to its end. One that was closed cleanly is cut to the end of its seal, which is then read
 * from behind: a sealed segment is not read again at open.
 */
export function readContent(file: StorageFile, header: SegmentHeader, onProgress?: OnScan): SegmentContent {
  return readSealAtEnd(file, header) ?? readFrames(file, header, onProgress);
}

/** The content of a segment whose file ends with its seal, as only that tells; undefined when there is none that holds. */
export function readSealAtEnd(file: StorageFile, header: SegmentHeader): SegmentContent | undefined {
  const fileBytes = file.size();
  if (fileBytes >= header.segmentBytes || fileBytes < header.headerBytes + FRAME_HEADER_BYTES) return undefined;
  const footer = new Uint8Array(SEAL_FOOTER_BYTES);
  file.read(footer, fileBytes - SEAL_FOOTER_BYTES);
  const offset = readSealFooter(footer, fileBytes);
  const there = offset !== undefined && offset >= header.headerBytes;
  const content = there ? sealAt(file, header, offset, fileBytes) : undefined;
  if (content !== undefined || !isCompacted(header)) return content;
  // Nothing but its seal says where a compacted segment ends; one that was moved by bytes that came in, and that a repair
  // left where it was, is not where its footer has it.
  const walked = readFrames(file, header);
  return walked.sealed && walked.endOffset === fileBytes ? walked : undefined;
}

/** What the seal of a compacted segment tells whose header is lost. */
export interface CompactedSeal {
  salt: Salt;
  /** From here on it has frames: what is before it, it stands for. Undefined: a repair wrote the seal. */
  firstLsn: number | undefined;
}

/** Undefined when the file does not end with one that holds. */
export function compactedSeal(file: StorageFile): CompactedSeal | undefined {
  const fileBytes = file.size();
  const footer = new Uint8Array(SEAL_FOOTER_BYTES);
  if (file.read(footer, Math.max(0, fileBytes - SEAL_FOOTER_BYTES)) < footer.byteLength) return undefined;
  const offset = readSealFooter(footer, fileBytes);
  if (offset === undefined) return undefined;
  const head = new Uint8Array(FRAME_HEADER_BYTES);
  file.read(head, offset);
  const view = new DataView(head.buffer);
  const salt = saltAt(view, 0);
  const frame = readFrameHeader(view, head, 0, salt);
  if (frame?.type !== FrameType.Seal || offset + FRAME_HEADER_BYTES + frame.storedBytes !== fileBytes) return undefined;
  const payload = new Uint8Array(frame.storedBytes);
  file.read(payload, offset + FRAME_HEADER_BYTES);
  if (!tellsCompacted(frame) || crc32(payload) !== frame.payloadCrc) return undefined;
  return { salt, firstLsn: decodeSeal(payload).index.at(0)?.firstLsn };
}

/** The content of a segment whose seal starts at `offset` and ends at `end`, if a valid one does. */
function sealAt(file: StorageFile, header: SegmentHeader, offset: number, end: number): SegmentContent | undefined {
  const head = new Uint8Array(FRAME_HEADER_BYTES);
  file.read(head, offset);
  const frame = readFrameHeader(new DataView(head.buffer), head, 0, header.salt);
  if (frame?.type !== FrameType.Seal || offset + FRAME_HEADER_BYTES + frame.storedBytes !== end) return undefined;
  if (frame.firstLsn < header.firstLsn) return undefined;
  const payload = new Uint8Array(frame.storedBytes);
  file.read(payload, offset + FRAME_HEADER_BYTES);
  if (crc32(payload) !== frame.payloadCrc) return undefined;
  return {
    sealed: true,
    lastLsn: frame.firstLsn - 1,
    endOffset: end,
    // A prepared file is only ever cut to the end of a seal that was synced. One that grew may end there from the beginning.
    unprovenFrom: (header.flags & SegmentFlag.Growing) === 0 ? end : offset,
    headerCrc: frame.headerCrc,
    timestamp: frame.timestamp,
    state: decodeSeal(payload).state,
    remains: { laterFrame: undefined, end, lastFrameAt: -1 },
    fileBytes: end,
  };
}

/**
 * Walks the frames, and searches what is behind them. A writer may go on between the two: a later frame is one that was
 * lost before it only if, looked at once more, the frames still end where they ended.
 */
function readFrames(file: StorageFile, header: SegmentHeader, onProgress?: OnScan): SegmentContent {
  const content: SegmentContent = {
    sealed: false,
    lastLsn: header.firstLsn - 1,
    endOffset: header.headerBytes,
    unprovenFrom: header.headerBytes,
    headerCrc: header.headerCrc,
    timestamp: header.createdAt,
    state: header.state,
    remains: { laterFrame: undefined, end: header.headerBytes, lastFrameAt: -1 },
    fileBytes: 0,
  };
  const unproven = new UnprovenFrames();
  for (let looks = 0; ; looks++) {
    const before = content.remains;
    const from = content.endOffset;
    const window = new Window(file);
    content.fileBytes = window.fileBytes;
    takeFrames(window, header, content, unproven, onProgress);
    content.remains = { laterFrame: undefined, end: content.endOffset, lastFrameAt: -1 };
    // Past all that was found behind the end: the writer is alive, and what it adds next is not ours to judge.
    if (content.sealed || (looks > 0 && content.endOffset > before.lastFrameAt)) break;
    content.remains = searchRemains(window, content.endOffset, header.salt);
    if (content.remains.laterFrame === undefined || (looks > 0 && content.endOffset === from)) break;
  }
  content.unprovenFrom = unproven.first ?? content.endOffset;
  return content;
}

/** Goes on where `content` ends, as far as the frames hold. */
function takeFrames(
  window: Window,
  header: SegmentHeader,
  content: SegmentContent,
  unproven: UnprovenFrames,
  onProgress?: OnScan,
): void {
  let told = 0;
  const start = { salt: header.salt, lsn: content.lastLsn + 1, previousCrc: content.headerCrc };
  for (const { header: frame, offset, payload } of walkFrames(window, content.endOffset, start)) {
    unproven.add(offset, frame);
    content.lastLsn += frame.records;
    content.endOffset = offset + frameBytes(frame.storedBytes);
    content.headerCrc = frame.headerCrc;
    content.timestamp = frame.timestamp;
    if (onProgress !== undefined && content.endOffset - told >= PROGRESS_BYTES) {
      told = content.endOffset;
      onProgress({ bytes: told, totalBytes: window.fileBytes, records: content.lastLsn - header.firstLsn + 1 });
    }
    if (frame.type === FrameType.State) content.state = decodeState(payload);
    if (frame.type === FrameType.Positions) content.state = withPositions(content.state, decodePositions(payload));
    if (mayDecide(frame)) {
      const prefix = readTransactionPrefix(payload, 0, payload.byteLength);
      content.state = afterTransaction(content.state, prefix, frame.firstLsn, header.firstLsn);
    }
    if (frame.type === FrameType.Seal) {
      content.sealed = true;
      content.state = decodeSeal(payload).state;
      return;
    }
  }
}

/** The frames at the end of a segment that nothing later vouches for. */
class UnprovenFrames {
  #frames: { offset: number; lsn: number }[] = [];
  #gone = 0;

  get first(): number | undefined {
    return this.#frames[this.#gone]?.offset;
  }

  add(offset: number, { firstLsn, records, durableLsn }: FrameHeader): void {
    while (this.#gone < this.#frames.length && this.#frames[this.#gone].lsn <= durableLsn) this.#gone++;
    if (this.#gone === this.#frames.length) {
      this.#frames = [];
      this.#gone = 0;
    }
    // A frame without records is on disk for sure when the next record is.
    this.#frames.push({ offset, lsn: firstLsn + Math.max(records, 1) - 1 });
  }
}

/**
 * Whether what stands behind the last frame was put there by this segment. In a recycled file the bytes of the segment
 * before are expected there; only a frame that begins with this segment's salt is then known to be ours.
 */
export function hasLeftOver(file: StorageFile, header: SegmentHeader, content: SegmentContent): boolean {
  if (content.remains.end === content.endOffset) return false;
  if ((header.flags & SegmentFlag.Recycled) === 0) return true;
  const bytes = new Uint8Array(FRAME_HEADER_BYTES);
  file.read(bytes, content.endOffset);
  return readFrameHeader(new DataView(bytes.buffer), bytes, 0, header.salt) !== undefined;
}
