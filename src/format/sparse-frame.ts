import { type FrameHeader, FrameType } from './frame.js';
import { decodePayload, isReadable, type PayloadKeys } from './frame-payload.js';
import { sparseRecords } from './sparse.js';
import { TRANSACTION_PREFIX_BYTES } from './transaction.js';

/** Where the records of a frame that compaction left begin in its payload. */
export function sparseRecordsAt(type: number): number {
  return type === FrameType.SparseTransaction ? TRANSACTION_PREFIX_BYTES : 0;
}

/**
 * The records of a sparse frame up to `to`: how many, the first, the last (0 when there are none). Undefined when that cannot be told
 * without a key, or a codec that this Node.js lacks. `bytes` holds the frame, whose payload starts at `payloadAt`.
 */
export function sparseRecordsOf(
  header: FrameHeader,
  bytes: Uint8Array,
  payloadAt: number,
  to: number,
  keys: PayloadKeys | undefined,
): { count: number; first: number; last: number } | undefined {
  const { type, firstLsn, storedBytes } = header;
  if (!isReadable(header, bytes.subarray(payloadAt, payloadAt + storedBytes), keys)) return undefined;
  const raw = decodePayload(header, bytes, payloadAt, keys, { lsn: firstLsn });
  return sparseRecords(raw.subarray(sparseRecordsAt(type)), firstLsn, to);
}
