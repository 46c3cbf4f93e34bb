import { WalError } from '../../src/errors.js';
import { filesOf } from '../../src/reader/storage-files.js';
import { verifyFiles } from '../../src/reader/verify.js';
import { inspectLog, type Recovered } from '../../src/recovery/recover.js';
import { endLastSegment } from '../../src/recovery/repair-tail.js';
import { judgeContents } from './contents.js';
import { damageForGood } from './damage.js';
import { lookForFlippedBit } from './flipped-bit.js';
import type { Life } from './life.js';
import { hold, Violation } from './model.js';
import { OPERATIONS } from './operations/index.js';
import type { Random } from './random.js';
import { readAll } from './reading.js';
import type { Call, CrashKind, Faults } from './simulated-disk.js';

/** After so many recoveries that were cut short, one is let through. */
const MOST_CUT_SHORT = 4;

/** Ends the process, or the power, and recovers until a recovery comes through. Judges and returns what it brought back. */
export async function reopen(life: Life, first: CrashKind): Promise<Recovered> {
  const { model, disk } = life;
  let kind = first;
  let promised = model.os;
  let lost = false;
  life.unsettled = false;
  for (const producer of life.producers) producer.collectInFlight(model);
  model.commitInFlight();
  for (let attempt = 0; ; attempt++) {
    lost ||= kind === 'power' || disk.syncFailed;
    if (lost) promised = model.disk;
    life.trace?.(`  ${kind} crash, recovery ${attempt}, promised ${promised}`);
    restart(life, kind);
    await life.keys.unlock(disk);
    if (attempt === 0 && life.random.oneIn(8)) await lookForFlippedBit(life);
    const faults = attempt < MOST_CUT_SHORT ? recoveryFaults(life) : {};
    disk.arm(faults);
    life.doing = 'recovery';
    try {
      const recovered = inspectLog(disk, 'tolerate-torn-tail');
      endLastSegment(disk, recovered, life.clock);
      disk.arm();
      await judge(life, recovered, promised, lost);
      const damaged = life.random.oneIn(16) ? await damageForGood(life, recovered) : undefined;
      await life.start(damaged ?? recovered);
      return recovered;
    } catch (error) {
      life.trace?.(`    -> ${String(error)}`);
      noteCrash(life);
      if (!disk.crashed && !isInjected(error, faults)) throw error;
      kind = life.random.pick(['process', 'power'] as const);
    }
  }
}

/** A new process, on a disk that has room or has not. */
export function restart(life: Life, kind: CrashKind): void {
  const { disk, random } = life;
  disk.restart(kind);
  disk.quotaBytes = random.oneIn(10) ? disk.usedBytes() + random.below(3000) : Number.POSITIVE_INFINITY;
}

/** A recovery was cut short. */
export function noteCrash(life: Life): void {
  if (!life.disk.crashed) return;
  life.tally.crashes++;
  life.tally.crashesInRecovery++;
  life.tally.points.add(life.lastCall);
}

export function isInjected(error: unknown, { failAt, failLookAt, failNext, errno = 'EIO' }: Faults): boolean {
  const code = firstCode(error);
  if (failAt !== undefined && code === errno) return true;
  return (failLookAt !== undefined || failNext !== undefined) && (code === 'EIO' || code === errno);
}

/** The code of what the disk said first, whatever it was wrapped in on its way. */
function firstCode(error: unknown): string | undefined {
  const { code, cause } = error as NodeJS.ErrnoException;
  const wrapped = code === 'ERR_WAL_NO_SPACE' || code === 'ERR_WAL_FAILED';
  return wrapped && cause !== undefined ? firstCode(cause) : code;
}

const RARE: readonly Call[] = ['makeFolder', 'truncate', 'rename', 'create', 'remove', 'list', 'size', 'freeBytes'];

/** One of the calls that are rare. */
export function rareCall(random: Random): Call {
  return random.pick(RARE);
}

export function recoveryFaults({ random }: Life): Faults {
  if (random.oneIn(3)) return { crashAt: random.between(1, random.oneIn(3) ? 20 : 10) };
  const faults: Faults = {};
  if (random.oneIn(12)) Object.assign(faults, { failAt: random.between(1, 10), errno: random.pick(['EIO', 'ENOSPC']) });
  if (random.oneIn(12)) faults.failNext = rareCall(random);
  if (random.oneIn(12)) faults.failLookAt = random.between(1, 40);
  if (random.oneIn(8)) faults.shortOneIn = random.between(2, 6);
  return faults;
}

async function judge(life: Life, recovered: Recovered, promised: number, lost: boolean): Promise<void> {
  const { model, disk, tally } = life;
  const { end, state } = recovered;
  model.checkEnd(end.lastLsn, promised);
  model.checkState(state, lost);
  for (const operation of OPERATIONS) await operation.judge?.(life, recovered);
  tally.records += await judgeContents(life, state, end.lastLsn);
  if (state.low > 1) await checkCleaned(life, state.low, end.lastLsn);
  if (life.random.oneIn(16)) {
    const { verdict, damage } = await verifyFiles(filesOf(disk), {}, life.keys.ring);
    hold(verdict !== 'corrupt', 'Honest', () => `a recovered log is said to be damaged: ${JSON.stringify(damage)}`);
  }
  model.recovered(end.lastLsn, state);
  tally.recoveries++;
}

async function checkCleaned({ disk, keys }: Life, low: number, last: number): Promise<void> {
  try {
    await readAll(disk, low, last, low - 1, keys.ring);
  } catch (error) {
    if (error instanceof WalError && error.code === 'ERR_WAL_TRUNCATED') return;
    throw error;
  }
  throw new Violation('Buried', `LSN ${low - 1} was cleaned up and can be read`);
}
