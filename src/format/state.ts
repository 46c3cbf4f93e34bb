import { corrupt } from '../errors.js';
import type { LevelName } from './levels.js';

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

export interface SubscriptionState {
  /** The LSN that it acknowledged last. */
  acknowledged: number;
  /** The level at which it is given records. */
  level: LevelName;
}

export const EMPTY_STATE: LogState = { checkpoint: 0, low: 1, subscriptions: {} };

export function encodeState(state: LogState): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(state));
}

export function decodeState(bytes: Uint8Array): LogState {
  try {
    const { checkpoint = 0, low = 1, subscriptions = {}, ...rest } = JSON.parse(Buffer.from(bytes).toString('utf8'));
    if (!Number.isSafeInteger(checkpoint) || !Number.isSafeInteger(low)) throw new TypeError('not an LSN');
    return { ...rest, checkpoint, low, subscriptions };
  } catch (cause) {
    throw Object.assign(corrupt('The state stored in a segment is not readable, though its checksum holds.', {}), {
      cause,
    });
  }
}

/** What changed: a new subscription, the LSN that one acknowledged last, or null for one that was given up. */
export type Positions = Record<string, SubscriptionState | number | null>;

export function encodePositions(positions: Positions): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(positions));
}

export function decodePositions(bytes: Uint8Array): Positions {
  try {
    const positions: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'));
    if (typeof positions !== 'object' || positions === null) throw new TypeError('not an object');
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
