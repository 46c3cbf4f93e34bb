import { randomBytes } from 'node:crypto';
import { corrupt } from '../errors.js';
import { buildFrame, FRAME_HEADER_BYTES, FrameType, HeaderFlag, type Salt } from '../format/frame.js';
import type { PayloadKeys } from '../format/frame-payload.js';
import { type Gap, gapFrames, giveHeaderChecksum, type Piece } from '../format/gap.js';
import { encodeSeal } from '../format/seal.js';
import {
  encodeSegmentHeader,
  encodeStateOf,
  headerBytesUpTo,
  type Predecessor,
  SEGMENT_HEADER_UNIT,
  SegmentFlag,
  type SegmentHeader,
  segmentHeaderBytes,
} from '../format/segment-header.js';
import { EMPTY_STATE, type LogState } from '../format/state.js';
import { beganAnewFrom } from '../segments/chain.js';
import { segmentName } from '../segments/names.js';
import { hasLeftOver, readContent, withFile } from '../segments/read-segment.js';
import type { Storage } from '../storage/storage.js';
import type { Lsn } from '../types.js';
import { hasStrayBytes, losslessPatches } from './lossless.js';
import {
  type LsnSpan,
  logIdOf,
  newestStateOf,
  type Run,
  type Survey,
  type SurveyProgress,
  surveyLog,
  unreadableVoid,
} from './survey.js';
import { verdictOf } from './verdict.js';

/** What a region of a file is to hold: the pieces, and zeros between them. */
export interface Patch {
  from: number;
  to: number;
  pieces: Piece[];
  /** What stands there up to this offset is kept in quarantine. */
  keepTo: number;
}

export interface SegmentPatch {
  name: string;
  /** The file is missing. */
  create: boolean;
  patches: Patch[];
  /** The file is to be this long; undefined: as long as it is, or as the patches make it. */
  fileBytes: number | undefined;
}

/** What makes a sound log of a damaged one, without moving or changing anything that is whole. */
export interface RepairPlan {
  segments: SegmentPatch[];
  /** Segment files of which nothing can be read and that nothing follows. */
  setAside: string[];
  /** LSNs that the log lacks, in order; those included that an earlier repair gave up. */
  lost: LsnSpan[];
  /** Records that can be read. */
  kept: number;
  /** The last LSN, lost or not. */
  lastLsn: Lsn;
}

export interface PlanOptions {
  /** The end of the last segment is known to be damaged, also where recovery would take it for a torn tail. */
  endDamaged?: boolean;
  /** Of an encrypted log: frames that are not what their writer wrote are damage then. */
  keys?: PayloadKeys;
}

/**
 * No segment is larger (`segmentBytes` and `ringBytes` have limits). Whoever states that one was is not believed: filling it
 * would take all the memory and the disk that there is.
 */
const MOST_SEGMENT_BYTES = 2 ** 32 + 2 ** 30;

/** Reads all of a log, finds what is damaged, and works out how to put gaps in its place. Changes nothing. */
export function* planRepair(
  storage: Storage,
  options: PlanOptions = {},
): Generator<SurveyProgress, RepairPlan, undefined> {
  const surveys = yield* surveyLog(storage, options.keys);
  return new Planner(storage, surveys, options).plan();
}

/** Where a segment ends, as its successor is to repeat it. */
interface End extends Predecessor {
  timestamp: number;
}

class Planner {
  readonly #storage: Storage;
  readonly #surveys: Survey[];
  readonly #endDamaged: boolean;
  readonly #plan: RepairPlan = { segments: [], setAside: [], lost: [], kept: 0, lastLsn: 0 };
  readonly #low: Lsn;
  #before: End | undefined;
  /** The file before the first that is kept: what was cleaned up, and is still there. */
  #idBefore = 0;
  #state: LogState | undefined;
  #logId: Uint8Array;

  constructor(storage: Storage, surveys: Survey[], { endDamaged = false }: PlanOptions) {
    this.#storage = storage;
    this.#endDamaged = endDamaged;
    this.#low = lowOf(surveys);
    this.#plan.setAside.push(...unreadableVoid(storage, surveys));
    this.#surveys = this.#belonging(surveys);
    this.#logId = logIdOf(surveys) ?? newLogId(surveys);
  }

  plan(): RepairPlan {
    this.#surveys.forEach((survey, i) => {
      this.#bridge(survey);
      this.#mend(survey, this.#surveys[i + 1]);
    });
    this.#plan.lastLsn = this.#before?.lastLsn ?? 0;
    this.#plan.lost = merged(this.#plan.lost.filter(({ lastLsn }) => lastLsn >= this.#low));
    return this.#plan;
  }

  /** Without what was cleaned up, and without the end when nothing in it can be read. */
  #belonging(surveys: Survey[]): Survey[] {
    const kept = [...surveys];
    while (kept.length > 0 && isLost(kept[kept.length - 1])) {
      this.#plan.setAside.push(kept.pop()!.name);
      const last = kept[kept.length - 1];
      if (last !== undefined) last.isLast = true;
    }
    const from = firstKept(kept, this.#low);
    for (const { name, headWhole } of kept.slice(0, from)) if (!headWhole) this.#plan.setAside.push(name);
    if (from > 0) this.#idBefore = kept[from - 1].id;
    return kept.slice(from);
  }

  /** Puts a gap in the place of the segments that are missing before this one. */
  #bridge(survey: Survey): void {
    const { head } = survey;
    const before = this.#before;
    if (head === undefined) return;
    const id = head.previous.segmentId;
    if (before !== undefined && id < before.segmentId) throw beyondRepair(survey.name, 'segments that do not follow');
    if (before === undefined ? head.firstLsn <= this.#low : id === before.segmentId) return;
    if (id === 0) throw beyondRepair(survey.name, 'a log that starts too late');
    const { endOffset, lastLsn } = head.previous;
    const missing: Survey = {
      name: segmentName(id),
      id,
      fileBytes: 0,
      missing: true,
      head: undefined,
      headWhole: false,
      salt: undefined,
      next: head,
      compacted: false,
      isLast: false,
      runs: [],
      knownLsn: lastLsn + 1,
      dirt: [],
      unsound: false,
      encrypted: false,
    };
    if (endOffset < SEGMENT_HEADER_UNIT) throw beyondRepair(missing.name, `an end at byte ${endOffset}`);
    this.#mend(missing, survey);
  }

  #mend(survey: Survey, follower: Survey | undefined): void {
    const patch: SegmentPatch = {
      name: survey.name,
      create: survey.missing,
      patches: losslessPatches(survey),
      fileBytes: undefined,
    };
    const last = Math.min(lastLsnOf(survey), cutBy(follower));
    const readable = this.#countReadable(survey.runs, last);
    this.#plan.kept += readable;
    const end = this.#mendHead(survey, patch, survey.compacted ? readable : undefined);
    for (const run of survey.runs) {
      const stated = survey.compacted ? undefined : survey.next?.previous;
      if (run.sealAt !== undefined && stated !== undefined && run.to !== stated.endOffset) {
        throw beyondRepair(survey.name, 'a seal in the middle of it');
      }
      this.#fill(patch, survey.salt!, end, run.from, run.firstLsn, run.previousCrc, last);
      end.endOffset = run.to;
      end.lastLsn = run.nextLsn - 1;
      end.headerCrc = run.lastCrc;
      end.timestamp = run.timestamp;
      this.#state = run.state ?? this.#state;
    }
    this.#mendEnd(survey, follower, patch, end, last);
    this.#before = end;
    if (patch.patches.length > 0) this.#plan.segments.push(patch);
  }

  #countReadable(runs: readonly Run[], last: Lsn): number {
    let count = 0;
    for (const { firstLsn, nextLsn, gaps, leftOut } of runs) {
      // Nothing is ever cut off a compacted segment later.
      count += Math.max(0, Math.min(nextLsn - 1, last) - firstLsn + 1) - leftOut;
      for (const gap of gaps) {
        count -= Math.max(0, Math.min(gap.lastLsn, last) - gap.firstLsn + 1);
        this.#lose(gap.firstLsn, Math.min(gap.lastLsn, last));
      }
    }
    return count;
  }

  /** The header of a segment, or a new one; of a compacted one it says how many `records` are there. Returns where the frames begin. */
  #mendHead(survey: Survey, patch: SegmentPatch, records: number | undefined): End {
    const { head, headWhole, headContent, headState, runs, next, id } = survey;
    const before = this.#before;
    const known = headState ?? this.#state ?? { ...EMPTY_STATE, low: Math.max(this.#low, head?.firstLsn ?? 1) };
    // The segment began with the keys that it knew at its end: without them, its frames could not be read any more.
    const encryption = newestStateOf(survey)?.encryption ?? known.encryption;
    const state = encryption === undefined ? known : { ...known, encryption };
    this.#state = state;
    if (head !== undefined) {
      survey.salt = head.salt;
      if (!headWhole && headContent === undefined) {
        const { bytes } = encodeSegmentHeader(
          { ...head, records, state: fitting(state, head.headerBytes, records) },
          head.headerBytes,
        );
        giveHeaderChecksum(bytes, head.headerCrc);
        patch.patches.push({ from: 0, to: head.headerBytes, pieces: [{ at: 0, bytes }], keepTo: head.headerBytes });
      }
      const { headerBytes, headerCrc, firstLsn, createdAt } = head;
      return { segmentId: id, lastLsn: firstLsn - 1, endOffset: headerBytes, headerCrc, timestamp: createdAt };
    }
    const run = runs.at(0);
    survey.salt ??= randomSalt();
    // A header that steps over a file which is there would look like one that point-in-time began anew with.
    const cleaned = { segmentId: this.#idBefore, lastLsn: this.#low - 1, endOffset: 0, headerCrc: 0, timestamp: 0 };
    const previous = before ?? cleaned;
    const expected = previous.lastLsn + 1;
    const firstLsn = Math.min(expected, survey.firstLsn ?? expected, run?.firstLsn ?? expected);
    const cuts = firstLsn < expected;
    // Without a predecessor, what stood before the first record may have been cleaned up as well as lost: see #low.
    const starts = run !== undefined && headerBytesUpTo(run.from) === run.from && run.firstLsn === expected;
    const stated = survey.compacted ? undefined : next?.previous;
    const behind = run?.from ?? stated?.endOffset ?? Number.MAX_SAFE_INTEGER;
    const headerBytes = starts || cuts ? headerBytesUpTo(behind) : segmentHeaderBytes(bytesOf(state, records));
    const room = behind - headerBytes;
    const whole = room === 0 || room >= FRAME_HEADER_BYTES ? headerBytes : SEGMENT_HEADER_UNIT;
    const header: Omit<SegmentHeader, 'headerBytes' | 'headerCrc'> = {
      logId: this.#logId,
      segmentId: id,
      salt: survey.salt,
      firstLsn,
      createdAt: run?.timestamp ?? previous.timestamp,
      // A compacted file is always smaller than it says that it was made: it ends with its seal.
      segmentBytes: Math.max(survey.fileBytes, SEGMENT_HEADER_UNIT) * (survey.compacted ? 2 : 1),
      previous,
      flags: SegmentFlag.Recycled | (cuts ? SegmentFlag.Truncates : 0) | (survey.compacted ? SegmentFlag.Compacted : 0),
      state: fitting(state, whole, records),
      records,
    };
    const { bytes } = encodeSegmentHeader(header, whole);
    const wanted = run === undefined && !survey.compacted ? next?.previous.headerCrc : run?.previousCrc;
    const view = new DataView(bytes.buffer);
    if (whole === behind && wanted !== undefined) giveHeaderChecksum(bytes, wanted);
    if (whole > behind) throw beyondRepair(survey.name, 'no room for a header');
    patch.patches.push({ from: 0, to: whole, pieces: [{ at: 0, bytes }], keepTo: whole });
    return {
      segmentId: id,
      lastLsn: firstLsn - 1,
      endOffset: whole,
      headerCrc: view.getUint32(124, true),
      timestamp: header.createdAt,
    };
  }

  /** Fills what lies between `end` and the next place that is whole. */
  #fill(
    patch: SegmentPatch,
    salt: Salt,
    end: End,
    to: number,
    nextLsn: Lsn,
    endCrc: number | undefined,
    last: Lsn,
  ): void {
    const { endOffset: from, timestamp, headerCrc: previousCrc } = end;
    const firstLsn = end.lastLsn + 1;
    const records = Math.max(0, nextLsn - firstLsn);
    if (from === to && records === 0 && (endCrc === undefined || endCrc === previousCrc)) return;
    if (to > MOST_SEGMENT_BYTES) throw beyondRepair(patch.name, `frames up to byte ${to}, which no segment has`);
    if (to - from < FRAME_HEADER_BYTES) throw beyondRepair(patch.name, `${to - from} bytes at ${from} that do not fit`);
    const gap: Gap = { from, to, firstLsn, records, salt, timestamp, previousCrc, endCrc };
    const { pieces, headerCrc } = gapFrames(gap);
    patch.patches.push({ from, to, pieces, keepTo: to });
    this.#lose(firstLsn, Math.min(firstLsn + records - 1, last));
    end.endOffset = to;
    end.lastLsn = firstLsn + records - 1;
    end.headerCrc = headerCrc;
  }

  /** From the last frame that is whole to where the segment should end. */
  #mendEnd(survey: Survey, follower: Survey | undefined, patch: SegmentPatch, end: End, last: Lsn): void {
    const { next, salt, fileBytes } = survey;
    const sealed = survey.runs.at(-1)?.sealAt !== undefined;
    if (survey.compacted) {
      // Only its own seal says where it ends. The successor still knows the last LSN.
      const lastKnown = next?.previous.lastLsn ?? end.lastLsn;
      survey.knownLsn = Math.max(survey.knownLsn, lastKnown + 1, follower === undefined ? 0 : startOf(follower));
      if (!sealed) return this.#seal(survey, patch, end, last);
      end.lastLsn = lastKnown;
    } else if (next !== undefined) {
      const { endOffset, headerCrc, lastLsn } = next.previous;
      this.#fill(patch, salt!, end, endOffset, Math.max(lastLsn, end.lastLsn) + 1, headerCrc, last);
      end.lastLsn = lastLsn;
    } else if (!sealed && !survey.isLast) {
      // The header behind is made anew, and repeats whatever this comes to.
      const known = Math.max(survey.knownLsn, startOf(follower!), end.lastLsn + 1);
      if (known > end.lastLsn + 1) {
        this.#fill(patch, salt!, end, end.endOffset + FRAME_HEADER_BYTES, known, undefined, last);
      }
    } else if (!sealed && (patch.patches.length > 0 || this.#isEndDamaged(survey))) {
      return this.#seal(survey, patch, end);
    }
    if (!hasStrayBytes(this.#storage, survey, end.endOffset)) return;
    patch.patches.push({ from: end.endOffset, to: end.endOffset, pieces: [], keepTo: fileBytes });
    patch.fileBytes = end.endOffset;
  }

  /** A new seal for the last segment; what is behind it goes. */
  #seal(survey: Survey, patch: SegmentPatch, end: End, last: Lsn = Number.MAX_SAFE_INTEGER): void {
    const salt = survey.salt!;
    if (survey.knownLsn > end.lastLsn + 1) {
      const to = end.endOffset + FRAME_HEADER_BYTES;
      this.#fill(patch, salt, end, to, survey.knownLsn, undefined, last);
    }
    const state = this.#state!;
    const { endOffset, lastLsn, timestamp, headerCrc } = end;
    const payload = encodeSeal({ state, index: [] }, endOffset);
    const flags = survey.compacted ? HeaderFlag.Compacted : 0;
    const seal = buildFrame(FrameType.Seal, payload, lastLsn + 1, lastLsn, salt, timestamp, headerCrc, flags);
    const to = endOffset + seal.bytes.byteLength;
    const keepTo = Math.max(to, survey.fileBytes);
    patch.patches.push({ from: endOffset, to, pieces: [{ at: endOffset, bytes: seal.bytes }], keepTo });
    patch.fileBytes = to;
    end.endOffset = to;
    end.headerCrc = seal.headerCrc;
  }

  #isEndDamaged(survey: Survey): boolean {
    return this.#endDamaged || survey.unsound || isEndDamaged(this.#storage, survey);
  }

  #lose(firstLsn: Lsn, lastLsn: Lsn): void {
    if (lastLsn >= firstLsn) this.#plan.lost.push({ firstLsn, lastLsn });
  }
}

/** Whether the end of the last segment, whose header is known, is damage, or at most a torn tail: by the verdict table. */
export function isEndDamaged(storage: Storage, { name, head, headState }: Survey): boolean {
  const header: SegmentHeader = { ...head!, state: headState! };
  return withFile(storage, name, (file) => {
    const content = readContent(file, header);
    const { verdict } = verdictOf({
      isLast: true,
      sealed: content.sealed,
      fullSize: content.fileBytes >= header.segmentBytes || (header.flags & SegmentFlag.Growing) !== 0,
      expectedLsn: content.lastLsn + 1,
      laterFrame: content.remains.laterFrame,
      leftOver: hasLeftOver(file, header, content),
    });
    return verdict === 'corrupt';
  });
}

/** Records below this were given up by clean-up: as the newest segment says whose header can be read, or what is behind it. */
export function lowOf(surveys: readonly Survey[]): Lsn {
  const newest = surveys.findLastIndex(({ head }) => head !== undefined);
  return surveys.slice(Math.max(newest, 0)).reduce((low, survey) => Math.max(low, newestStateOf(survey)?.low ?? 1), 1);
}

/** Which of the segments is the first that was not cleaned up. */
export function firstKept(surveys: readonly Survey[], low: Lsn): number {
  // Not the first that begins above the mark: files that a cut made void may be back, when the segment that cut is gone.
  const first = surveys.findLastIndex((survey) => isWithin(startOf(survey), low));
  return Math.min(
    Math.max(first, 0),
    beganAnewFrom(surveys.map(({ id, head }) => ({ id, previousId: head?.previous.segmentId }))),
  );
}

function isWithin(start: Lsn, low: Lsn): boolean {
  return start > 0 && start <= low;
}

/** Nothing of it can be read. */
function isLost({ head, runs }: Survey): boolean {
  return head === undefined && runs.length === 0;
}

/** The first LSN that a segment is known to hold; 0 when nothing is known. */
export function startOf({ head, firstLsn, runs }: Pick<Survey, 'head' | 'firstLsn' | 'runs'>): Lsn {
  return head?.firstLsn ?? firstLsn ?? runs.at(0)?.firstLsn ?? 0;
}

/** What a segment holds above this was cut away later. */
export function lastLsnOf({ next }: Survey): Lsn {
  return next === undefined ? Number.MAX_SAFE_INTEGER : Math.min(next.previous.lastLsn, next.firstLsn - 1);
}

/** A segment whose header is lost may have cut off the end of the one before: its first frame tells. */
function cutBy(follower: Survey | undefined): Lsn {
  const start = follower?.head === undefined && follower !== undefined ? startOf(follower) : 0;
  return start === 0 ? Number.MAX_SAFE_INTEGER : start - 1;
}

/** As a header holds it. */
function bytesOf(state: LogState, records: number | undefined): number {
  return encodeStateOf({ state, records }).byteLength;
}

/** The state, or as much of it as a header block of this size can hold. */
function fitting(state: LogState, headerBytes: number, records: number | undefined): LogState {
  const fits = (candidate: LogState) => segmentHeaderBytes(bytesOf(candidate, records)) <= headerBytes;
  if (fits(state)) return state;
  const less = { ...state, subscriptions: {} };
  return fits(less) ? less : { ...less, transactions: undefined };
}

/** Of a log whose own is lost; what is encrypted is bound to it, and cannot be read any more. */
function newLogId(surveys: readonly Survey[]): Uint8Array {
  const encrypted = surveys.find((survey) => survey.encrypted);
  if (encrypted === undefined) return randomBytes(16);
  throw beyondRepair(encrypted.name, "encrypted frames, and everything that told the log's id is lost");
}

function randomSalt(): Salt {
  const bytes = randomBytes(8);
  return { low: bytes.readUInt32LE(0), high: bytes.readUInt32LE(4) };
}

function merged(spans: LsnSpan[]): LsnSpan[] {
  const result: LsnSpan[] = [];
  for (const { firstLsn, lastLsn } of [...spans].sort((a, b) => a.firstLsn - b.firstLsn)) {
    const last = result[result.length - 1];
    if (last !== undefined && firstLsn <= last.lastLsn + 1) last.lastLsn = Math.max(last.lastLsn, lastLsn);
    else result.push({ firstLsn, lastLsn });
  }
  return result;
}

function beyondRepair(segment: string, what: string): Error {
  return corrupt(`${segment} cannot be repaired: there are ${what}. Nothing was touched.`, { segment });
}
