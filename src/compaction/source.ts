import { corrupt } from '../errors.js';
import { type FrameHeader, FrameType, frameBytes } from '../format/frame.js';
import type { SegmentHeader } from '../format/segment-header.js';
import { readHeader } from '../segments/read-segment.js';
import type { SegmentInfo } from '../segments/segment-info.js';
import { Window, walkFrames } from '../segments/walk.js';
import type { Storage, StorageFile } from '../storage/storage.js';
import type { Pace } from './pace.js';

/** The segments are not what they were when the compaction began: cleaned up, cut or compacted meanwhile. */
export class LogChanged extends Error {
  constructor() {
    super('The log changed while it was compacted.');
  }
}

/** A frame of a sealed segment. `payload` is valid until the visitor returns. */
export type SourceVisitor = (header: FrameHeader, payload: Uint8Array) => void;

/** Opens a segment, calls `use` with its header, and closes it. */
export function withSegment<T>(storage: Storage, info: SegmentInfo, use: (source: Source) => T): T {
  const file = openSegment(storage, info);
  try {
    const header = readHeader(file);
    if (header.headerCrc !== info.headerCrc) throw new LogChanged();
    return use(new Source(file, header, info));
  } finally {
    file.close();
  }
}

function openSegment(storage: Storage, { name }: SegmentInfo): StorageFile {
  try {
    return storage.open(name, 'read');
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'ENOENT' ? new LogChanged() : error;
  }
}

/** A sealed segment that is read from its first frame to its end. */
export class Source {
  readonly header: SegmentHeader;
  readonly #file: StorageFile;
  readonly #info: SegmentInfo;

  constructor(file: StorageFile, header: SegmentHeader, info: SegmentInfo) {
    this.#file = file;
    this.header = header;
    this.#info = info;
  }

  /** Visits all frames. Throws `ERR_WAL_CORRUPT` when they end before the segment does. */
  walk(pace: Pace, visit: SourceVisitor): void {
    const { salt, firstLsn: lsn, headerBytes, headerCrc: previousCrc } = this.header;
    const { endOffset, name } = this.#info;
    let at = headerBytes;
    let expected = lsn;
    for (const { header, offset, payload } of walkFrames(new Window(this.#file), at, { salt, lsn, previousCrc })) {
      if (offset >= endOffset) break;
      visit(header, payload);
      at = offset + frameBytes(header.storedBytes);
      expected = header.firstLsn + header.records;
      pace.step(at - offset, header.records);
    }
    if (at === endOffset && expected > this.#info.lastLsn) return;
    throw corrupt(
      `${name} is damaged at byte ${at}: LSN ${expected} should be there and is not readable. It was not compacted; ` +
        "run 'ringwal verify' on the log's directory to see all of the damage.",
      { segment: name, offset: at, lsn: expected },
    );
  }
}

/**
 * The records of a frame, as they lie in one that is neither compressed nor encrypted; undefined when the frame is not one
 * of records, or they cannot be had. This is the one place where a payload is decoded for compaction.
 */
export function recordsOf({ type, codec, encryption }: FrameHeader, payload: Uint8Array): Uint8Array | undefined {
  if (type !== FrameType.Records && type !== FrameType.Sparse) return undefined;
  return codec === 0 && encryption === 0 ? payload : undefined;
}

/** The types of frames whose result is in the seal: nothing of them is needed in a compacted segment. */
const NOT_NEEDED: ReadonlySet<number> = new Set([
  FrameType.Seal,
  FrameType.State,
  FrameType.Stamp,
  FrameType.Positions,
]);

/**
 * Of frames without {@link recordsOf}, the one place for those that compaction does not look into: transactions, and
 * records that are not decoded. They stay as they are, with all of their operations; these replace no operation outside,
 * and no delete behind them is dropped, since it may hide one of them.
 */
export function isForeign({ type }: FrameHeader): boolean {
  return type !== FrameType.Gap && !NOT_NEEDED.has(type);
}
