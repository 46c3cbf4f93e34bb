import { setTimeout as delay } from 'node:timers/promises';
import { WalError } from '../errors.js';
import type { Storage } from '../storage/storage.js';
import { inspectLog, type Recovered, type RecoveryMode } from './recover.js';

/** A write that takes longer looks like a torn tail for as long. */
const PAUSE_MS = 10;
const MOST_LOOKS = 10;

/**
 * As {@link inspectLog}, for somebody who takes no lock: a writer may be in the middle of a group, which looks like a
 * torn tail. So an end that is not clean is believed only when it is found at the same place twice.
 */
export async function inspectLive(storage: Storage, mode: RecoveryMode): Promise<Recovered> {
  let before: string | undefined;
  for (let looks = 1; ; looks++) {
    const found = look(storage, mode);
    const place = placeOf(found);
    if (place === undefined || place === before || looks === MOST_LOOKS) {
      if (found instanceof WalError) throw found;
      return found;
    }
    before = place;
    await delay(PAUSE_MS);
  }
}

function look(storage: Storage, mode: RecoveryMode): Recovered | WalError {
  try {
    return inspectLog(storage, mode);
  } catch (error) {
    if (error instanceof WalError && error.code === 'ERR_WAL_CORRUPT') return error;
    throw error;
  }
}

/** Where it ends, if not cleanly. */
function placeOf(found: Recovered | WalError): string | undefined {
  if (found instanceof WalError) return `${found.segment}@${found.offset}`;
  return found.torn && `${found.torn.segment.name}@${found.torn.from}`;
}
