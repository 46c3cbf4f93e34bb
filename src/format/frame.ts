import { WalError } from '../errors.js';
import { crc32 } from './checksum.js';
import { align8, readU64, writeU64 } from './integers.js';

/**
 * A frame is one group of records: the unit of checksum, compression and atomicity.
 *
 *   0        4    5     6     7          8            12         16       20
 *   | "RWLF" |type|flags|codec|encryption|stored bytes|raw bytes |records |payload CRC|
 *   24               32                40              48               56          60         64
 *   | first LSN      | durable LSN     | segment salt  | time, ms       |previous CRC|header CRC|
 *   64 ... stored bytes of payload ... zero bytes up to a multiple of 8
 *
 * The encoder (any thread) fills bytes 4 to 24; the sequencer alone fills the flags and 24 to 64. That split is what lets
 * encoding run in parallel while sequencing stays cheap.
 */
export const FRAME_HEADER_BYTES = 64;
export const FRAME_MAGIC = 0x464c5752; // "RWLF" read as a little-endian number

export const FrameType = {
  Records: 1,
  /** The last frame of a finished segment. */
  Seal: 2,
  /** The log's state, as it is from here on. */
  State: 3,
  /** Nothing but its header: says how far the log was durable when it fell idle. */
  Stamp: 4,
  /** Positions of subscriptions that changed. */
  Positions: 5,
  /** Stands where frames were lost, put there by a repair: `records` LSNs from `firstLsn` on are gone. */
  Gap: 6,
  /** Operations of a transaction, or what became of it. */
  Transaction: 7,
  /** What compaction left of frames of records: each with its own LSN. `records` are the LSNs it stands for, gone or not. */
  Sparse: 8,
  /** The same of a transaction that one frame committed: the prefix of a transaction frame, and sparse records. */
  SparseTransaction: 9,
} as const;

/** Whether compaction left some LSNs out of what the frame stands for. */
export function isSparse(type: number): boolean {
  return type === FrameType.Sparse || type === FrameType.SparseTransaction;
}

/** Whether a frame of this type holds what callers appended: such payloads, and no others, are compressed and encrypted. */
export function carriesRecords(type: number): boolean {
  return type === FrameType.Records || type === FrameType.Transaction || isSparse(type);
}

const KNOWN_TYPES: ReadonlySet<number> = new Set(Object.values(FrameType));

/**
 * Whether a frame, whose checksums hold, takes LSNs in a way that is not known here: to step over it would be to lose records
 * in silence. One without records is stepped over; what it says is for those who know it.
 */
export function isOfLaterVersion({ type, records }: FrameHeader): boolean {
  return records > 0 && !KNOWN_TYPES.has(type);
}

/** The refusal of {@link isOfLaterVersion}. */
export function laterVersion({ type, records, firstLsn }: FrameHeader): WalError {
  return new WalError(
    'ERR_WAL_VERSION',
    `The frame at LSN ${firstLsn} holds ${records} records in a way (type ${type}) that a newer ringwal knows. Upgrade ` +
      'ringwal to read this log; nothing was touched.',
  );
}

/** Whether it can only stand in a compacted segment. */
export function tellsCompacted({ type, flags }: FrameHeader): boolean {
  return isSparse(type) || (flags & HeaderFlag.Compacted) !== 0;
}

/** Whether what it holds has to be decompressed or decrypted first. */
export function isEncoded({ codec, encryption }: Pick<FrameHeader, 'codec' | 'encryption'>): boolean {
  return codec !== 0 || encryption !== 0;
}

/** Bits of a header's flags. Set by the sequencer. */
export const HeaderFlag = {
  /**
   * Everything before this frame, in this segment and the earlier ones, was on stable storage when it was written. So a
   * frame before it that does not hold was lost after it had been promised, also if it held no record.
   */
  PrefixDurable: 1,
  /** It stands in a compacted segment, whose header may be lost. */
  Compacted: 2,
} as const;

export const Field = {
  magic: 0,
  type: 4,
  flags: 5,
  codec: 6,
  encryption: 7,
  storedBytes: 8,
  rawBytes: 12,
  records: 16,
  payloadCrc: 20,
  firstLsn: 24,
  durableLsn: 32,
  salt: 40,
  timestamp: 48,
  previousCrc: 56,
  headerCrc: 60,
} as const;

/** Eight random bytes that tell the frames of one segment from what a recycled file held before. */
export interface Salt {
  low: number;
  high: number;
}

export interface FrameHeader {
  type: number;
  flags: number;
  codec: number;
  encryption: number;
  storedBytes: number;
  rawBytes: number;
  records: number;
  payloadCrc: number;
  firstLsn: number;
  durableLsn: number;
  timestamp: number;
  previousCrc: number;
  headerCrc: number;
}

const MOST = Number.MAX_SAFE_INTEGER;

/** What a frame with `storedBytes` of payload takes in the file. */
export function frameBytes(storedBytes: number): number {
  return align8(FRAME_HEADER_BYTES + storedBytes);
}

/** The encoder's half of the header. `bytes` starts at the frame. */
export function writeEncoderFields(
  view: DataView,
  at: number,
  type: number,
  storedBytes: number,
  rawBytes: number,
  records: number,
): void {
  view.setUint32(at, FRAME_MAGIC, true);
  view.setUint32(at + Field.type, type, true); // flags, codec and encryption: zero
  view.setUint32(at + Field.storedBytes, storedBytes, true);
  view.setUint32(at + Field.rawBytes, rawBytes, true);
  view.setUint32(at + Field.records, records, true);
}

/** The sequencer's half. Returns the header's checksum, which the next frame repeats. */
export function writeSequencerFields(
  view: DataView,
  bytes: Uint8Array,
  at: number,
  firstLsn: number,
  durableLsn: number,
  salt: Salt,
  timestamp: number,
  previousCrc: number,
  flags = 0,
): number {
  fillSequencerFields(view, at, firstLsn, durableLsn, salt, timestamp, previousCrc, flags);
  return checksumHeader(view, bytes, at);
}

/** The sequencer's half but for the checksum: something else must be computed of these fields first. */
export function fillSequencerFields(
  view: DataView,
  at: number,
  firstLsn: number,
  durableLsn: number,
  salt: Salt,
  timestamp: number,
  previousCrc: number,
  flags: number,
): void {
  view.setUint8(at + Field.flags, flags);
  writeU64(view, at + Field.firstLsn, firstLsn);
  writeU64(view, at + Field.durableLsn, durableLsn);
  view.setUint32(at + Field.salt, salt.low, true);
  view.setUint32(at + Field.salt + 4, salt.high, true);
  writeU64(view, at + Field.timestamp, timestamp);
  view.setUint32(at + Field.previousCrc, previousCrc, true);
}

/** Ends a header with its checksum, and returns it. */
export function checksumHeader(view: DataView, bytes: Uint8Array, at: number): number {
  const crc = crc32(bytes.subarray(at, at + Field.headerCrc));
  view.setUint32(at + Field.headerCrc, crc, true);
  return crc;
}

/**
 * Reads the header at `at`, or returns undefined when the bytes there are not a whole header of this segment: wrong
 * magic, wrong salt, or a checksum that does not hold. Nothing in it is used before its checksum held; and even then
 * no number is passed on that a `number` cannot hold, which the log never wrote.
 */
export function readFrameHeader(view: DataView, bytes: Uint8Array, at: number, salt: Salt): FrameHeader | undefined {
  if (at + FRAME_HEADER_BYTES > bytes.byteLength) return undefined;
  if (view.getUint32(at, true) !== FRAME_MAGIC) return undefined;
  if (view.getUint32(at + Field.salt, true) !== salt.low) return undefined;
  if (view.getUint32(at + Field.salt + 4, true) !== salt.high) return undefined;
  const headerCrc = view.getUint32(at + Field.headerCrc, true);
  if (crc32(bytes.subarray(at, at + Field.headerCrc)) !== headerCrc) return undefined;
  const records = view.getUint32(at + Field.records, true);
  const firstLsn = readU64(view, at + Field.firstLsn);
  const durableLsn = readU64(view, at + Field.durableLsn);
  const timestamp = readU64(view, at + Field.timestamp);
  if (firstLsn + records > MOST || durableLsn > MOST || timestamp > MOST) return undefined;
  return {
    type: bytes[at + Field.type],
    flags: bytes[at + Field.flags],
    codec: bytes[at + Field.codec],
    encryption: bytes[at + Field.encryption],
    storedBytes: view.getUint32(at + Field.storedBytes, true),
    rawBytes: view.getUint32(at + Field.rawBytes, true),
    records,
    payloadCrc: view.getUint32(at + Field.payloadCrc, true),
    firstLsn,
    durableLsn,
    timestamp,
    previousCrc: view.getUint32(at + Field.previousCrc, true),
    headerCrc,
  };
}

/** Builds a whole frame that the sequencer makes itself (seal, state, the commit of a transaction): no ring, no encoder. */
export function buildFrame(
  type: number,
  payload: Uint8Array,
  firstLsn: number,
  durableLsn: number,
  salt: Salt,
  timestamp: number,
  previousCrc: number,
  flags = 0,
  records = 0,
): { bytes: Uint8Array; headerCrc: number } {
  const bytes = new Uint8Array(frameBytes(payload.byteLength));
  const view = new DataView(bytes.buffer);
  bytes.set(payload, FRAME_HEADER_BYTES);
  writeEncoderFields(view, 0, type, payload.byteLength, payload.byteLength, records);
  view.setUint32(Field.payloadCrc, crc32(payload), true);
  const headerCrc = writeSequencerFields(view, bytes, 0, firstLsn, durableLsn, salt, timestamp, previousCrc, flags);
  return { bytes, headerCrc };
}
