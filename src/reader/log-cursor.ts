import { corrupt, WalError } from '../errors.js';
import { carriesRecords, type FrameHeader, FrameType, isEncoded } from '../format/frame.js';
import { decodePayload } from '../format/frame-payload.js';
import type { WalRecord } from '../format/record.js';
import type { IndexEntry } from '../format/seal.js';
import { statedEnd } from '../segments/segment-end.js';
import type { Lsn } from '../types.js';
import type { CatalogEntry } from './catalog.js';
import { decodeFrame, type FrameDecoder } from './decode-frame.js';
import { isGone, type ReadableFile } from './files.js';
import { FrameStream, type FrameStreamOptions } from './frame-stream.js';
import { lastEntry, readIndex } from './index-lookup.js';
import type { LogSource } from './log-source.js';

/** How often in a row a segment may be gone, or replaced, when it is about to be read. */
const MOST_TRIES = 10;

/**
 * Visits frames in order. Of a frame's records, those up to `last` belong to the log. Returns false to go no further,
 * 'enough' to be given the next ones later.
 */
export type CursorVisitor = (
  frame: FrameHeader,
  bytes: Uint8Array,
  payloadAt: number,
  offset: number,
  last: Lsn,
) => boolean | 'enough';

/** What one read may bring that was compressed: what a file holds in a piece may be a thousand times as much. */
const ENOUGH_BYTES = 4 * 1024 * 1024;

export interface LogCursorOptions extends FrameStreamOptions {
  /** What becomes of the frames. Default: the records as they were written. */
  decoder?: FrameDecoder;
}

/**
 * A place in the log that moves forward: through frames, across segments, and on again when the log has grown. Holds one
 * open file. Whatever it reads is checked; what is not there though it was promised is `ERR_WAL_CORRUPT`, and what was
 * cleaned up under it `ERR_WAL_TRUNCATED`.
 */
export class LogCursor {
  readonly #source: LogSource;
  readonly #options: FrameStreamOptions;
  readonly #decode: FrameDecoder;
  /** The next LSN to deliver. */
  #next: Lsn;
  #entry: CatalogEntry | undefined;
  #file: ReadableFile | undefined;
  #stream: FrameStream | undefined;
  #sealed = false;
  /** How many cuts of the log it knows of. */
  #cuts: number;
  /** Where the end of a file was looked at a second time, within this call. */
  #retriedAt = -1;

  constructor(source: LogSource, from: Lsn, { decoder = decodeFrame, ...options }: LogCursorOptions = {}) {
    this.#source = source;
    this.#next = from;
    this.#options = options;
    this.#decode = decoder;
    this.#cuts = source.catalog.cuts.count;
  }

  get next(): Lsn {
    return this.#next;
  }

  /** Throws `ERR_WAL_TRUNCATED` when the log was cut before this place. */
  checkPlace(): void {
    const { cuts } = this.#source.catalog;
    if (cuts.count !== this.#cuts && this.#next > cuts.keptSince(this.#cuts) + 1) throw this.#truncated();
  }

  /**
   * The next records up to `to`, as many as one read of the file brought; undefined when there are none (yet). None of
   * them, and not undefined, when the log was cut meanwhile behind this place: `to` may mean something else by now.
   */
  async read(to: Lsn): Promise<WalRecord[] | undefined> {
    this.#retriedAt = -1;
    const records: WalRecord[] = [];
    const { cuts } = this.#source.catalog;
    const known = cuts.count;
    let unpacked = 0;
    const visit: CursorVisitor = (frame, bytes, at, offset, last) => {
      if (!carriesRecords(frame.type) || frame.firstLsn + frame.records <= this.#next) return true;
      if (!isEncoded(frame)) {
        this.#decode(frame, bytes, at, this.#next, last, records);
        return true;
      }
      const raw = this.#decoded(frame, bytes, at, offset);
      this.#decode({ ...frame, storedBytes: raw.byteLength }, raw, 0, this.#next, last, records);
      unpacked += raw.byteLength;
      return unpacked < ENOUGH_BYTES || 'enough';
    };
    while (await this.#advance(visit, to)) {
      if (records.length > 0 || cuts.count !== known) return records;
    }
    return undefined;
  }

  #decoded(frame: FrameHeader, bytes: Uint8Array, at: number, offset: number): Uint8Array {
    const place = { segment: this.#entry!.name, offset, lsn: frame.firstLsn };
    return decodePayload(frame, bytes, at, this.#source.keys, place);
  }

  /** As {@link scan}, with the records of those compressed and encrypted frames as they were appended that are `wanted` so. */
  scanDecoded(
    visit: CursorVisitor,
    to: Lsn,
    wanted = (frame: FrameHeader) => carriesRecords(frame.type),
  ): Promise<void> {
    const step: CursorVisitor = (frame, bytes, at, offset, last) => {
      if (!wanted(frame) || !isEncoded(frame)) return visit(frame, bytes, at, offset, last);
      const raw = this.#decoded(frame, bytes, at, offset);
      return visit({ ...frame, storedBytes: raw.byteLength }, raw, 0, offset, last);
    };
    return this.scan(step, to);
  }

  /** Visits all frames that are there, up to the one with `to`, without decoding them. */
  async scan(visit: CursorVisitor, to: Lsn): Promise<void> {
    this.#retriedAt = -1;
    let enough = false;
    const step: CursorVisitor = (frame, bytes, at, offset, last) => {
      enough = visit(frame, bytes, at, offset, last) === false;
      return !enough;
    };
    while (!enough && (await this.#advance(step, to)));
  }

  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    try {
      await this.#stream?.settle();
    } finally {
      await file?.close();
    }
  }

  /** One step: a chunk of frames, or a change of segment. Returns false when nothing more is there up to `to`. */
  async #advance(visit: CursorVisitor, to: Lsn): Promise<boolean> {
    if (this.#next > to) return false;
    if (this.#source.catalog.outdated) await this.#source.catalog.refresh();
    if (this.#source.catalog.cuts.count !== this.#cuts) await this.#afterCut();
    if (this.#stream === undefined && !(await this.#enter())) return false;
    const stream = this.#stream!;
    const live = this.#entry!.next === undefined ? this.#source.liveEnd(this.#entry!.header.segmentId) : undefined;
    if (live !== undefined) stream.extend(live);
    const last = this.#lastHere(to);
    const wholeSegment = last === this.#entry!.lastLsn;
    let progress = false;
    let unfinished = false;
    const more = await stream.advance((frame, bytes, at, offset) => {
      progress = true;
      if (frame.type === FrameType.Seal) this.#sealed = true;
      const goOn = visit(frame, bytes, at, offset, last);
      const end = frame.firstLsn + frame.records;
      this.#next = Math.max(this.#next, Math.min(end, last + 1));
      unfinished = end > last + 1 && !wholeSegment;
      return this.#sealed || unfinished ? false : goOn;
    }, last);
    // `to` lies inside of a frame, the rest of which will be asked for: it must be entered again.
    if (unfinished) await this.#leave();
    return more || progress ? true : this.#atEnd(to);
  }

  /** Up to where this segment's records belong to the log: a cut may go through the middle of a frame. */
  #lastHere(to: Lsn): Lsn {
    return Math.min(to, this.#entry!.lastLsn ?? to);
  }

  /** The frames of this segment ended. Is that its end, the end of the log so far, or damage? */
  async #atEnd(to: Lsn): Promise<boolean> {
    const entry = this.#entry!;
    const stream = this.#stream!;
    const known = entry.next;
    const entries = await this.#source.catalog.refresh();
    const now = entries.find((candidate) => candidate.name === entry.name);
    if (this.#source.catalog.cuts.count !== this.#cuts) {
      await this.#afterCut();
      return true;
    }
    if (now === undefined) {
      // Cleaned up. All of it may have been read before, and then what comes next is elsewhere.
      await this.#leave();
      return true;
    }
    if (now.header.headerCrc !== entry.header.headerCrc) {
      // Compacted since it was opened: what is left to read is in the new file.
      await this.#leave();
      return true;
    }
    this.#entry = now;
    if (now.next !== undefined && this.#next > now.lastLsn!) return this.#move(now);
    if (now.next !== known) {
      // It was sealed since we looked: what is missing may be there now.
      stream.resume(statedEnd(now.header, now.next)!.endOffset);
      return true;
    }
    if (now.next === undefined && (await this.#mayHaveGrown(now, stream))) return true;
    if (now.next === undefined && this.#source.promised() < this.#next) return false;
    throw this.#damage(to);
  }

  /** Whether the last segment may hold more by now than when it was read. */
  async #mayHaveGrown({ header }: CatalogEntry, stream: FrameStream): Promise<boolean> {
    const live = this.#source.liveEnd(header.segmentId);
    if (live !== undefined) return stream.extend(live);
    // Only the file knows. Look again where the frames ended, but not at the same place for ever.
    if (this.#sealed || this.#retriedAt === stream.offset) return false;
    this.#retriedAt = stream.offset;
    stream.resume(await this.#file!.size());
    return true;
  }

  /** What was read ahead may be void by now; what comes next is looked for anew. */
  async #afterCut(): Promise<void> {
    this.checkPlace();
    this.#cuts = this.#source.catalog.cuts.count;
    await this.#leave();
  }

  async #move({ next }: CatalogEntry): Promise<boolean> {
    if (next!.firstLsn !== this.#next) throw this.#truncated();
    await this.#leave();
    return true;
  }

  async #leave(): Promise<void> {
    await this.close();
    this.#stream = undefined;
    this.#entry = undefined;
    this.#sealed = false;
  }

  /** Opens the segment that holds `next`, at the nearest frame that an index knows. */
  async #enter(): Promise<boolean> {
    const { catalog } = this.#source;
    for (let tries = 1; ; tries++) {
      if (this.#next < this.#source.low()) throw this.#truncated();
      const entry = await this.#locate();
      if (entry === undefined) return false;
      const file = await this.#open(entry);
      if (file !== undefined) {
        try {
          this.#stream = await this.#begin(entry, file);
        } catch (error) {
          await file.close();
          throw error;
        }
        this.#entry = entry;
        this.#file = file;
        return true;
      }
      if (tries === MOST_TRIES) throw this.#truncated();
      await catalog.renew(entry.name);
    }
  }

  async #begin(entry: CatalogEntry, file: ReadableFile): Promise<FrameStream> {
    const { header, next } = entry;
    // Before any of its frames is read, and with nothing to be waited for in the middle of them.
    await this.#source.keys?.load(header.logId, header.state.encryption);
    const live = next === undefined ? this.#source.liveEnd(header.segmentId) : undefined;
    const stated = statedEnd(header, next)?.endOffset ?? Number.MAX_SAFE_INTEGER;
    return this.#streamFrom(entry, file, live ?? Math.min(await file.size(), stated));
  }

  /** The entry's file; undefined when it is gone, cleaned up or compacted, or another one has its name by now. */
  async #open(entry: CatalogEntry): Promise<ReadableFile | undefined> {
    const { catalog } = this.#source;
    let file: ReadableFile;
    try {
      file = await catalog.files.open(entry.name);
    } catch (error) {
      if (isGone(error)) return undefined;
      throw error;
    }
    let same = false;
    try {
      // Only what is sealed is ever compacted.
      same = entry.next === undefined || (await catalog.isFileOf(entry, file));
    } finally {
      if (!same) await file.close();
    }
    return same ? file : undefined;
  }

  async #locate(): Promise<CatalogEntry | undefined> {
    const { catalog } = this.#source;
    const holds = (entry: CatalogEntry) =>
      entry.header.firstLsn <= this.#next && this.#next <= (entry.lastLsn ?? Infinity);
    const known = catalog.entries.find((entry) => entry.lastLsn !== undefined && holds(entry));
    if (known !== undefined) return known;
    await catalog.refresh();
    const entries = catalog.held;
    if (entries.length > 0 && this.#next < entries[0].header.firstLsn) throw this.#truncated();
    return entries.find(holds);
  }

  async #streamFrom(entry: CatalogEntry, file: ReadableFile, end: number): Promise<FrameStream> {
    const { header } = entry;
    const start = { salt: header.salt, lsn: header.firstLsn, previousCrc: header.headerCrc };
    if (this.#next > header.firstLsn) {
      const { catalog } = this.#source;
      const index =
        entry.next === undefined
          ? await this.#source.liveIndex(header.segmentId)
          : await catalog.index(entry, () => readIndex(file, entry));
      const hint = lastEntry(index ?? [], ({ firstLsn }) => firstLsn <= this.#next);
      if (hint !== undefined && (await this.#holds(file, hint, end, entry))) {
        const there = { salt: header.salt, lsn: hint.firstLsn, previousCrc: undefined };
        return new FrameStream(file, hint.offset, end, there, this.#options);
      }
    }
    return new FrameStream(file, header.headerBytes, end, start, this.#options);
  }

  /** An index is a hint: only a frame that is where it says, and holds, is a place to start from. */
  async #holds(file: ReadableFile, hint: IndexEntry, end: number, { header }: CatalogEntry): Promise<boolean> {
    const expected = { salt: header.salt, lsn: hint.firstLsn, previousCrc: undefined };
    const probe = new FrameStream(file, hint.offset, end, expected, { chunkBytes: 4096, readAhead: false });
    let found = false;
    for (let more = true; more && !found; ) {
      more = await probe.advance(() => {
        found = true;
        return false;
      });
    }
    return found;
  }

  #truncated(): WalError {
    const low = this.#source.low();
    const message =
      this.#next < low
        ? `LSN ${this.#next} was cleaned up; the log begins at LSN ${low} now.`
        : `LSN ${this.#next} was cleaned up or cut off while it was read.`;
    return new WalError('ERR_WAL_TRUNCATED', message, { lsn: this.#next });
  }

  #damage(to: Lsn): WalError {
    const { name } = this.#entry!;
    const { offset, lsn } = this.#stream!;
    return corrupt(
      `${name} is damaged at byte ${offset}: LSN ${lsn} should be there (of ${this.#next} to ${to}) and is not readable. ` +
        "Run 'ringwal verify' on the log's directory to see all of the damage.",
      { segment: name, offset, lsn },
    );
  }
}
