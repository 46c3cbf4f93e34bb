import { isCorrupt } from '../errors.js';
import type { EncryptionState } from '../format/state.js';
import { segmentIdOf } from '../segments/names.js';
import { newestHeader, readHeader, withFile } from '../segments/read-segment.js';
import type { Storage, StorageFile } from '../storage/storage.js';
import { readDamagedHeader } from './damaged-header.js';
import { inSteps } from './in-steps.js';
import type { RecoveryMode } from './recover.js';
import { logIdOf, newestStateOf, surveyLog } from './survey.js';

/** What a log says of its keys: without it, a wrong one could not be told from the right one. */
export interface KnownKeys {
  /** Check values are bound to it. */
  logId: Uint8Array;
  encryption: EncryptionState | undefined;
}

/** Whether the log is to be read with a damaged header, too; otherwise that is refused later on. */
export function readsDamaged(mode: RecoveryMode): boolean {
  return mode === 'salvage' || mode === 'point-in-time';
}

/**
 * The newest header knows every key. When it is lost and `damaged` is to be read all the same, all that is left of the log
 * is read for what else tells of them. Undefined: nothing does, or there is no log yet.
 */
export async function knownKeys(
  storage: Storage,
  damaged: boolean,
  signal?: AbortSignal,
): Promise<KnownKeys | undefined> {
  const newest = storage.list().findLast((name) => segmentIdOf(name) !== undefined);
  const told = newest === undefined ? undefined : ofHeader(storage, newest);
  if (told !== undefined || newest === undefined) return told;
  if (damaged) return ofSurveys(storage, signal);
  const header = newestHeader(storage);
  return header && { logId: header.logId, encryption: header.state.encryption };
}

function ofHeader(storage: Storage, name: string): KnownKeys | undefined {
  try {
    return withFile(storage, name, wholeHeader) ?? withFile(storage, name, oneHalf);
  } catch (error) {
    // Cleaned up since the directory was listed, or a state that is none.
    const { code } = error as NodeJS.ErrnoException;
    if (!isCorrupt(error) && code !== 'ENOENT') throw error;
    return undefined;
  }
}

function wholeHeader(file: StorageFile): KnownKeys | undefined {
  try {
    const { logId, state } = readHeader(file);
    return { logId, encryption: state.encryption };
  } catch (error) {
    if (!isCorrupt(error)) throw error;
    return undefined;
  }
}

function oneHalf(file: StorageFile): KnownKeys | undefined {
  const { head, headState } = readDamagedHeader(file) ?? {};
  return head && headState && { logId: head.logId, encryption: headState.encryption };
}

async function ofSurveys(storage: Storage, signal: AbortSignal | undefined): Promise<KnownKeys | undefined> {
  const surveys = await inSteps(surveyLog(storage), undefined, signal);
  const logId = logIdOf(surveys);
  const state = surveys.map(newestStateOf).findLast((known) => known !== undefined);
  return logId && { logId, encryption: state?.encryption };
}
