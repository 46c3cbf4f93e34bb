import { corrupt } from '../errors.js';
import { type LevelName, levelNumber } from './levels.js';
import {
  checkTransactions,
  heldFrom,
  NO_TRANSACTIONS,
  releasedBy,
  type TransactionPrefix,
  TransactionRole,
  type TransactionsState,
  transactionsUpTo,
  withTransaction,
} from './transaction.js';

/**
 * What must outlive older segments. The header of each segment carries it as it was when the segment began, a state
 * frame whenever it changes, and the seal as it was at the end: so the newest one is always in the last segment.
 * Stored as JSON in UTF-8: small, rarely written, and an older reader can step over keys that it does not know.
 */
export interface LogState {
  /** The state up to this LSN is safe outside the log; 0 before the first checkpoint. */
  checkpoint: number;
  /** Records below this LSN were given up by clean-up; what still lies around of them is not part of the log. */
  low: number;
  /** Named consumers. */
  subscriptions: Record<string, SubscriptionState>;
  /** Undefined as long as the log was never opened with a key. */
  encryption?: EncryptionState;
  /** Absent while there is nothing to say. */
  transactions?: TransactionsState;
  /**
   * Compaction compared the records up to this LSN with one another. The log cannot be cut below it: what was replaced
   * by a record above the cut is not there any more.
   */
  compacted?: number;
  /**
   * Compaction took deletes up to this LSN out of a log without a checkpoint. The first checkpoint must not lie below
   * it: the state outside would hold what nothing deletes any more.
   */
  deletesGone?: number;
}

/** What a log says of its keys. The state of a segment knows a key before a frame that needs it is written. */
export interface EncryptionState {
  /** Id of the key that was in use last. */
  current: number;
  /** The log's, in base64, as in its headers: should all of those be lost, no frame could be told from a forged one. */
  logId: string;
  /** Of each key that was ever used, by its id: a value that tells whether a key is that one. */
  keys: Record<string, string>;
}

export interface SubscriptionState {
  /** The LSN that it acknowledged last. */
  acknowledged: number;
  /** The level at which it is given records. */
  level: LevelName;
}

const LOG_ID_BYTES = 16;

export const EMPTY_STATE: LogState = { checkpoint: 0, low: 1, subscriptions: {} };

export function encodeState(state: LogState): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(state));
}

export function decodeState(bytes: Uint8Array): LogState {
  try {
    const { checkpoint = 0, low = 1, subscriptions = {}, ...rest } = JSON.parse(Buffer.from(bytes).toString('utf8'));
    if (!isLsn(checkpoint) || !isLsn(low) || low < 1) throw new TypeError('not an LSN');
    if (!isPlain(subscriptions)) throw new TypeError('not a list of subscriptions');
    if (!Object.values(subscriptions).every(isSubscription)) throw new TypeError('not a subscription');
    if (!isShallow([rest, subscriptions], DEEPEST)) throw new TypeError('too deep');
    if (rest.transactions !== undefined) checkTransactions(rest.transactions);
    if (rest.encryption !== undefined) checkEncryption(rest.encryption);
    return { ...rest, checkpoint, low, subscriptions };
  } catch (cause) {
    throw Object.assign(corrupt('The state stored in a segment is not readable, though its checksum holds.', {}), {
      cause,
    });
  }
}

/** What the log is about to write again must not be nested so deep that writing it overflows the stack. */
const DEEPEST = 32;

function isShallow(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return true;
  return levels > 0 && Object.values(value).every((inner) => isShallow(inner, levels - 1));
}

function isPlain(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isLsn(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isSubscription(value: unknown): value is SubscriptionState {
  return isPlain(value) && isLsn(value.acknowledged) && levelNumber(value.level) >= 0;
}

/** Before anybody asks for a key by it. */
function checkEncryption(encryption: unknown): asserts encryption is EncryptionState {
  const { current, logId, keys } = (encryption ?? {}) as Partial<EncryptionState>;
  if (typeof logId !== 'string' || Buffer.from(logId, 'base64').byteLength !== LOG_ID_BYTES)
    throw new TypeError('no log id');
  if (typeof keys !== 'object' || keys === null || keys[`${current}`] === undefined) throw new TypeError('no keys');
  for (const [id, checkValue] of Object.entries(keys)) {
    if (!/^[1-9]\d{0,9}$/.test(id) || typeof checkValue !== 'string') throw new TypeError('not a key');
  }
}

/** The state of a log that goes on with this key. */
export function withKey(state: LogState, logId: Uint8Array, keyId: number, checkValue: string): LogState {
  const keys = { ...state.encryption?.keys, [keyId]: checkValue };
  return { ...state, encryption: { current: keyId, logId: Buffer.from(logId).toString('base64'), keys } };
}

/** The id of the log, which the state of an encrypted one knows. */
export function logIdIn({ encryption }: LogState): Uint8Array | undefined {
  return encryption && new Uint8Array(Buffer.from(encryption.logId, 'base64'));
}

/** What changed: a new subscription, the LSN that one acknowledged last, or null for one that was given up. */
export type Positions = Record<string, SubscriptionState | number | null>;

export function encodePositions(positions: Positions): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(positions));
}

export function decodePositions(bytes: Uint8Array): Positions {
  try {
    const positions: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'));
    if (!isPlain(positions)) throw new TypeError('not an object');
    const changes = Object.values(positions);
    if (!changes.every((change) => change === null || isLsn(change) || isSubscription(change)))
      throw new TypeError('not a position');
    if (!isShallow(positions, DEEPEST)) throw new TypeError('too deep');
    return positions as Positions;
  } catch (cause) {
    throw Object.assign(corrupt('Positions stored in a segment are not readable, though their checksum holds.', {}), {
      cause,
    });
  }
}

export function withPositions(state: LogState, positions: Positions): LogState {
  const subscriptions = new Map(Object.entries(state.subscriptions));
  for (const [name, change] of Object.entries(positions)) {
    const known = subscriptions.get(name);
    if (change === null) subscriptions.delete(name);
    else if (typeof change === 'object') subscriptions.set(name, change);
    else if (known !== undefined) subscriptions.set(name, { ...known, acknowledged: change });
  }
  // fromEntries makes own properties of all names, '__proto__' included.
  return { ...state, subscriptions: Object.fromEntries(subscriptions) };
}

/** The state behind a transaction frame; see {@link withTransaction}. */
export function afterTransaction(
  state: LogState,
  prefix: TransactionPrefix,
  lsn: number,
  segmentFirst: number,
): LogState {
  if (prefix.role === TransactionRole.Whole || prefix.role === TransactionRole.Part) return state;
  return withTransactions(state, withTransaction(state.transactions ?? NO_TRANSACTIONS, prefix, lsn, segmentFirst));
}

/** The state with the checkpoint at `lsn`; it never goes back. */
export function withCheckpoint(state: LogState, lsn: number): LogState {
  const checkpoint = Math.max(state.checkpoint, lsn);
  return withTransactions({ ...state, checkpoint }, releasedBy(state.transactions ?? NO_TRANSACTIONS, checkpoint));
}

/** The state of a log that was cut behind `lsn`. */
export function clampedTo(state: LogState, lsn: number): LogState {
  const subscriptions = Object.entries(state.subscriptions).map(([name, { acknowledged, ...rest }]) => [
    name,
    { acknowledged: Math.min(acknowledged, lsn), ...rest },
  ]);
  const { compacted = 0, deletesGone = 0 } = state;
  const cut = {
    ...state,
    ...(compacted > 0 && { compacted: Math.min(compacted, lsn) }),
    ...(deletesGone > 0 && { deletesGone: Math.min(deletesGone, lsn) }),
    subscriptions: Object.fromEntries(subscriptions),
  };
  return withTransactions(cut, transactionsUpTo(state.transactions ?? NO_TRANSACTIONS, lsn));
}

/** The lowest LSN that somebody still needs: a clean-up may go up to there. */
export function neededFrom({ checkpoint, subscriptions, transactions = NO_TRANSACTIONS }: LogState): number {
  const acknowledged = Object.values(subscriptions).map((subscription) => subscription.acknowledged);
  return Math.min(checkpoint + 1, ...acknowledged.map((lsn) => lsn + 1), heldFrom(transactions, checkpoint));
}

function withTransactions({ transactions: _, ...state }: LogState, transactions: TransactionsState): LogState {
  const nothing = Object.keys(transactions.prepared).length + transactions.holds.length === 0;
  return nothing ? state : { ...state, transactions };
}
