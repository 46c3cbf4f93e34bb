import { corrupt } from '../errors.js';
import { type FrameHeader, FrameType, isEncoded } from './frame.js';
import { readU64, writeU64 } from './integers.js';

/**
 * A transaction frame says in its first bytes what it is to which transaction; records follow, as in any other frame.
 *
 *   0         16     20           24          32
 *   | id      | role | operations | first LSN | records
 *
 * `operations` and `first LSN` tell a prepare and a commit where the transaction's parts are and how many operations they
 * hold together; 0 in the other roles.
 */
export const TRANSACTION_PREFIX_BYTES = 32;

export const TransactionRole = {
  /** All of its operations, committed: a frame is there as a whole or not at all. */
  Whole: 0,
  /** Operations of a transaction that is not decided yet. */
  Part: 1,
  /** Everything before is durable, and committed or aborted later, perhaps after a restart. Holds no records. */
  Prepare: 2,
  /** Commits the parts before it. Holds one record without content, whose LSN is that of the commit. */
  Commit: 3,
  /** Aborts a prepared transaction. Holds no records. */
  Abort: 4,
} as const;
const HIGHEST_ROLE = TransactionRole.Abort;

export interface TransactionPrefix {
  /** A UUID. */
  id: string;
  role: number;
  operations: number;
  first: number;
}

export function writeTransactionPrefix(target: Uint8Array, at: number, prefix: TransactionPrefix): number {
  const { id, role, operations, first } = prefix;
  target.set(Buffer.from(id.replaceAll('-', ''), 'hex'), at);
  const view = new DataView(target.buffer, target.byteOffset + at, TRANSACTION_PREFIX_BYTES);
  view.setUint32(16, role, true);
  view.setUint32(20, operations, true);
  writeU64(view, 24, first);
  return at + TRANSACTION_PREFIX_BYTES;
}

/** Reads the prefix of the frame whose payload is `bytes[at, end)`. Throws `ERR_WAL_CORRUPT` when it is none. */
export function readTransactionPrefix(bytes: Uint8Array, at: number, end: number): TransactionPrefix {
  if (end - at < TRANSACTION_PREFIX_BYTES) throw malformed();
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, TRANSACTION_PREFIX_BYTES);
  const role = view.getUint32(16, true);
  const first = readU64(view, 24);
  if (role > HIGHEST_ROLE || !Number.isSafeInteger(first)) throw malformed();
  const hex = Buffer.from(bytes.buffer, bytes.byteOffset + at, 16).toString('hex');
  const id = `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
  return { id, role, operations: view.getUint32(20, true), first };
}

/**
 * Whether the frame may change what is known of transactions. Compressed and encrypted are only those that hold operations,
 * and these decide about nothing that was prepared.
 */
export function mayDecide(frame: Pick<FrameHeader, 'type' | 'codec' | 'encryption'>): boolean {
  return frame.type === FrameType.Transaction && !isEncoded(frame);
}

function malformed(): Error {
  return corrupt('A transaction frame does not begin as one should, though its checksum holds.', {});
}

/**
 * A step of a transaction that takes more than one frame. Its parts travel through the ring, between `begin` and what
 * decides over them.
 */
export type TransactionNote =
  /** Parts will follow: clean-up keeps them from now on. */
  | { step: 'begin'; id: string }
  /** No more of them, and no decision. */
  | { step: 'end'; id: string }
  /** They are all in the log, the first one at LSN `first`. Without any, `first` is 0. */
  | { step: 'prepare' | 'commit'; id: string; first: number; operations: number }
  | { step: 'commitPrepared' | 'abortPrepared'; id: string };

/** A prepared transaction that is neither committed nor aborted. */
export interface PreparedState {
  /** No operation of it has a lower LSN. */
  first: number;
  /** It was prepared behind this LSN. */
  prepared: number;
  /** How many operations it has. */
  operations: number;
}

/** What the log's state knows of transactions. */
export interface TransactionsState {
  /** Those in doubt, by id. */
  prepared: Record<string, PreparedState>;
  /**
   * Commits of operations that lie in an earlier segment than the commit: a replay that begins before `commit` needs
   * what lies from `first` on, so clean-up keeps it until the checkpoint is past the commit.
   */
  holds: { first: number; commit: number }[];
}

/** What is known when nothing is. */
export const NO_TRANSACTIONS: TransactionsState = { prepared: {}, holds: [] };

/**
 * What is known behind a prepare, a commit or an abort, whose frame starts with LSN `lsn` in a segment that starts with `segmentFirst`. A function of
 * what is in the log alone: the sequencer and everybody who reads the log come to the same.
 */
export function withTransaction(
  { prepared, holds }: TransactionsState,
  { id, role, operations, first }: TransactionPrefix,
  lsn: number,
  segmentFirst: number,
): TransactionsState {
  if (role === TransactionRole.Prepare) {
    return { prepared: { ...prepared, [id]: { first, prepared: lsn - 1, operations } }, holds };
  }
  const { [id]: _, ...rest } = prepared;
  const holding = role === TransactionRole.Commit && first < segmentFirst;
  return { prepared: rest, holds: holding ? withHold(holds, first, lsn, segmentFirst) : holds };
}

/** One hold for each segment with such commits at the most: clean-up keeps or removes a segment as a whole. */
function withHold(
  holds: TransactionsState['holds'],
  first: number,
  commit: number,
  segmentFirst: number,
): TransactionsState['holds'] {
  const here = holds.filter((hold) => hold.commit >= segmentFirst);
  const lowest = Math.min(first, ...here.map((hold) => hold.first));
  const still = holds.filter((hold) => hold.commit < segmentFirst && hold.first < lowest);
  return [...still, { first: lowest, commit }];
}

/** Without the holds that a checkpoint releases. */
export function releasedBy({ prepared, holds }: TransactionsState, checkpoint: number): TransactionsState {
  return { prepared, holds: holds.filter(({ commit }) => commit > checkpoint) };
}

/**
 * What is left of it in a log that was cut behind `lsn`: of those in doubt the ones that were prepared by then. One whose
 * commit was cut off is gone with it.
 */
export function transactionsUpTo({ prepared, holds }: TransactionsState, lsn: number): TransactionsState {
  return {
    prepared: Object.fromEntries(Object.entries(prepared).filter(([, transaction]) => transaction.prepared <= lsn)),
    holds: holds.flatMap(({ first, commit }) => (first <= lsn ? [{ first, commit: Math.min(commit, lsn) }] : [])),
  };
}

/** The lowest LSN that a clean-up must leave, for a log with this checkpoint. */
export function heldFrom({ prepared, holds }: TransactionsState, checkpoint: number): number {
  return Math.min(
    ...Object.values(prepared).map(({ first }) => first),
    ...holds.map(({ first, commit }) => (commit > checkpoint ? first : Number.POSITIVE_INFINITY)),
    Number.POSITIVE_INFINITY,
  );
}

/** Throws unless this is what a state may say about transactions. */
export function checkTransactions(transactions: TransactionsState): void {
  const { prepared, holds } = transactions;
  const isObject = typeof prepared === 'object' && prepared !== null && Array.isArray(holds);
  const numbers = isObject
    ? [
        ...Object.values(prepared).flatMap((known) => [known?.first, known?.prepared, known?.operations]),
        ...holds.flatMap((hold) => [hold?.first, hold?.commit]),
      ]
    : [undefined];
  if (!numbers.every(Number.isSafeInteger)) throw new TypeError('not transactions');
}
