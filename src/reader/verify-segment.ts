import {
  carriesRecords,
  FRAME_HEADER_BYTES,
  type FrameHeader,
  FrameType,
  frameBytes,
  isSparse,
  readFrameHeader,
} from '../format/frame.js';
import { isReadable, isSound, type PayloadKeys } from '../format/frame-payload.js';
import { addToIndex, decodeSeal, type IndexEntry, readSealFooter, SEAL_FOOTER_BYTES } from '../format/seal.js';
import { type Predecessor, SEGMENT_HEADER_UNIT, SegmentFlag, type SegmentHeader } from '../format/segment-header.js';
import { sparseRecordsOf } from '../format/sparse-frame.js';
import {
  afterTransaction,
  decodePositions,
  decodeState,
  EMPTY_STATE,
  type LogState,
  withPositions,
} from '../format/state.js';
import { mayDecide, readTransactionPrefix } from '../format/transaction.js';
import { describeRow, verdictOf } from '../recovery/verdict.js';
import { isCompacted } from '../segments/segment-end.js';
import { checkFrame, type Expectation, saltAt } from '../segments/walk.js';
import type { Lsn } from '../types.js';
import type { ChunkMemory } from './chunks.js';
import type { ReadableFile } from './files.js';
import { FrameStream } from './frame-stream.js';
import { readSealAt } from './index-lookup.js';
import { findFrame, firstNonZero, isTornIn, searchRest } from './search.js';

/** One place where a log is not what was written. */
export interface Damage {
  /** The file's name, as `inspect` prints it. */
  segment: string;
  /** Bytes from the start of that file. */
  offset: number;
  /** The log sequence number that was expected there. */
  lsn: Lsn;
  reason: string;
}

/** A segment, and what its neighbours say about it. */
export interface Subject {
  name: string;
  /** Undefined when it cannot be read, which is damage that was reported already. */
  header: SegmentHeader | undefined;
  /** The header of the segment that follows directly, which repeats where this one ends. */
  next: SegmentHeader | undefined;
  /** What it holds above this was cut away later; undefined for the last segment. */
  lastLsn: Lsn | undefined;
  isLast: boolean;
  /** What the segments before lead to; for a segment whose own header does not say. */
  expectedLsn: Lsn;
}

export interface SegmentFindings {
  /** Records that are readable. */
  records: number;
  /** The first and last of them; 0 when there are none. */
  firstLsn: Lsn;
  lastLsn: Lsn;
  /** The last LSN that the segment should hold. */
  endLsn: Lsn;
  damage: Damage[];
  /** LSNs that an earlier repair gave up. */
  lost: { firstLsn: Lsn; lastLsn: Lsn }[];
  /** It is the last and ends in an unfinished group, which nobody was promised. */
  torn: boolean;
  /** The newest state in it. */
  state: LogState | undefined;
  /** Of the records, those whose checksums hold and whose content could not be looked at. */
  unchecked: number;
}

/** Larger than a reader's chunks: the memory is used again and again, and fewer calls are quicker. */
const CHUNK_BYTES = 1024 * 1024;

/** A writer may be at work: this often is its progress followed before its end is taken for the end. */
const MOST_CATCHING_UP = 3;

/** Reads one segment from its first frame to its end, and past every damage to what is readable behind it. */
export class SegmentVerifier {
  readonly #file: ReadableFile;
  readonly #subject: Subject;
  readonly #memory: ChunkMemory;
  readonly #findings: SegmentFindings;
  readonly #onChunk: (offset: number, records: number) => void;
  readonly #keys: PayloadKeys | undefined;
  /** The frame that is expected next. */
  #offset: number;
  #expected: Expectation;
  /** Behind the last byte that may belong to the segment. */
  #end = 0;
  #seal: 'none' | 'valid' | 'damaged' = 'none';
  /** A seal of recovery has no index, and may stand over a tail that was cut. */
  #sealedByRecovery = false;
  /** Frames that the index in the seal knows of are gone. */
  #repaired = false;
  readonly #index: IndexEntry[] = [];
  /** LSNs of frames that stand for more of them than they hold, which cannot be counted without a key. */
  #uncounted = 0;
  /** It ends where its own seal does, and not where its successor says. */
  #compacted: boolean;

  constructor(
    file: ReadableFile,
    subject: Subject,
    memory: ChunkMemory,
    onChunk: (offset: number, records: number) => void,
    keys?: PayloadKeys,
  ) {
    this.#file = file;
    this.#keys = keys;
    this.#subject = subject;
    this.#memory = memory;
    this.#onChunk = onChunk;
    const { header, expectedLsn } = subject;
    this.#compacted = isCompacted(header);
    this.#offset = header?.headerBytes ?? SEGMENT_HEADER_UNIT;
    this.#expected = {
      salt: header?.salt ?? { low: 0, high: 0 },
      lsn: header?.firstLsn ?? expectedLsn,
      previousCrc: header?.headerCrc ?? 0,
    };
    this.#findings = {
      records: 0,
      firstLsn: 0,
      lastLsn: 0,
      endLsn: 0,
      damage: [],
      lost: [],
      torn: false,
      state: header?.state,
      unchecked: 0,
    };
  }

  async verify(): Promise<SegmentFindings> {
    const { header, next } = this.#subject;
    await this.#measure();
    if (header !== undefined || (await this.#findBeginning())) await this.#readToEnd();
    if (next !== undefined) this.#compareWith(next);
    if (this.#seal === 'valid') await this.#checkBehindSeal();
    this.#findings.endLsn = this.#subject.lastLsn ?? this.#expected.lsn - 1;
    if (this.#uncounted > 0) this.#countByHeader();
    return this.#findings;
  }

  async #measure(): Promise<void> {
    const size = await this.#file.size();
    this.#end = Math.min(size, this.#statedEnd()?.endOffset ?? size);
  }

  #statedEnd(): Predecessor | undefined {
    return this.#compacted ? undefined : this.#subject.next?.previous;
  }

  /** The segment's header is lost: the first frame tells the salt, and where to begin. */
  async #findBeginning(): Promise<boolean> {
    const found = await findFrame(this.#file, this.#offset, this.#end, undefined);
    if (found === undefined) return false;
    const bytes = Buffer.alloc(FRAME_HEADER_BYTES);
    await this.#file.read(bytes, found.offset);
    const salt = saltAt(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), 0);
    // A file that compaction wrote does not end where the successor says; its frames show that it is one.
    this.#compacted = isSparse(found.header.type);
    await this.#measure();
    this.#expected = { salt, lsn: found.header.firstLsn, previousCrc: found.header.previousCrc };
    this.#offset = found.offset;
    return true;
  }

  async #readToEnd(): Promise<void> {
    const { isLast } = this.#subject;
    let catchingUp = 0;
    for (;;) {
      await this.#readOn();
      if (this.#seal !== 'none') return;
      // A segment that was cut at recovery on a full disk has no seal, but a successor.
      if (this.#offset === this.#statedEnd()?.endOffset) return;
      if (isLast) {
        const end = await this.#judgeEnd();
        if (end === 'sound' || (end === 'growing' && catchingUp === MOST_CATCHING_UP)) return;
        if (end === 'growing') {
          catchingUp++;
          continue;
        }
      }
      if (!(await this.#passDamage())) return;
    }
  }

  /** Reads frames as long as they hold. Returns whether there were any. */
  async #readOn(): Promise<boolean> {
    const before = this.#offset;
    const expected: Expectation = {
      ...this.#expected,
      isSound: (header, bytes, at) => isSound(header, bytes, at, this.#keys),
    };
    const stream = new FrameStream(this.#file, this.#offset, this.#end, expected, {
      memory: this.#memory,
      chunkBytes: CHUNK_BYTES,
    });
    try {
      for (let more = true; more; ) {
        more = await stream.advance((header, bytes, at, offset) => this.#visit(header, bytes, at, offset));
        this.#offset = stream.offset;
        this.#expected = { ...this.#expected, lsn: stream.lsn, previousCrc: stream.lastHeaderCrc };
        this.#onChunk(this.#offset, this.#findings.records);
      }
    } finally {
      await stream.settle();
    }
    return this.#offset !== before;
  }

  #visit(header: FrameHeader, bytes: Uint8Array, at: number, offset: number): boolean {
    const { storedBytes, records, firstLsn, type } = header;
    const padding = frameBytes(storedBytes) - FRAME_HEADER_BYTES - storedBytes;
    for (let i = 0; i < padding; i++) {
      if (bytes[at + storedBytes + i] === 0) continue;
      this.#damaged(offset + FRAME_HEADER_BYTES + storedBytes + i, 'a byte behind a frame is not zero', firstLsn);
      break;
    }
    const last = Math.min(firstLsn + records - 1, this.#subject.lastLsn ?? Number.MAX_SAFE_INTEGER);
    if (type === FrameType.Gap) this.#noteGap(firstLsn, records);
    else if (records > 0) {
      if (isSparse(type)) this.#countSparse(header, bytes, at, last, offset);
      else this.#count(firstLsn, last);
      addToIndex(this.#index, offset, firstLsn, header.timestamp);
    }
    if (carriesRecords(type) && !isReadable(header, bytes.subarray(at), this.#keys))
      this.#findings.unchecked += records;
    if (type === FrameType.Records || isSparse(type)) return true;
    return this.#visitOwn(header, bytes.subarray(at, at + storedBytes), offset);
  }

  /** How many records a compacted segment has, its header says. Of a damaged one the most that can be is left to stand. */
  #countByHeader(): void {
    const { records = 0 } = this.#subject.header ?? {};
    const findings = this.#findings;
    const tooMany = findings.records - records;
    if (findings.damage.length > 0 || tooMany < 0) return;
    findings.records = records;
    findings.unchecked = Math.max(0, findings.unchecked - tooMany);
  }

  #noteGap(firstLsn: Lsn, records: number): void {
    this.#repaired = true;
    const lastLsn = Math.min(firstLsn + records - 1, this.#subject.lastLsn ?? Number.MAX_SAFE_INTEGER);
    if (lastLsn >= firstLsn) this.#findings.lost.push({ firstLsn, lastLsn });
  }

  #count(first: Lsn, last: Lsn): void {
    if (last < first) return;
    const findings = this.#findings;
    if (findings.records === 0) findings.firstLsn = first;
    findings.records += last - first + 1;
    findings.lastLsn = last;
  }

  #countSparse(header: FrameHeader, bytes: Uint8Array, at: number, last: Lsn, offset: number): void {
    this.#compacted = true;
    try {
      const found = sparseRecordsOf(header, bytes, at, last, this.#keys);
      if (found === undefined) {
        this.#uncounted += header.records;
        return this.#count(header.firstLsn, last);
      }
      if (found.count === 0) return;
      if (this.#findings.records === 0) this.#findings.firstLsn = found.first;
      this.#findings.records += found.count;
      this.#findings.lastLsn = found.last;
    } catch (error) {
      this.#damaged(offset, lowerFirst((error as Error).message));
    }
  }

  /** A frame that changes the state, or may. */
  #visitOwn(frame: FrameHeader, payload: Uint8Array, offset: number): boolean {
    const { type, firstLsn } = frame;
    try {
      const findings = this.#findings;
      if (type === FrameType.State) findings.state = decodeState(payload);
      if (type === FrameType.Positions) {
        findings.state = withPositions(findings.state ?? EMPTY_STATE, decodePositions(payload));
      }
      if (mayDecide(frame)) {
        const { header, expectedLsn } = this.#subject;
        const prefix = readTransactionPrefix(payload, 0, payload.byteLength);
        const segmentFirst = header?.firstLsn ?? expectedLsn;
        findings.state = afterTransaction(findings.state ?? EMPTY_STATE, prefix, firstLsn, segmentFirst);
      }
      if (type !== FrameType.Seal) return true;
      const seal = decodeSeal(payload);
      this.#findings.state = seal.state;
      this.#sealedByRecovery = seal.index.length === 0;
      const comparable = !this.#sealedByRecovery && !this.#repaired && this.#findings.damage.length === 0;
      if (comparable && !sameIndex(seal.index, this.#index)) {
        this.#damaged(offset, 'the index in the seal does not match the frames');
      }
    } catch (error) {
      this.#damaged(offset, lowerFirst((error as Error).message));
    }
    if (type === FrameType.Seal) this.#seal = 'valid';
    return type !== FrameType.Seal;
  }

  /** Where the frames of the last segment end: is that sound, or damage? By the verdict table of recovery. */
  async #judgeEnd(): Promise<'sound' | 'growing' | 'damaged'> {
    const { header } = this.#subject;
    await this.#measure();
    // No crash leaves a frame that holds by its checksums and is something else than what was written.
    if (await this.#isUnsoundHere()) return 'damaged';
    const rest = await searchRest(this.#file, this.#offset, this.#end, this.#expected.salt);
    const lostSeal = (await this.#isLostSeal()) || (await this.#isSealed());
    // Whatever was found by now, a living writer wrote behind this place; then there must be a frame here too.
    if (await this.#readOn()) return this.#seal === 'none' ? 'growing' : 'sound';
    if (header === undefined) return rest.laterFrame === undefined ? 'sound' : 'damaged';
    if (lostSeal) return 'damaged';
    const recycled = (header.flags & SegmentFlag.Recycled) !== 0;
    const leftOver = recycled ? (await this.#headerHere()) !== undefined : rest.anything;
    const { verdict } = verdictOf({
      isLast: true,
      sealed: false,
      fullSize: this.#end >= header.segmentBytes || (header.flags & SegmentFlag.Growing) !== 0,
      expectedLsn: this.#expected.lsn,
      laterFrame: rest.laterFrame,
      leftOver,
    });
    this.#findings.torn = verdict === 'torn-tail';
    return verdict === 'corrupt' ? 'damaged' : 'sound';
  }

  /** Whether the file ends in a seal: by that alone it is opened, and what is before it was on disk when it was written. */
  async #isSealed(): Promise<boolean> {
    const { header } = this.#subject;
    if (header === undefined || this.#end >= header.segmentBytes) return false;
    return (await readSealAt(this.#file, header, this.#end)) !== undefined;
  }

  /**
   * Whether a seal stood here, at the end of the file, and was changed since. The size of a growing segment does not tell
   * that it was sealed; but one that was not written to its end lacks a part of a sector, and this one lacks none.
   */
  async #isLostSeal(): Promise<boolean> {
    if (((this.#subject.header?.flags ?? 0) & SegmentFlag.Growing) === 0) return false;
    const footer = Buffer.alloc(SEAL_FOOTER_BYTES);
    const header = await this.#headerHere();
    let end = this.#end;
    if (header === undefined) {
      await this.#file.read(footer, end - SEAL_FOOTER_BYTES);
      if (readSealFooter(footer, end) !== this.#offset) return false;
    } else {
      end = this.#offset + frameBytes(header.storedBytes);
      if (header.type !== FrameType.Seal || end > this.#end) return false;
    }
    return !(await isTornIn(this.#file, this.#offset, end));
  }

  /** Notes what is wrong here and moves on to the next frame that can be read. Returns false when there is none. */
  async #passDamage(): Promise<boolean> {
    const header = await this.#headerHere();
    if (header === undefined) {
      const atEnd = this.#offset + FRAME_HEADER_BYTES > this.#end;
      this.#damaged(
        this.#offset,
        atEnd ? describeRow(this.#subject.isLast ? 'G' : 'B', this.#expected.lsn) : 'no frame header holds here',
      );
      return this.#searchOn();
    }
    const { firstLsn, previousCrc, storedBytes, records, type, headerCrc } = header;
    if (firstLsn !== this.#expected.lsn || previousCrc !== this.#expected.previousCrc) {
      this.#damaged(this.#offset, `the frame here starts at LSN ${firstLsn} and does not follow the one before it`);
      this.#expected = { ...this.#expected, lsn: firstLsn, previousCrc };
      return true;
    }
    const total = frameBytes(storedBytes);
    if (this.#offset + total > this.#end) {
      this.#damaged(this.#offset, 'the file ends within this frame');
      return this.#searchOn();
    }
    const what = records > 0 ? ` (LSN ${firstLsn} to ${firstLsn + records - 1})` : '';
    const why = (await this.#isUnsoundHere())
      ? 'holds by its checksum, but cannot be decoded or is not authentic'
      : 'does not match its checksum';
    this.#damaged(this.#offset, `the content of this frame ${why}${what}`);
    if (type === FrameType.Seal) this.#seal = 'damaged';
    this.#offset += total;
    this.#expected = { ...this.#expected, lsn: firstLsn + records, previousCrc: headerCrc };
    return type !== FrameType.Seal;
  }

  /** Whether the frame here is whole by its checksums, and what it holds cannot be brought back. */
  async #isUnsoundHere(): Promise<boolean> {
    const header = await this.#headerHere();
    if (header === undefined || this.#offset + frameBytes(header.storedBytes) > this.#end) return false;
    const bytes = Buffer.allocUnsafeSlow(frameBytes(header.storedBytes));
    await this.#file.read(bytes, this.#offset);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const whole = checkFrame(bytes, view, 0, bytes.byteLength, bytes.byteLength, this.#expected);
    return typeof whole === 'object' && !isSound(whole, bytes, FRAME_HEADER_BYTES, this.#keys);
  }

  async #searchOn(): Promise<boolean> {
    const found = await findFrame(this.#file, this.#offset + 8, this.#end, this.#expected.salt);
    if (found === undefined) return false;
    this.#offset = found.offset;
    const { firstLsn, previousCrc } = found.header;
    this.#expected = { ...this.#expected, lsn: firstLsn, previousCrc };
    return true;
  }

  async #headerHere(): Promise<FrameHeader | undefined> {
    if (this.#offset + FRAME_HEADER_BYTES > this.#end) return undefined;
    const bytes = Buffer.alloc(FRAME_HEADER_BYTES);
    await this.#file.read(bytes, this.#offset);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return readFrameHeader(view, bytes, 0, this.#expected.salt);
  }

  /** The successor repeats where this segment ended. Only worth comparing with a segment that is whole. */
  #compareWith({ previous, segmentId, flags }: SegmentHeader): void {
    if (this.#findings.damage.length > 0 || this.#subject.header === undefined) return;
    const { lsn, previousCrc } = this.#expected;
    // Cut more than once, it ends for its successor where the first cut ended it.
    const cuts = (flags & SegmentFlag.Truncates) !== 0;
    const fits = cuts ? previous.lastLsn <= lsn - 1 : previous.lastLsn === lsn - 1;
    if (this.#compacted) return this.#compareCompacted(cuts);
    if (fits && previous.endOffset === this.#offset && previous.headerCrc === previousCrc) return;
    this.#damaged(
      this.#offset,
      `it ends here, at LSN ${lsn - 1}, and segment ${segmentId} says that it ended at byte ${previous.endOffset}, at LSN ${previous.lastLsn}`,
    );
  }

  /** A compacted segment says by its own seal, at the very end of the file, that it is whole. */
  #compareCompacted(cut: boolean): void {
    const [end, last] = [this.#expected.lsn - 1, this.#subject.lastLsn!];
    const fits = cut ? last <= end : last === end;
    const what = this.#seal === 'valid' ? 'it was compacted' : 'it was compacted, and lacks its seal';
    if (fits && this.#seal === 'valid' && this.#offset === this.#end) return;
    this.#damaged(this.#offset, `${what}: it ends at LSN ${end}, and should at LSN ${last}`);
  }

  /** The end of a file that was prepared and not used is zeros, unless it held something before. */
  async #checkBehindSeal(): Promise<void> {
    const { header } = this.#subject;
    if (header === undefined || this.#sealedByRecovery || (header.flags & SegmentFlag.Recycled) !== 0) return;
    const stray = await firstNonZero(this.#file, this.#offset, await this.#file.size());
    if (stray !== undefined) this.#damaged(stray, 'a byte behind the seal is not zero');
  }

  #damaged(offset: number, reason: string, lsn = this.#expected.lsn): void {
    this.#findings.damage.push({ segment: this.#subject.name, offset, lsn, reason });
  }
}

function sameIndex(a: IndexEntry[], b: IndexEntry[]): boolean {
  return (
    a.length === b.length &&
    a.every(
      ({ offset, firstLsn, timestamp }, i) =>
        offset === b[i].offset && firstLsn === b[i].firstLsn && timestamp === b[i].timestamp,
    )
  );
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1).replace(/\.$/, '');
}
