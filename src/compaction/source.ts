import { corrupt, type DamagePlace } from '../errors.js';
import {
  carriesRecords,
  FRAME_HEADER_BYTES,
  type FrameHeader,
  FrameType,
  frameBytes,
  isEncoded,
  isSparse,
} from '../format/frame.js';
import { decodePayload, isReadable, type PayloadKeys } from '../format/frame-payload.js';
import type { SegmentHeader } from '../format/segment-header.js';
import { readTransactionPrefix, TRANSACTION_PREFIX_BYTES, TransactionRole } from '../format/transaction.js';
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

/** A frame of a sealed segment, `frame` from its header on. Valid until the visitor returns. */
export type SourceVisitor = (header: FrameHeader, frame: Uint8Array, offset: number) => void;

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
    for (const { header, offset, frame } of walkFrames(new Window(this.#file), at, { salt, lsn, previousCrc })) {
      if (offset >= endOffset) break;
      visit(header, frame, offset);
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
 * What a frame is to compaction. Finding garbage and rewriting must see the same in it: the marks are counted from
 * operation to operation.
 */
export type Look =
  /** Records that are looked into: `payload` from `at` on. */
  | { is: 'records'; payload: Uint8Array; at: number; sparse: boolean; committed: Committed | undefined }
  /** Operations of a transaction that something later decides about. */
  | { is: 'part'; id: string }
  /** The end of a transaction that was prepared. */
  | { is: 'abort'; id: string }
  /** Stays as it is, and holds no operation that counts. */
  | { is: 'kept' }
  /** Stays as it is, and may hold operations: its key is not at hand, or this Node.js lacks its codec. */
  | { is: 'foreign' }
  | { is: 'gap' }
  /** Its result is in the seal. */
  | { is: 'spare' };

/** A transaction that this frame commits. */
export interface Committed {
  /** At which all of its operations count. */
  lsn: number;
  prefix: Uint8Array;
}

/**
 * Looks into a frame. `frame`: its header and payload as they lie in the file. `lastLsn`: what its segment holds above was
 * cut off. `ERR_WAL_CORRUPT`: it is not what was written, though its checksums hold.
 */
export function lookInto(
  header: FrameHeader,
  frame: Uint8Array,
  lastLsn: number,
  keys: PayloadKeys | undefined,
  place: DamagePlace,
): Look {
  const { type, firstLsn, records } = header;
  if (type === FrameType.Gap) return { is: 'gap' };
  if (SPARE.has(type)) return { is: 'spare' };
  if (!carriesRecords(type)) return { is: 'kept' };
  const payload = decoded(header, frame, keys, place);
  if (payload === undefined) return { is: 'foreign' };
  const sparse = isSparse(type);
  if (type === FrameType.Records || type === FrameType.Sparse) {
    return { is: 'records', payload, at: 0, sparse, committed: undefined };
  }
  const { id, role } = readTransactionPrefix(payload, 0, payload.byteLength);
  if (role === TransactionRole.Part) return { is: 'part', id };
  if (role === TransactionRole.Abort) return { is: 'abort', id };
  const lsn = firstLsn + records - 1;
  // Cut off before its end, it never counts.
  if (role !== TransactionRole.Whole || lsn > lastLsn) return { is: 'kept' };
  const at = TRANSACTION_PREFIX_BYTES;
  return { is: 'records', payload, at, sparse, committed: { lsn, prefix: payload.subarray(0, at) } };
}

function decoded(header: FrameHeader, frame: Uint8Array, keys: PayloadKeys | undefined, place: DamagePlace) {
  const payload = frame.subarray(FRAME_HEADER_BYTES);
  if (!isEncoded(header)) return payload;
  if (!isReadable(header, payload, keys)) return undefined;
  return decodePayload(header, frame, FRAME_HEADER_BYTES, keys, { ...place, lsn: header.firstLsn });
}

const SPARE: ReadonlySet<number> = new Set([FrameType.Seal, FrameType.State, FrameType.Stamp, FrameType.Positions]);
