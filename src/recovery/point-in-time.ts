import { SegmentFlag } from '../format/segment-header.js';
import { clampedTo, EMPTY_STATE, type LogState } from '../format/state.js';
import { isSpare, segmentIdOf } from '../segments/names.js';
import { readContent, withFile } from '../segments/read-segment.js';
import type { SegmentInfo } from '../segments/segment-info.js';
import type { Storage } from '../storage/storage.js';
import type { Lsn } from '../types.js';
import { hasStrayBytes, losslessPatches } from './lossless.js';
import { PatchedStorage } from './patched-storage.js';
import { lastByte } from './quarantine.js';
import { checkLastLsn, highestId, inspectLog, type Recovered } from './recover.js';
import { firstKept, isEndDamaged, lastLsnOf, lowOf, type SegmentPatch, startOf } from './repair-plan.js';
import {
  logIdOf,
  newestStateOf,
  nextLsnOf,
  type Survey,
  type SurveyProgress,
  surveyLog,
  unreadableVoid,
} from './survey.js';

/**
 * Finds out what a directory holds, as {@link inspectLog} does, but reads all of it, and ends the log before the first
 * damage anywhere. What lies behind is named for quarantine. Changes nothing.
 */
export function* inspectPointInTime(storage: Storage): Generator<SurveyProgress, Recovered, undefined> {
  const all = yield* surveyLog(storage);
  const low = lowOf(all);
  const from = firstKept(all, low);
  const cleaned = all.slice(0, from).flatMap(({ name, headWhole }) => (headWhole ? [] : [name]));
  const unreadable = [...cleaned, ...unreadableVoid(storage, all)];
  const surveys = all.slice(from);
  const sound = countSound(storage, surveys, low);
  if (sound.whole === surveys.length) {
    const mended = mendable(storage, surveys);
    const rest = inspectLog(
      new PatchedStorage(storage, { segments: mended, setAside: unreadable }),
      'tolerate-torn-tail',
    );
    const verdict = mended.length > 0 ? 'salvaged' : rest.report.verdict;
    return { ...rest, mended, setAside: unreadable, report: { ...rest.report, verdict } };
  }
  return { ...cutBehind(storage, surveys, sound, low, unreadable), logId: logIdOf(all) };
}

/** How many segments are sound to their end, and whether the one behind them is up to somewhere. */
interface Sound {
  whole: number;
  partly: boolean;
}

function countSound(storage: Storage, surveys: readonly Survey[], low: Lsn): Sound {
  for (const [i, survey] of surveys.entries()) {
    // A header that one of its halves tells is as good as a whole one.
    if (survey.headState === undefined || !follows(survey, surveys[i - 1], low)) return { whole: i, partly: false };
    if (!endsSound(storage, survey)) return { whole: i, partly: true };
  }
  return { whole: surveys.length, partly: false };
}

/** What is wrong with segments that are otherwise sound, and no record was lost to. The last one may be cut off at `end`. */
function mendable(storage: Storage, surveys: readonly Survey[], end?: number): SegmentPatch[] {
  const mended: SegmentPatch[] = [];
  for (const [i, survey] of surveys.entries()) {
    const upTo = i === surveys.length - 1 ? end : undefined;
    const patches = losslessPatches(survey, upTo);
    const { endOffset } = endOf(survey);
    const strays = upTo === undefined && hasStrayBytes(storage, survey, endOffset);
    if (strays) patches.push({ from: endOffset, to: endOffset, pieces: [], keepTo: survey.fileBytes });
    const fileBytes = strays ? endOffset : undefined;
    if (patches.length > 0) mended.push({ name: survey.name, create: false, patches, fileBytes });
  }
  return mended;
}

function follows({ head }: Survey, before: Survey | undefined, low: Lsn): boolean {
  const { previous, firstLsn, flags, logId } = head!;
  if (before === undefined) return firstLsn <= low;
  if (previous.segmentId !== before.id || Buffer.compare(logId, before.head!.logId) !== 0) return false;
  const cuts = (flags & SegmentFlag.Truncates) !== 0;
  return cuts ? firstLsn <= previous.lastLsn + 1 : firstLsn === previous.lastLsn + 1;
}

function endsSound(storage: Storage, survey: Survey): boolean {
  const { next, isLast, runs } = survey;
  const { endOffset, endCrc, nextLsn, sealed } = endOf(survey);
  if (survey.compacted) {
    // A cut that was interrupted ended it in a seal of its own, sooner than its successor knows it to end.
    const reachesNext = isLast || nextLsn > lastLsnOf(survey);
    return sealed && runs.length === 1 && endOffset === survey.fileBytes && reachesNext;
  }
  if (next !== undefined) return endOffset === next.previous.endOffset && endCrc === next.previous.headerCrc;
  if (!isLast) return sealed && runs.length === 1;
  if (sealed) return runs.length === 1 && openedEnd(storage, survey) === endOffset;
  // Behind damage there is a seal, by which alone the end would be judged.
  return runs.every((run) => run.sealAt === undefined) && !isEndDamaged(storage, survey);
}

/**
 * Where an open would find the end. A cut that was interrupted may have put a seal in the middle of a closed segment, whose
 * own seal still stands at the end of the file.
 */
function openedEnd(storage: Storage, { name, head, headState }: Survey): number {
  return withFile(storage, name, (file) => readContent(file, { ...head!, state: headState! }).endOffset);
}

/** Where the frames end that follow one another from the header on. */
function endOf({ head, runs }: Survey): {
  endOffset: number;
  endCrc: number;
  nextLsn: Lsn;
  timestamp: number;
  sealAt: number | undefined;
  sealed: boolean;
} {
  const { headerBytes, headerCrc, firstLsn, createdAt } = head!;
  const run = runs.at(0);
  if (run?.from !== headerBytes || run.previousCrc !== headerCrc) {
    const none = { sealAt: undefined, sealed: false };
    return { endOffset: headerBytes, endCrc: headerCrc, nextLsn: firstLsn, timestamp: createdAt, ...none };
  }
  const { to, lastCrc, nextLsn, timestamp, sealAt } = run;
  return { endOffset: to, endCrc: lastCrc, nextLsn, timestamp, sealAt, sealed: sealAt !== undefined };
}

function cutBehind(
  storage: Storage,
  surveys: readonly Survey[],
  { whole, partly }: Sound,
  low: Lsn,
  unreadable: string[],
): Omit<Recovered, 'logId'> {
  const kept = surveys.slice(0, whole + (partly ? 1 : 0));
  const behind = surveys.slice(kept.length);
  const cutLsn = startOf(behind[0] ?? { head: undefined, runs: [] });
  // What the damaged segment may have cut away when it was begun.
  while (cutLsn > 0 && (kept.at(-1)?.head?.firstLsn ?? 0) >= cutLsn) kept.pop();
  const last = kept.at(-1);
  const end = last && endOf(last);
  const lastLsn = Math.min(
    end === undefined ? low - 1 : end.nextLsn - 1,
    last === undefined ? Number.MAX_SAFE_INTEGER : lastLsnOf(last),
    cutLsn > 0 ? cutLsn - 1 : Number.MAX_SAFE_INTEGER,
  );
  checkLastLsn(lastLsn, last?.name);
  const segments = kept.map((survey, i) => infoOf(survey, i === kept.length - 1 ? lastLsn : undefined));
  const mended = mendable(storage, kept, end?.endOffset);
  for (const { name, fileBytes } of mended) {
    const segment = segments.find((each) => each.name === name);
    if (segment !== undefined && fileBytes !== undefined) segment.fileBytes = fileBytes;
  }
  const info = segments.at(-1);
  const names = storage.list().filter((name) => segmentIdOf(name) !== undefined);
  const setAside = names.filter((name) => segmentIdOf(name)! > (last?.id ?? 0) && !unreadable.includes(name));
  const torn = last && info && tornOf(storage, info);
  const state = stateAt(surveys, lastLsn, low);
  // Where the damaged segment begins is known: what earlier ones hold from there on was cut away before.
  const known = Math.max(0, ...(cutLsn > 0 ? behind : surveys).map(nextLsnOf)) - 1;
  const firstLsn = Math.max(segments[0]?.firstLsn ?? 1, 1);
  const leftOut = kept.reduce((sum, { runs }) => sum + (runs.at(0)?.leftOut ?? 0), 0);
  const records = Math.max(0, lastLsn - firstLsn + 1 - leftOut);
  return {
    segments,
    obsolete: names.filter((name) => !setAside.includes(name) && !kept.some((survey) => survey.name === name)),
    setAside: [...unreadable, ...setAside],
    mended,
    state,
    end: {
      segmentId: last?.id ?? 0,
      lastLsn,
      endOffset: end?.endOffset ?? 0,
      headerCrc: end?.endCrc ?? 0,
    },
    nextLsnInFile: end?.nextLsn,
    lastTime: end?.timestamp ?? 0,
    // A segment with a successor was synced, but for a seal that an earlier attempt may have put there. The last one is
    // written again from its beginning: who vouches for it?
    unprovenFrom: last?.isLast ? last.head!.headerBytes : (end?.sealAt ?? end?.endOffset ?? 0),
    nextSegmentId: 1 + highestId(storage, names),
    spares: storage.list().filter(isSpare),
    torn,
    report: {
      verdict: 'salvaged',
      segments: kept.length,
      records,
      firstLsn: records > 0 ? firstLsn : 0,
      lastLsn,
      checkpoint: state.checkpoint,
      discardedBytes: torn === undefined ? 0 : torn.to - torn.from,
      quarantined: [],
      lost: known > lastLsn ? [{ firstLsn: lastLsn + 1, lastLsn: known }] : [],
      durationMs: 0,
    },
  };
}

function infoOf(survey: Survey, lastLsn: Lsn | undefined): SegmentInfo {
  const { name, id, head, fileBytes } = survey;
  const { salt, firstLsn, headerBytes, headerCrc } = head!;
  const { endOffset, endCrc, nextLsn, sealed } = endOf(survey);
  return {
    name,
    id,
    salt,
    firstLsn,
    lastLsn: lastLsn ?? Math.min(nextLsn - 1, lastLsnOf(survey)),
    headerBytes,
    headerCrc,
    endCrc,
    endOffset,
    fileBytes,
    state: sealed ? 'sealed' : 'open',
  };
}

function tornOf(storage: Storage, segment: SegmentInfo): Recovered['torn'] {
  const { name, endOffset, fileBytes, state } = segment;
  const to = withFile(storage, name, (file) => lastByte(file, endOffset, fileBytes));
  return to > endOffset || state === 'open' ? { segment, from: endOffset, to } : undefined;
}

/** The newest state that is known, as far as it speaks of what is left. */
function stateAt(surveys: readonly Survey[], lastLsn: Lsn, low: Lsn): LogState {
  const newest = surveys.map(newestStateOf).findLast((state) => state !== undefined) ?? EMPTY_STATE;
  return {
    ...clampedTo(newest, lastLsn),
    low: Math.max(1, Math.min(low, lastLsn + 1)),
    checkpoint: Math.min(newest.checkpoint, lastLsn),
  };
}
