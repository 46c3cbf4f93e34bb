import { corrupt } from '../errors.js';
import { type LevelName, levelNumber } from './levels.js';

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
    if (!isLsn(checkpoint) || !isLsn(low) || low < 1) throw new TypeError('not an LSN');
    if (!isPlain(subscriptions)) throw new TypeError('not a list of subscriptions');
    if (!Object.values(subscriptions).every(isSubscription)) throw new TypeError('not a subscription');
    if (!isShallow([rest, subscriptions], DEEPEST)) throw new TypeError('too deep');
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
