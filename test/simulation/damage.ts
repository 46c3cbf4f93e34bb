import { WalError } from '../../src/errors.js';
import { filesOf } from '../../src/reader/storage-files.js';
import { verifyFiles } from '../../src/reader/verify.js';
import { inspectPointInTime } from '../../src/recovery/point-in-time.js';
import { inspectLog, type Recovered } from '../../src/recovery/recover.js';
import { endLastSegment } from '../../src/recovery/repair-tail.js';
import { salvageLog } from '../../src/recovery/salvage.js';
import { finish, type LsnSpan } from '../../src/recovery/survey.js';
import { repairStorage } from '../../src/upkeep/repair-log.js';
import {
  chooseHoles,
  damage,
  type Hole,
  hidesCut,
  hidesMark,
  hidesReplaced,
  isHit,
  type Part,
  partsOf,
  tornEnd,
} from './holes.js';
import type { Life } from './life.js';
import { hold } from './model.js';
import { readAll } from './reading.js';
import { isInjected, noteCrash, recoveryFaults, restart } from './reopening.js';
import type { Faults } from './simulated-disk.js';

/** What was there before the damage, and what of it can be there no more. */
interface Before {
  low: number;
  last: number;
  checkpoint: number;
  parts: Part[];
  holes: Hole[];
  /** LSNs in parts that were not hit. */
  safe: Set<number>;
}

const MOST_CUT_SHORT = 3;

/**
 * Damages a sound log where nobody sees it, and then has it read by `salvage`, and repaired, or cut back to before the
 * damage: with crashes and faults on the way. All that was not hit must be there, nothing else may be, and what is gone
 * must be reported. Returns the log as it is to go on; undefined when nothing was damaged.
 */
export async function damageForGood(life: Life, recovered: Recovered): Promise<Recovered | undefined> {
  const { disk, random, tally } = life;
  const { end, state, segments } = recovered;
  const last = segments.at(-1);
  // On a full disk a torn tail stays where it was: what was in it nobody knows, and it is reported as lost.
  if (last?.state !== 'sealed' || last.fileBytes > last.endOffset) return undefined;
  const parts = partsOf(disk);
  const holes = chooseHoles(disk, random);
  if (hidesCut(disk, parts, holes) || hidesReplaced(disk, parts, holes)) return undefined;
  const { low, checkpoint } = state;
  const torn = tornEnd(parts, holes);
  const gone = torn === undefined ? holes : [...holes, torn];
  const safe = safeLsns(life, parts, gone, low);
  const before: Before = { low, checkpoint, last: end.lastLsn, parts, holes: gone, safe };
  for (const hole of holes) {
    life.trace?.(`    damage ${hole.name} from ${hole.from} to ${hole.to}`);
    damage(disk, random, hole);
  }
  tally.damaged++;
  life.doing = 'salvage';
  const readable = await judgeSalvage(life, before);
  disk.quotaBytes = Number.POSITIVE_INFINITY;
  return readable && random.oneIn(2) ? repair(life, before) : cutBack(life, before);
}

function safeLsns({ model }: Life, parts: readonly Part[], holes: readonly Hole[], low: number): Set<number> {
  const safe = new Set<number>();
  for (const part of parts) {
    if (isHit(part, holes)) continue;
    for (let lsn = Math.max(part.firstLsn, low); lsn <= part.lastLsn; lsn++) if (!model.isAbsent(lsn)) safe.add(lsn);
  }
  return safe;
}

/** Returns whether there was a way around it: one hole always leaves one, several together may not. */
async function judgeSalvage(life: Life, before: Before): Promise<boolean> {
  const { ring } = life.keys;
  const salvaged = await salvageLog(life.disk, undefined, undefined, ring).catch((error: unknown) => {
    const beyondRepair = error instanceof WalError && error.code === 'ERR_WAL_CORRUPT';
    if (!beyondRepair || before.holes.length === 1) throw error;
    life.trace?.(`    salvage: ${error.message}`);
    life.tally.refused++;
  });
  if (salvaged === undefined) return false;
  const { recovered, view } = salvaged;
  const { end, state, report } = recovered;
  const records = end.lastLsn < state.low ? [] : await readAll(filesOf(view), state.low, end.lastLsn, undefined, ring);
  const found = new Set(records.map((record) => record.lsn));
  for (const record of records) life.model.checkRecord(record);
  checkLosses(life, before, 'salvage', recovered, found, report.lost ?? []);
  life.tally.salvaged++;
  return true;
}

/** Puts gaps in the place of what is damaged, and goes on behind it. */
async function repair(life: Life, before: Before): Promise<Recovered> {
  const { disk, keys, model, tally } = life;
  life.doing = 'repair';
  const { kept, lost } = await untilDone(life, () =>
    repairStorage(disk, { encryptionKey: keys.encrypted ? keys.source : undefined }),
  );
  // All of it is durable when it is done.
  if (life.random.oneIn(2)) disk.restart('power');
  const recovered = inspectLog(disk, 'tolerate-torn-tail');
  const { end, state } = recovered;
  const records = end.lastLsn < state.low ? [] : await readAll(disk, state.low, end.lastLsn, undefined, keys.ring);
  for (const record of records) model.checkRecord(record);
  const found = new Set(records.map((record) => record.lsn));
  hold(kept === found.size, 'Honest', () => `repair says that it kept ${kept} records, and ${found.size} are there`);
  checkLosses(life, before, 'repair', recovered, found, lost);
  endLastSegment(disk, recovered, life.clock);
  model.recovered(end.lastLsn, state);
  const gone = range(state.low, end.lastLsn).filter((lsn) => !found.has(lsn));
  tally.lost += gone.filter((lsn) => lsn >= before.low && !model.isAbsent(lsn)).length;
  model.gaveUp(gone);
  tally.repaired++;
  await checkSound(life, 'repair');
  return recovered;
}

/** Ends the log before the first damage. */
async function cutBack(life: Life, before: Before): Promise<Recovered> {
  const { disk, model, tally } = life;
  life.doing = 'point-in-time';
  // One that was cut short may have moved some of it away already. Or it closed a segment behind which nothing was missing:
  // then the next one keeps what it would have given up.
  const told: LsnSpan[] = [];
  const recovered = await untilDone(life, async () => {
    const found = finish(inspectPointInTime(disk));
    told.push(...(found.report.lost ?? []));
    endLastSegment(disk, found, life.clock);
    return found;
  });
  const { end, state, report } = recovered;
  life.trace?.(`    cut back from ${before.last} to ${end.lastLsn}, lost ${JSON.stringify(told)}`);
  const hits = before.parts.filter((part) => isHit(part, before.holes)).map((part) => part.firstLsn - 1);
  // With the clean-up mark lost the log seems to lack its beginning, and nothing behind that can be kept.
  const least = state.low < before.low ? 0 : Math.min(before.last, ...hits);
  hold(end.lastLsn >= least && end.lastLsn <= before.last, 'Durable', () => {
    return `cut back to LSN ${end.lastLsn}, the first damage is behind ${least}`;
  });
  if (end.lastLsn >= state.low) {
    const records = await readAll(disk, state.low, end.lastLsn, undefined, life.keys.ring);
    model.checkRecords(records, state.low, end.lastLsn);
  }
  for (const lsn of before.safe) {
    const there = lsn <= end.lastLsn;
    hold(there ? !isWithin(lsn, report.lost ?? []) : isWithin(lsn, told), 'Loud', () => {
      return `LSN ${lsn} is ${there ? 'reported lost and there' : 'gone and not reported lost'}`;
    });
  }
  checkState(before, recovered);
  await checkSound(life, 'point-in-time');
  tally.lost += before.last - end.lastLsn;
  tally.cutBack++;
  model.recovered(end.lastLsn, state);
  return recovered;
}

/** Does it again until no crash and no fault ends it. */
async function untilDone<T>(life: Life, work: () => Promise<T>): Promise<T> {
  const { disk, random } = life;
  for (let attempt = 0; ; attempt++) {
    const faults = attempt < MOST_CUT_SHORT ? repairFaults(life) : {};
    disk.arm(faults);
    try {
      const done = await work();
      disk.arm();
      return done;
    } catch (error) {
      life.trace?.(`    -> ${String(error)}`);
      noteCrash(life);
      if (!disk.crashed && !isInjected(error, faults)) throw error;
      // What a failed sync left behind may be in the page cache alone: only the power's going shows what there is.
      restart(life, disk.syncFailed ? 'power' : random.pick(['process', 'power'] as const));
      disk.quotaBytes = Number.POSITIVE_INFINITY;
    }
  }
}

/** It takes more calls than a recovery: crashes come later, too. */
function repairFaults(life: Life): Faults {
  return life.random.oneIn(2) ? { crashAt: life.random.between(1, 32) } : recoveryFaults(life);
}

/** Everything that was not hit is there, and everything that is not there is reported, up to where anything is known. */
function checkLosses(
  life: Life,
  before: Before,
  what: string,
  recovered: Recovered,
  found: ReadonlySet<number>,
  lost: readonly LsnSpan[],
): void {
  const { end, state } = recovered;
  for (const lsn of before.safe) {
    hold(found.has(lsn), 'Durable', () => `${what} lost LSN ${lsn}, which was not damaged`);
    hold(!isWithin(lsn, lost), 'Honest', () => `${what} reports LSN ${lsn} as lost, and it is there`);
  }
  for (const lsn of range(Math.max(before.low, state.low), end.lastLsn)) {
    const there = found.has(lsn);
    // What compaction took out nobody misses, wherever it had been.
    if (!there && life.model.isAbsent(lsn) && !life.model.isGap(lsn)) continue;
    hold(there !== isWithin(lsn, lost), 'Loud', () => {
      return `${what}: LSN ${lsn} is ${there ? 'reported lost and there' : 'gone and not reported lost'}`;
    });
  }
  hold(state.low < before.low || lost.every(({ lastLsn }) => lastLsn >= before.low), 'Honest', () => {
    return `${what} reports as lost what was cleaned up below ${before.low}: ${JSON.stringify(lost)}`;
  });
  const known = knownEnd(before);
  hold(end.lastLsn >= known, 'Loud', () => `${what} ends at ${end.lastLsn}, and LSN ${known} was known of`);
  hold(end.lastLsn <= before.last, 'Honest', () => `${what} ends at ${end.lastLsn} and not at ${before.last}`);
  life.trace?.(`    ${what}: ends at ${end.lastLsn} of ${before.last}, lost ${JSON.stringify(lost)}`);
  checkState(before, recovered);
}

/** The highest LSN that a part which was not hit holds, or says to be before it. */
function knownEnd({ parts, holes }: Before): number {
  const whole = parts.filter((part) => !isHit(part, holes));
  return Math.max(0, ...whole.map((part) => Math.max(part.firstLsn - 1, part.lastLsn)));
}

async function checkSound({ disk }: Life, what: string): Promise<void> {
  const { verdict, damage } = await verifyFiles(filesOf(disk));
  hold(verdict !== 'corrupt', 'Honest', () => `after ${what} the log is damaged: ${JSON.stringify(damage)}`);
}

/** With the newest state lost an older one comes into force, but never one that was not; and the clean-up mark is told again. */
function checkState(before: Before, { state }: Recovered): void {
  const { parts, holes, low } = before;
  hold(state.low === low || hidesMark(parts, holes, low), 'Loud', () => `the mark is ${state.low}, it was ${low}`);
  hold(state.low <= before.low && state.checkpoint <= before.checkpoint, 'Honest', () => {
    return `the state is ${JSON.stringify(state)}, it was at ${before.low} and ${before.checkpoint}`;
  });
}

function isWithin(lsn: number, spans: readonly LsnSpan[]): boolean {
  return spans.some(({ firstLsn, lastLsn }) => lsn >= firstLsn && lsn <= lastLsn);
}

function range(first: number, last: number): number[] {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i);
}
