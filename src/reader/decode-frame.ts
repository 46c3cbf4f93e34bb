import { type FrameHeader, FrameType, isSparse } from '../format/frame.js';
import { decodeRecords, type WalRecord } from '../format/record.js';
import { decodeSparse } from '../format/sparse.js';
import { sparseRecordsAt } from '../format/sparse-frame.js';
import { readTransactionPrefix, TRANSACTION_PREFIX_BYTES, TransactionRole } from '../format/transaction.js';
import type { Lsn } from '../types.js';

/** Appends to `into` the records of a frame with `from <= lsn <= to`. Its payload begins at `bytes[at]`. */
export type FrameDecoder = (
  frame: FrameHeader,
  bytes: Uint8Array,
  at: number,
  from: Lsn,
  to: Lsn,
  into: WalRecord[],
) => void;

/** The records as they were written, those of transactions too. */
export const decodeFrame: FrameDecoder = (frame, bytes, at, from, to, into) => {
  const { type, firstLsn, records, storedBytes, timestamp } = frame;
  const end = at + storedBytes;
  if (type === FrameType.Records) decodeRecords(bytes, at, end, records, firstLsn, timestamp, from, to, into);
  const before = into.length;
  if (isSparse(type)) {
    const lastLsn = firstLsn + records - 1;
    decodeSparse(bytes, at + sparseRecordsAt(type), end, firstLsn, lastLsn, timestamp, from, to, into);
  }
  if (!isOfTransaction(type) || records === 0) return;
  if (type === FrameType.Transaction) {
    decodeRecords(bytes, at + TRANSACTION_PREFIX_BYTES, end, records, firstLsn, timestamp, from, to, into);
  }
  const { id } = readTransactionPrefix(bytes, at, end);
  for (let i = before; i < into.length; i++) into[i].transaction = id;
};

function isOfTransaction(type: number): boolean {
  return type === FrameType.Transaction || type === FrameType.SparseTransaction;
}

/** A record as a replay sees it. */
export interface ReplayRecord extends WalRecord {
  /** An operation of a transaction that was not decided yet. */
  undecided?: true;
  /** It is the commit of operations that lie before it. */
  commits?: { id: string; first: Lsn; operations: number };
}

/**
 * The records with the transactions as a replay wants them: what is committed by one frame is at the LSN of its commit,
 * all of it or, when the commit is not within the bounds, nothing; commits of more than one frame say what they commit.
 */
export const decodeForReplay: FrameDecoder = (frame, bytes, at, from, to, into) => {
  if (!isOfTransaction(frame.type)) return decodeFrame(frame, bytes, at, from, to, into);
  const { firstLsn, records, storedBytes } = frame;
  const { id, role, first, operations } = readTransactionPrefix(bytes, at, at + storedBytes);
  const whole = role === TransactionRole.Whole;
  const commit = firstLsn + records - 1;
  if (whole && commit > to) return;
  const before = into.length;
  decodeFrame(frame, bytes, at, whole ? firstLsn : from, to, into);
  for (let i = before; i < into.length; i++) {
    const record: ReplayRecord = into[i];
    if (whole) record.lsn = commit;
    else if (role === TransactionRole.Commit) record.commits = { id, first, operations };
    else record.undecided = true;
  }
};

/** The operations of one transaction, of those that lie in parts. */
export function partsOf(id: string): FrameDecoder {
  return (frame, bytes, at, from, to, into) => {
    if (isPartOf(id, frame, bytes, at)) decodeFrame(frame, bytes, at, from, to, into);
  };
}

export function isPartOf(id: string, { type, storedBytes }: FrameHeader, bytes: Uint8Array, at: number): boolean {
  if (type !== FrameType.Transaction) return false;
  const prefix = readTransactionPrefix(bytes, at, at + storedBytes);
  return prefix.role === TransactionRole.Part && prefix.id === id;
}
