import { isCorrupt } from '../errors.js';
import {
  FRAME_HEADER_BYTES,
  type FrameHeader,
  FrameType,
  frameBytes,
  isSparse,
  readFrameHeader,
  type Salt,
  tellsCompacted,
} from '../format/frame.js';
import { isSound, type PayloadKeys } from '../format/frame-payload.js';
import { decodeSeal } from '../format/seal.js';
import { SEGMENT_HEADER_UNIT, SegmentFlag, type SegmentHeader, type SegmentPrelude } from '../format/segment-header.js';
import { sparseRecordsOf } from '../format/sparse-frame.js';
import {
  afterTransaction,
  decodePositions,
  decodeState,
  EMPTY_STATE,
  type LogState,
  logIdIn,
  withPositions,
} from '../format/state.js';
import { mayDecide, readTransactionPrefix } from '../format/transaction.js';
import { chainOf, isVoid, type Link } from '../segments/chain.js';
import { segmentIdOf, segmentName } from '../segments/names.js';
import { compactedSeal, readHeader, withFile } from '../segments/read-segment.js';
import { isCompacted, statedEnd } from '../segments/segment-end.js';
import {
  checkFrame,
  type Expectation,
  headersIn,
  SEARCH_OVERLAP_BYTES,
  saltAt,
  Window,
  walkFrames,
} from '../segments/walk.js';
import type { Storage, StorageFile } from '../storage/storage.js';
import type { Lsn } from '../types.js';
import { readDamagedHeader } from './damaged-header.js';

/** Frames that lie one behind the other, each of them whole. */
export interface Run {
  from: number;
  to: number;
  firstLsn: Lsn;
  /** Behind its last record. */
  nextLsn: Lsn;
  /** What its first frame says of the header before it. */
  previousCrc: number;
  lastCrc: number;
  /** Of its last frame, ms since the epoch. */
  timestamp: number;
  /** Where its last frame starts, when that is a seal. */
  sealAt: number | undefined;
  /** LSNs that gap frames in it stand for. */
  gaps: LsnSpan[];
  /** LSNs that compaction left out. */
  leftOut: number;
  /** The newest state in it. */
  state: LogState | undefined;
}

export interface LsnSpan {
  firstLsn: Lsn;
  lastLsn: Lsn;
}

/** The fixed part of a segment's header. */
export type SegmentHead = Omit<SegmentPrelude, 'stateBytes' | 'stateCrc'>;

/** Everything of one segment that can be read. */
export interface Survey {
  name: string;
  id: number;
  fileBytes: number;
  /** There is no such file: it stands for what lies between its neighbours. */
  missing: boolean;
  /** Undefined when not even the fixed part of the header holds. */
  head: SegmentHead | undefined;
  /** As the header has it; undefined when it is damaged. */
  headState?: LogState;
  /** All of the header holds. */
  headWhole: boolean;
  /** Of a header that is damaged: what its block should hold, if that is known for sure. */
  headContent?: Uint8Array;
  salt: Salt | undefined;
  /** Of a compacted segment without a header: where it begins, as its seal has it. */
  firstLsn?: Lsn;
  /** The head of the segment that follows directly, which says where this one ends. */
  next: SegmentHead | undefined;
  /** It ends where its own seal does, and not where the next head says. */
  compacted: boolean;
  isLast: boolean;
  runs: Run[];
  /** One above the highest LSN that a frame header told of, whether its frame can be read or not. */
  knownLsn: Lsn;
  /** Stretches behind frames that should be zeros. */
  dirt: { from: number; to: number }[];
  /** A frame holds by its checksums, and what is in it cannot be brought back: no crash does that. */
  unsound: boolean;
  /** A frame that holds is encrypted. */
  encrypted: boolean;
}

export interface SurveyProgress {
  bytes: number;
  totalBytes: number;
  /** Readable so far. */
  records: number;
}

/** How much is read between two reports of progress. */
const STEP_BYTES = 4 * 1024 * 1024;
const PIECE_BYTES = 1024 * 1024;

/**
 * Reads all of a log and finds everything in it that holds, also behind damage. A generator, so that the caller may do
 * other things in between: each step yields how far it is.
 *
 * A record may hold a copy of a frame, and a search behind damage may come upon it. It is not taken for a frame: whatever
 * was copied into a record was written before it, and has a lower LSN than the one that is expected there.
 */
export function* surveyLog(storage: Storage, keys?: PayloadKeys): Generator<SurveyProgress, Survey[], undefined> {
  const surveys = listSegments(storage);
  const progress: SurveyProgress = {
    bytes: 0,
    totalBytes: surveys.reduce((sum, { fileBytes }) => sum + fileBytes, 0),
    records: 0,
  };
  let before: Survey | undefined;
  for (const survey of surveys) {
    const file = storage.open(survey.name, 'read');
    try {
      yield* new Surveyor(file, survey, before, progress, keys).run();
    } finally {
      file.close();
    }
    before = survey;
  }
  return surveys;
}

/** Runs a generator to its end without a break. */
export function finish<P, T>(steps: Generator<P, T, undefined>, onStep?: (progress: P) => void): T {
  let step = steps.next();
  while (!step.done) {
    onStep?.(step.value);
    step = steps.next();
  }
  return step.value;
}

/** The segments that are part of the log or may be, without what a later cut made void. */
function listSegments(storage: Storage): Survey[] {
  const names = storage.list().filter((name) => segmentIdOf(name) !== undefined);
  const surveys = names.map((name) => withFile(storage, name, describe));
  const heads = surveys.flatMap(({ head }) => (head === undefined ? [] : [head as SegmentHeader]));
  const chain = new Map(chainOf(heads).map((link) => [segmentName(link.header.segmentId), link]));
  // The header of one that a cut or a compaction made void may be lost: the one behind it still says so.
  const linked = surveys.filter(({ id, name, head }) =>
    head === undefined ? !isVoid(id, nextIn(chain, id)) : chain.has(name),
  );
  const listed = withoutReplaced(linked);
  for (const [i, survey] of listed.entries()) {
    survey.isLast = i === listed.length - 1;
    const next = listed[i + 1]?.head;
    if (next?.previous.segmentId === survey.id) survey.next = next;
  }
  return listed;
}

/** Without those that a compacted segment stands for whose header is lost, which would have said so. */
function withoutReplaced(surveys: readonly Survey[]): Survey[] {
  let from = Number.POSITIVE_INFINITY;
  const kept: Survey[] = [];
  for (const survey of [...surveys].reverse()) {
    const start = survey.head?.firstLsn ?? survey.firstLsn ?? 0;
    if (start >= from) continue;
    kept.push(survey);
    from = Math.min(from, survey.firstLsn ?? from);
  }
  return kept.reverse();
}

function nextIn(chain: ReadonlyMap<string, Link>, id: number): SegmentHeader | undefined {
  return [...chain.values()].find(({ header }) => header.segmentId > id)?.header;
}

/** Files of segments that a later cut made void, of which not even the header can be read: in the way of every open. */
export function unreadableVoid(storage: Storage, surveys: readonly Survey[]): string[] {
  const listed = new Set(surveys.map(({ name }) => name));
  const others = storage.list().filter((name) => segmentIdOf(name) !== undefined && !listed.has(name));
  return others.filter((name) => !withFile(storage, name, describe).headWhole);
}

function describe(file: StorageFile): Survey {
  const survey: Survey = {
    name: file.name,
    id: segmentIdOf(file.name)!,
    fileBytes: file.size(),
    missing: false,
    head: undefined,
    headWhole: false,
    salt: undefined,
    next: undefined,
    compacted: false,
    isLast: false,
    runs: [],
    knownLsn: 0,
    dirt: [],
    unsound: false,
    encrypted: false,
  };
  try {
    const { state, ...head } = readHeader(file);
    return { ...survey, head, headState: state, headWhole: true, salt: head.salt, compacted: isCompacted(head) };
  } catch (error) {
    if (!isCorrupt(error)) throw error;
  }
  try {
    const found = readDamagedHeader(file);
    if (found !== undefined) {
      return { ...survey, ...found, salt: found.head.salt, compacted: isCompacted(found.head) };
    }
    const seal = compactedSeal(file);
    return { ...survey, ...seal, compacted: seal !== undefined };
  } catch (error) {
    if (!isCorrupt(error)) throw error;
    return survey;
  }
}

class Surveyor {
  readonly #file: StorageFile;
  readonly #survey: Survey;
  readonly #before: Survey | undefined;
  readonly #progress: SurveyProgress;
  readonly #base: number;
  #limit: number;
  readonly #window: Window;
  #expected: Lsn;
  #state: LogState | undefined;
  readonly #isSound: NonNullable<Expectation['isSound']>;
  readonly #keys: PayloadKeys | undefined;

  constructor(
    file: StorageFile,
    survey: Survey,
    before: Survey | undefined,
    progress: SurveyProgress,
    keys: PayloadKeys | undefined,
  ) {
    this.#keys = keys;
    this.#isSound = (header, bytes, at) => {
      const sound = isSound(header, bytes, at, keys);
      if (!sound) survey.unsound = true;
      return sound;
    };
    this.#file = file;
    this.#survey = survey;
    this.#before = before;
    this.#progress = progress;
    this.#base = progress.bytes;
    const { compacted, head, next, fileBytes } = survey;
    this.#window = new Window(file);
    this.#limit = compacted ? fileBytes : Math.min(fileBytes, statedEnd(head, next)?.endOffset ?? fileBytes);
    this.#expected = head?.firstLsn ?? survey.firstLsn ?? (before === undefined ? 1 : nextLsnOf(before));
    this.#state = survey.headState ?? newestStateOf(before);
  }

  *run(): Generator<SurveyProgress, void, undefined> {
    const { head } = this.#survey;
    let at = head?.headerBytes ?? (yield* this.#search(SEGMENT_HEADER_UNIT));
    let previousCrc = head?.headerCrc;
    while (at !== undefined && at < this.#limit) {
      const run = yield* this.#readRun(at, previousCrc);
      if (run !== undefined) {
        at = run.to;
        this.#expected = run.nextLsn;
        if (run.sealAt !== undefined) break;
      }
      at = yield* this.#search(this.#pastDamaged(at));
      previousCrc = undefined;
    }
    this.#survey.knownLsn = Math.max(this.#survey.knownLsn, this.#expected);
    this.#progress.bytes = this.#base + this.#survey.fileBytes;
    yield { ...this.#progress };
  }

  /** The frames from here on that hold; the first may follow anything when `previousCrc` is not known. */
  *#readRun(from: number, previousCrc: number | undefined): Generator<SurveyProgress, Run | undefined, undefined> {
    const { salt, runs } = this.#survey;
    const first = previousCrc === undefined ? this.#headerAt(from, salt) : undefined;
    const lsn = first?.firstLsn ?? this.#expected;
    let run: Run | undefined;
    let nextStep = from + STEP_BYTES;
    const start = { salt: salt!, lsn, previousCrc, isSound: this.#isSound };
    for (const { header, offset, payload, frame } of walkFrames(this.#window, from, start)) {
      const end = offset + frameBytes(header.storedBytes);
      if (this.#tellsCompacted(header)) this.#isCompacted();
      if (end > this.#limit) break;
      run ??= this.#beginRun(offset, header);
      this.#take(run, header, offset, payload, frame);
      if (offset >= nextStep) {
        nextStep = offset + STEP_BYTES;
        this.#progress.bytes = this.#base + offset;
        yield { ...this.#progress };
      }
      if (header.type === FrameType.Seal) break;
    }
    if (run !== undefined) runs.push(run);
    return run;
  }

  #beginRun(from: number, { firstLsn, previousCrc, headerCrc, timestamp }: FrameHeader): Run {
    return {
      from,
      to: from,
      firstLsn,
      nextLsn: firstLsn,
      previousCrc,
      lastCrc: headerCrc,
      timestamp,
      sealAt: undefined,
      gaps: [],
      leftOut: 0,
      state: this.#state,
    };
  }

  #take(run: Run, header: FrameHeader, offset: number, payload: Uint8Array, frame: Uint8Array): void {
    const { type, firstLsn, records, storedBytes, headerCrc, timestamp } = header;
    if (header.encryption !== 0) this.#survey.encrypted = true;
    run.to = offset + frameBytes(storedBytes);
    run.nextLsn = firstLsn + records;
    run.lastCrc = headerCrc;
    run.timestamp = timestamp;
    const padding = this.#window.at(offset + FRAME_HEADER_BYTES, run.to - offset - FRAME_HEADER_BYTES);
    if (padding.subarray(storedBytes).some((byte) => byte !== 0)) {
      this.#survey.dirt.push({ from: offset + FRAME_HEADER_BYTES + storedBytes, to: run.to });
    }
    if (type === FrameType.Gap) {
      if (records > 0) run.gaps.push({ firstLsn, lastLsn: run.nextLsn - 1 });
    } else if (isSparse(type)) {
      const most = Number.MAX_SAFE_INTEGER;
      const { count } = sparseRecordsOf(header, frame, FRAME_HEADER_BYTES, most, this.#keys) ?? { count: records };
      run.leftOut += records - count;
      this.#progress.records += count;
    } else {
      this.#progress.records += records;
    }
    if (type === FrameType.State) this.#state = decodeState(payload);
    if (type === FrameType.Positions) {
      this.#state = withPositions(this.#state ?? EMPTY_STATE, decodePositions(payload));
    }
    if (mayDecide(header)) {
      const prefix = readTransactionPrefix(payload, 0, payload.byteLength);
      const segmentFirst = this.#survey.head?.firstLsn ?? run.firstLsn;
      this.#state = afterTransaction(this.#state ?? EMPTY_STATE, prefix, firstLsn, segmentFirst);
    }
    if (type === FrameType.Seal) {
      this.#state = decodeSeal(payload).state;
      run.sealAt = offset;
    }
    run.state = this.#state;
  }

  /** Its header is lost, which would have said so. */
  #tellsCompacted(header: FrameHeader): boolean {
    return this.#survey.head === undefined && !this.#survey.compacted && tellsCompacted(header);
  }

  #isCompacted(): void {
    this.#survey.compacted = true;
    this.#limit = this.#survey.fileBytes;
  }

  /** Past the frame that is damaged at `at`, if its header still says how long it is. */
  #pastDamaged(at: number): number {
    const header = this.#headerAt(at, this.#survey.salt);
    if (header === undefined || header.firstLsn !== this.#expected || this.#isWhole(at, header)) return at;
    this.#note(header);
    const end = at + frameBytes(header.storedBytes);
    return end <= this.#limit ? end : at;
  }

  #note({ firstLsn, records }: FrameHeader): void {
    if (firstLsn >= this.#expected) this.#survey.knownLsn = Math.max(this.#survey.knownLsn, firstLsn + records);
  }

  /** The offset of the next whole frame, from `from` on, that can belong here. */
  *#search(from: number): Generator<SurveyProgress, number | undefined, undefined> {
    for (let base = from - (from % 8); base < this.#limit; base += PIECE_BYTES - SEARCH_OVERLAP_BYTES) {
      const bytes = Buffer.from(this.#window.at(base, Math.min(PIECE_BYTES, this.#limit - base)));
      for (const { offset, header } of headersIn(bytes, base, this.#survey.salt)) {
        if (offset < from || !this.#canFollow(header)) continue;
        if (this.#tellsCompacted(header)) {
          // It may go on behind the limit that there seemed to be.
          this.#isCompacted();
          return yield* this.#search(offset);
        }
        this.#note(header);
        if (!this.#isWhole(offset, header)) continue;
        this.#survey.salt ??= saltAt(viewOf(bytes), offset - base);
        return offset;
      }
      this.#progress.bytes = this.#base + base;
      yield { ...this.#progress };
    }
    return undefined;
  }

  #canFollow(header: FrameHeader): boolean {
    const { salt, next, head } = this.#survey;
    if (next !== undefined && header.firstLsn > next.previous.lastLsn + 1) return false;
    if (header.firstLsn >= this.#expected) return true;
    if (salt !== undefined || head !== undefined) return false;
    // A segment without a header may have cut off what stood before it. What a recycled file held before is older than
    // the segment before this one.
    const created = this.#before?.head?.createdAt ?? Number.POSITIVE_INFINITY;
    const last = this.#before?.runs.at(-1)?.timestamp ?? created;
    return header.timestamp > last || (header.timestamp === last && last > created);
  }

  #isWhole(offset: number, header: FrameHeader): boolean {
    const total = frameBytes(header.storedBytes);
    if (offset + total > this.#limit) return false;
    const bytes = this.#window.at(offset, total);
    const view = viewOf(bytes);
    const expected = { salt: saltAt(view, 0), lsn: header.firstLsn, previousCrc: undefined, isSound: this.#isSound };
    return typeof checkFrame(bytes, view, 0, bytes.byteLength, total, expected) === 'object';
  }

  #headerAt(offset: number, salt: Salt | undefined): FrameHeader | undefined {
    if (offset + FRAME_HEADER_BYTES > this.#limit || salt === undefined) return undefined;
    const bytes = new Uint8Array(FRAME_HEADER_BYTES);
    this.#file.read(bytes, offset);
    return readFrameHeader(viewOf(bytes), bytes, 0, salt);
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Where the LSNs go on behind a segment. */
export function nextLsnOf(survey: Survey): Lsn {
  return survey.next === undefined ? survey.knownLsn : survey.next.previous.lastLsn + 1;
}

/** The newest state that a segment tells of, or one before it. */
export function newestStateOf(survey: Survey | undefined): LogState | undefined {
  return survey?.runs.at(-1)?.state ?? survey?.headState;
}

/** The id of a log, as any header has it and, in one that is encrypted, any state. */
export function logIdOf(surveys: readonly Survey[]): Uint8Array | undefined {
  const head = surveys.find((survey) => survey.head !== undefined)?.head;
  const states = surveys.map(newestStateOf).filter((state) => state !== undefined);
  return head?.logId ?? states.map(logIdIn).findLast((id) => id !== undefined);
}

export function isRecycled(head: SegmentHead): boolean {
  return (head.flags & SegmentFlag.Recycled) !== 0;
}
