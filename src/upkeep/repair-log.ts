import fs from 'node:fs';
import { DirectoryLock } from '../coordinator/lock.js';
import { corrupt, WalError } from '../errors.js';
import { type EncryptionKey, KeyRing, keySourceOf } from '../format/key-ring.js';
import { filesOf } from '../reader/storage-files.js';
import { type VerifyReport, verifyFiles } from '../reader/verify.js';
import { applyRepair, settleRepair } from '../recovery/apply-repair.js';
import { inSteps } from '../recovery/in-steps.js';
import { knownKeys } from '../recovery/known-keys.js';
import { PatchedStorage } from '../recovery/patched-storage.js';
import { openError } from '../recovery/recover.js';
import { planRepair, type RepairPlan } from '../recovery/repair-plan.js';
import type { LsnSpan, SurveyProgress } from '../recovery/survey.js';
import { LOCK_NAME, segmentIdOf } from '../segments/names.js';
import { NodeStorage } from '../storage/node-storage.js';
import type { Storage } from '../storage/storage.js';

export interface RepairOptions {
  /** Say what would be done, and change nothing. Default: false. */
  dryRun?: boolean;
  /** Called now and then while the log is read, which happens more than once. */
  onProgress?: (progress: SurveyProgress) => void;
  /** Ends the work before anything is changed; it then rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Of an encrypted log, as for `open`; without it `ERR_WAL_KEY`. */
  encryptionKey?: EncryptionKey;
}

export interface RepairReport {
  /** `clean`: there was nothing to do. */
  verdict: 'clean' | 'repaired';
  /** Records that can be read. */
  kept: number;
  /** LSNs that the log lacks, in order; those included that an earlier repair gave up. */
  lost: LsnSpan[];
  /** Files in the log's directory that keep what was damaged; empty for a dry run. */
  quarantined: string[];
  /** Places that were damaged. */
  damage: VerifyReport['damage'];
}

/**
 * Makes a sound log of a damaged one: all that can be read stays where it is, also behind the damage; gaps take the place
 * of what cannot, which is copied to `quarantine/` first. Nothing is ever deleted. The plan is checked, by verifying the
 * log as it would be, before the first byte is changed. Safe to cut short at any moment, and to begin anew.
 *
 * Rejects with `ERR_WAL_LOCKED` while the log is open for writing, `ERR_WAL_NOT_FOUND` when there is none, and
 * `ERR_WAL_CORRUPT` when the damage is of a kind that it cannot repair; nothing was changed then. With `ERR_WAL_FAILED` when
 * the directory cannot be read or written.
 */
export async function repairLog(directory: string, options: RepairOptions = {}): Promise<RepairReport> {
  options.signal?.throwIfAborted();
  try {
    if (!holdsLog(directory)) throw new WalError('ERR_WAL_NOT_FOUND', `There is no log in ${directory}.`);
    const lock = DirectoryLock.acquire(directory);
    try {
      return await repairStorage(new NodeStorage(directory), options);
    } finally {
      lock.release();
    }
  } catch (error) {
    throw options.signal?.aborted ? error : openError(error, directory);
  }
}

/** The same, over any storage. */
export async function repairStorage(storage: Storage, options: RepairOptions = {}): Promise<RepairReport> {
  const { signal, onProgress } = options;
  const keys = await unlock(storage, options);
  const { damage, verdict, records, lost } = await verifyFiles(filesOf(storage), { signal, onProgress }, keys);
  if (verdict !== 'corrupt') {
    if (options.dryRun !== true) settleRepair(storage);
    return { verdict: 'clean', kept: records, lost, quarantined: [], damage };
  }
  const last = storage
    .list()
    .filter((name) => segmentIdOf(name) !== undefined)
    .sort()
    .at(-1);
  const endDamaged = damage.some(({ segment }) => segment === last);
  const plan = await inSteps(planRepair(storage, { endDamaged, keys }), onProgress, signal);
  await check(storage, plan, options, keys);
  const quarantined: string[] = [];
  if (options.dryRun !== true) {
    quarantined.push(...applyRepair(storage, plan));
    settleRepair(storage);
  }
  return { verdict: 'repaired', kept: plan.kept, lost: plan.lost, quarantined, damage };
}

/** With the wrong key, or none, sound frames could not be told from forged ones. */
async function unlock(storage: Storage, { encryptionKey, signal }: RepairOptions): Promise<KeyRing> {
  const keys = new KeyRing(keySourceOf(encryptionKey));
  const known = await knownKeys(storage, true, signal);
  if (known !== undefined) await keys.unlock(known.logId, known.encryption);
  return keys;
}

/** A plan that does not lead to a sound log is not carried out. */
async function check(
  storage: Storage,
  plan: RepairPlan,
  { signal, onProgress }: RepairOptions,
  keys: KeyRing,
): Promise<void> {
  const repaired = filesOf(new PatchedStorage(storage, plan));
  const { damage, records } = await verifyFiles(repaired, { signal, onProgress }, keys);
  const [first] = damage;
  if (first === undefined && records === plan.kept) return;
  const { segment, offset, lsn, reason } = first ?? { reason: `${records} records instead of ${plan.kept}` };
  throw corrupt(
    `This damage cannot be repaired: ${segment ?? 'the log'} would still not be sound (${reason}). Nothing was touched; ` +
      "recoveryMode: 'salvage' reads what can be read.",
    { segment, offset, lsn },
  );
}

function holdsLog(directory: string): boolean {
  if (!fs.statSync(directory, { throwIfNoEntry: false })?.isDirectory()) return false;
  return fs.readdirSync(directory).some((name) => name === LOCK_NAME || segmentIdOf(name) !== undefined);
}
