import { corrupt, WalError } from '../errors.js';
import { type Predecessor, SegmentFlag } from '../format/segment-header.js';
import { EMPTY_STATE, type LogState } from '../format/state.js';
import { beganAnewFrom, chainOf, type Link, lastLsnOf, placeOf } from '../segments/chain.js';
import {
  isCompacting,
  isPreparing,
  isSpare,
  QUARANTINE_FOLDER,
  quarantinedIdOf,
  segmentIdOf,
  segmentName,
} from '../segments/names.js';
import { isNoSpace, noSpace } from '../segments/prepare.js';
import {
  hasLeftOver,
  type OnScan,
  readContent,
  readHeader,
  readSealAtEnd,
  type SegmentContent,
  withFile,
} from '../segments/read-segment.js';
import { statedEnd } from '../segments/segment-end.js';
import type { SegmentInfo } from '../segments/segment-info.js';
import type { Storage } from '../storage/storage.js';
import type { SegmentPatch } from './repair-plan.js';
import { describeRow, verdictOf } from './verdict.js';

/** What `open` found, and what it did about it. */
export interface RecoveryReport {
  /**
   * `clean`: nothing was lost. `torn-tail`: an unfinished group at the end was cut off. `empty`: a new log. `salvaged`:
   * it was damaged; {@link lost} says what is gone.
   */
  verdict: 'clean' | 'torn-tail' | 'empty' | 'salvaged';
  /** Segment files that belong to the log. */
  segments: number;
  records: number;
  /** 0 when there are no records. */
  firstLsn: number;
  /** The last LSN ever given and still known; new records go on from here. */
  lastLsn: number;
  checkpoint: number;
  /** Bytes behind the last valid frame that were cut off. */
  discardedBytes: number;
  /** Files in the log's directory that keep what was cut off. */
  quarantined: string[];
  /** LSNs that recovery gave up (`point-in-time`) or that a reader will not find (`salvage`), as far as that is known. */
  lost?: { firstLsn: number; lastLsn: number }[];
  durationMs: number;
}

export type RecoveryMode = 'tolerate-torn-tail' | 'strict' | 'point-in-time' | 'salvage';

export interface Recovered {
  logId: Uint8Array | undefined;
  /** The segments of the log, oldest first. The last one may be `open`: it is never written again. */
  segments: SegmentInfo[];
  /** Segment files below the clean-up mark, or cut away: no part of the log any more, waiting to be removed. */
  obsolete: string[];
  /** Segment files behind damage, to be moved to quarantine whole. */
  setAside: string[];
  /** What point-in-time puts right in segments that stay, without a loss. */
  mended?: SegmentPatch[];
  state: LogState;
  /** Where the last segment's frames end: what the next segment's header repeats. */
  end: Predecessor;
  /** Behind the last record that stands in the last segment, if that is not `end.lastLsn + 1`: a cut goes through it. */
  nextLsnInFile?: number;
  /** Time of the last frame, ms since the epoch. */
  lastTime: number;
  /** Frames of the last segment from this offset on may be in the page cache only. */
  unprovenFrom: number;
  /** Higher than every id ever used in this directory. */
  nextSegmentId: number;
  spares: string[];
  /** What a cut must deal with; undefined when the tail is whole. */
  torn: { segment: SegmentInfo; from: number; to: number } | undefined;
  report: RecoveryReport;
}

const NO_END: Predecessor = { segmentId: 0, lastLsn: 0, endOffset: 0, headerCrc: 0 };

/** Ids go on from the highest that is there. No log comes to one above this: somebody else put that file there. */
const MOST_SEGMENTS = 2 ** 52;

/** Above this a log would come to LSNs that a number cannot hold. No log does within a hundred years. */
const MOST_LSN = 2 ** 52;

/** How often a directory is looked at again because a writer cleaned up meanwhile. */
const MOST_LOOKS = 10;

/**
 * Finds out what a directory holds, without changing anything in it. Reads every segment's header, and the frames of the
 * last segment alone. Throws `ERR_WAL_CORRUPT` for damage to anything that was promised. A writer may be at work in it.
 */
export function inspectLog(storage: Storage, mode: RecoveryMode, onProgress?: OnScan): Recovered {
  for (let looks = 1; ; looks++) {
    try {
      return inspectOnce(storage, mode, onProgress);
    } catch (error) {
      const gone = (error as NodeJS.ErrnoException).code === 'ENOENT';
      if (!gone || looks === MOST_LOOKS) throw error;
    }
  }
}

function inspectOnce(storage: Storage, mode: RecoveryMode, onProgress?: OnScan): Recovered {
  const names = storage.list();
  const all = names.filter((name) => segmentIdOf(name) !== undefined);
  const headers = all.map((name) => withFile(storage, name, readHeader));
  const spares = names.filter(isSpare);
  const nextSegmentId = 1 + highestId(storage, all);
  if (headers.length === 0) {
    return {
      logId: undefined,
      segments: [],
      obsolete: [],
      setAside: [],
      state: EMPTY_STATE,
      end: NO_END,
      lastTime: 0,
      unprovenFrom: 0,
      nextSegmentId,
      spares,
      torn: undefined,
      report: emptyReport(),
    };
  }
  const lastHeader = headers[headers.length - 1];
  const lastName = all[all.length - 1];
  const { content, leftOver } = withFile(storage, lastName, (file) => {
    const content = readContent(file, lastHeader, onProgress);
    return { content, leftOver: hasLeftOver(file, lastHeader, content) };
  });
  const links = chainOf(headers);
  const state = content.state;
  const keptLinks = keptOf(links, content);
  // The others are not looked at: a file that was becoming a spare when the power went may have its old name back.
  const kept = describeSegments(storage, keptLinks, content);
  checkChain(kept, keptLinks, state);

  const last = kept[kept.length - 1];
  const { row, verdict } = verdictOf({
    isLast: true,
    sealed: content.sealed,
    fullSize: content.fileBytes >= lastHeader.segmentBytes || (lastHeader.flags & SegmentFlag.Growing) !== 0,
    expectedLsn: content.lastLsn + 1,
    laterFrame: content.remains.laterFrame,
    leftOver,
  });
  const place = { segment: last.name, offset: content.endOffset, lsn: content.lastLsn + 1 };
  checkLastLsn(content.lastLsn, last.name);
  if (verdict === 'corrupt') {
    throw corrupt(
      `${last.name} is damaged at byte ${place.offset}: ${describeRow(row, place.lsn)}. Nothing was touched.`,
      place,
    );
  }
  if (verdict === 'torn-tail' && mode === 'strict') {
    throw corrupt(
      `${last.name} ends in a torn tail at byte ${place.offset} (LSN ${place.lsn}), and recoveryMode is 'strict'. ` +
        "Open with recoveryMode: 'tolerate-torn-tail' to cut it off; nothing was touched.",
      place,
    );
  }
  const torn =
    verdict === 'torn-tail' ? { segment: last, from: content.endOffset, to: content.remains.end } : undefined;
  const firstLsn = Math.max(kept[0].firstLsn, 1);
  const records = content.lastLsn - firstLsn + 1 - compactedAway(keptLinks, kept);
  return {
    logId: lastHeader.logId,
    segments: kept,
    obsolete: all.filter((name) => !kept.some((segment) => segment.name === name)),
    setAside: [],
    state,
    end: {
      segmentId: last.id,
      lastLsn: content.lastLsn,
      endOffset: content.endOffset,
      headerCrc: content.headerCrc,
    },
    lastTime: content.timestamp,
    unprovenFrom: content.unprovenFrom,
    nextSegmentId,
    spares,
    torn,
    report: {
      verdict: torn ? 'torn-tail' : 'clean',
      segments: kept.length,
      records,
      firstLsn: content.lastLsn >= firstLsn ? firstLsn : 0,
      lastLsn: content.lastLsn,
      checkpoint: state.checkpoint,
      discardedBytes: torn ? Math.max(torn.to - torn.from, 0) : 0,
      quarantined: [],
      durationMs: 0,
    },
  };
}

export function checkLastLsn(lsn: number, segment: string | undefined): void {
  if (lsn > MOST_LSN) throw corrupt(`The log ends at LSN ${lsn}, which no log comes to.`, { segment, lsn });
}

function emptyReport(): RecoveryReport {
  return {
    verdict: 'empty',
    segments: 0,
    records: 0,
    firstLsn: 0,
    lastLsn: 0,
    checkpoint: 0,
    discardedBytes: 0,
    quarantined: [],
    durationMs: 0,
  };
}

export function highestId(storage: Storage, segments: string[]): number {
  let highest = 0;
  const note = (id = 0) => {
    if (id <= MOST_SEGMENTS) highest = Math.max(highest, id);
  };
  // Not by Math.max(...), whose arguments lie on the stack: there may be a hundred thousand segments.
  for (const name of segments) note(segmentIdOf(name));
  for (const name of storage.list(QUARANTINE_FOLDER)) note(quarantinedIdOf(name));
  return highest;
}

/** Without what was cleaned up, whose files may still be there: in whatever condition they are. */
function keptOf(links: Link[], { state, lastLsn }: SegmentContent): Link[] {
  const from = links.findIndex((link) => (lastLsnOf(link) ?? lastLsn) >= state.low);
  const anew = beganAnewFrom(links.map(({ header }) => placeOf(header)));
  return links.slice(Math.min(from < 0 ? links.length - 1 : from, anew));
}

function describeSegments(storage: Storage, links: Link[], last: SegmentContent): SegmentInfo[] {
  return links.map((link) => {
    const { header, next } = link;
    const name = segmentName(header.segmentId);
    const end = endOf(storage, name, link, last);
    return {
      name,
      id: header.segmentId,
      salt: header.salt,
      firstLsn: header.firstLsn,
      lastLsn: lastLsnOf(link) ?? last.lastLsn,
      headerBytes: header.headerBytes,
      headerCrc: header.headerCrc,
      endCrc: end.headerCrc,
      endOffset: end.endOffset,
      fileBytes: next === undefined ? last.fileBytes : withFile(storage, name, (file) => file.size()),
      state: next === undefined && !last.sealed ? 'open' : 'sealed',
    };
  });
}

/** Where a segment's frames end: its successor says so, or the last one's frames; of a compacted one its own seal. */
function endOf(
  storage: Storage,
  name: string,
  { header, next }: Link,
  last: SegmentContent,
): { endOffset: number; headerCrc: number } {
  const stated = statedEnd(header, next);
  if (stated !== undefined || next === undefined) return stated ?? last;
  const content = withFile(storage, name, (file) => readSealAtEnd(file, header));
  if (content !== undefined) return content;
  throw corrupt(`${name} was compacted and does not end in a seal any more. Nothing was touched.`, {
    segment: name,
    lsn: header.firstLsn,
  });
}

/** LSNs that compaction took out. */
function compactedAway(links: readonly Link[], infos: readonly SegmentInfo[]): number {
  return links.reduce((sum, { header: { records } }, i) => {
    const { firstLsn, lastLsn } = infos[i];
    return records === undefined ? sum : sum + (lastLsn - firstLsn + 1 - records);
  }, 0);
}

/** Each segment must be the successor of the one before it, and the first must reach down to the clean-up mark. */
function checkChain(segments: SegmentInfo[], links: Link[], state: LogState): void {
  const [first] = segments;
  if (first.firstLsn > state.low) {
    throw corrupt(
      `The segments before ${first.name} are missing: the log should start at LSN ${state.low} and starts at ${first.firstLsn}.`,
      { segment: first.name, offset: 0, lsn: state.low },
    );
  }
  for (let i = 1; i < segments.length; i++) {
    const { previous, logId, flags, firstLsn } = links[i].header;
    const place = { segment: segments[i].name, offset: 0, lsn: segments[i - 1].lastLsn + 1 };
    if (Buffer.compare(logId, links[i - 1].header.logId) !== 0) {
      throw corrupt(`${place.segment} belongs to another log.`, place);
    }
    if (previous.segmentId !== segments[i - 1].id) {
      throw corrupt(`Segment ${previous.segmentId} is missing before ${place.segment}.`, { ...place, lsn: undefined });
    }
    const cuts = (flags & SegmentFlag.Truncates) !== 0;
    if (cuts ? firstLsn > previous.lastLsn + 1 : firstLsn !== previous.lastLsn + 1) {
      throw corrupt(`${place.segment} starts at LSN ${firstLsn} after LSN ${previous.lastLsn}.`, place);
    }
    if (segments[i - 1].fileBytes < (statedEnd(links[i - 1].header, { previous })?.endOffset ?? 0)) {
      const { name, fileBytes } = segments[i - 1];
      throw corrupt(`${name} is ${fileBytes} bytes long and should hold ${previous.endOffset}.`, {
        segment: name,
        offset: fileBytes,
      });
    }
  }
}

/** Errors of the filesystem on the way in, as something a caller can act on. */
export function openError(error: unknown, directory: string): WalError {
  if (error instanceof WalError) return error;
  if (isNoSpace(error)) return noSpace(error);
  const { code, message } = error as NodeJS.ErrnoException;
  const hint =
    code === 'EACCES' || code === 'EPERM' || code === 'EROFS' ? ' Check the permissions of the directory.' : '';
  return new WalError('ERR_WAL_FAILED', `The log in ${directory} cannot be opened: ${message}.${hint}`, {
    cause: error,
  });
}

/** Leftovers of a crash that no segment will be made of. */
export function unfinishedSpares(storage: Storage): string[] {
  return storage.list().filter((name) => isPreparing(name) || isCompacting(name));
}
