import { randomBytes } from 'node:crypto';
import { corrupt } from '../errors.js';
import { type FrameHeader, FrameType } from '../format/frame.js';
import { RecordKind } from '../format/record.js';
import { decodeSeal } from '../format/seal.js';
import { SegmentFlag, type SegmentHeader } from '../format/segment-header.js';
import { scanRecords } from '../format/sparse.js';
import { decodePositions, decodeState, type LogState, withPositions } from '../format/state.js';
import { CompactedWriter } from '../segments/compacted-writer.js';
import { withFile } from '../segments/read-segment.js';
import type { SegmentInfo } from '../segments/segment-info.js';
import { Window, walkFrames } from '../segments/walk.js';
import type { Storage, StorageFile } from '../storage/storage.js';
import { type Marks, MarksFile } from './marks.js';
import type { Pace } from './pace.js';
import type { Run } from './plan.js';
import { isForeign, recordsOf, withSegment } from './source.js';

/** A frame without garbage is copied as it is from this size on; smaller ones are put together. */
const COPIED_BYTES = 4096;

/** Writes what is left of a run into a file of this name, syncs it, and reads it back. The run is not touched. */
export function rewriteRun(storage: Storage, run: Run, marksName: string, target: string, pace: Pace): SegmentInfo {
  const file = storage.open(target, 'create');
  try {
    const info = new Rewriter(storage, run, file, marksName, pace).write();
    check(storage, target, info);
    // A frame that was copied may go on behind a cut; what is there is no part of the log.
    return { ...info, lastLsn: run[run.length - 1].info.lastLsn };
  } finally {
    file.close();
  }
}

/**
 * Puts a rewritten segment in the place of its run, in one durable step: before it the old segments are the log, and
 * after it the new one is, whose header steps over what is left of the old ones.
 */
export function swapIn(storage: Storage, target: string, name: string): void {
  storage.rename(target, name, true);
  storage.syncFolder();
}

/** Removes temporary files, as far as they are there. */
export function discardTemporary(storage: Storage, names: readonly string[]): void {
  const there = new Set(storage.list());
  for (const name of names) if (there.has(name)) storage.remove(name);
}

class Rewriter {
  readonly #storage: Storage;
  readonly #run: Run;
  readonly #file: StorageFile;
  readonly #marksName: string;
  readonly #pace: Pace;
  #writer!: CompactedWriter;
  #state!: LogState;
  #timestamp = 0;

  constructor(storage: Storage, run: Run, file: StorageFile, marksName: string, pace: Pace) {
    this.#storage = storage;
    this.#run = run;
    this.#file = file;
    this.#marksName = marksName;
    this.#pace = pace;
  }

  write(): SegmentInfo {
    const marksFile = new MarksFile(this.#storage, this.#marksName, 'read');
    try {
      for (const segment of this.#run) {
        withSegment(this.#storage, segment.info, (source) => {
          this.#writer ??= this.#begin(source.header);
          this.#state = source.header.state;
          const taker = new FrameTaker(this.#writer, segment.info.lastLsn, marksFile.read(segment.marks));
          source.walk(this.#pace, (header, payload) => {
            this.#timestamp = header.timestamp;
            this.#noteState(header, payload);
            taker.take(header, payload);
          });
          this.#writer.coverTo(segment.info.lastLsn);
        });
      }
    } finally {
      marksFile.close();
    }
    return this.#writer.seal(this.#state, this.#timestamp);
  }

  #begin(first: SegmentHeader): CompactedWriter {
    const last = this.#run[this.#run.length - 1].info;
    const salt = randomBytes(8);
    const { logId, firstLsn, createdAt, previous, flags, state } = first;
    return new CompactedWriter(this.#file, {
      logId,
      segmentId: last.id,
      salt: { low: salt.readUInt32LE(0), high: salt.readUInt32LE(4) },
      firstLsn,
      createdAt,
      // More than it will have: a file that is cut to the end of its seal is smaller than it was made.
      segmentBytes: this.#run.reduce((sum, { info }) => sum + info.fileBytes, 0) * 2 + 1024 * 1024,
      previous,
      flags: SegmentFlag.Compacted | (flags & SegmentFlag.Truncates),
      state,
      records: this.#run.reduce((sum, { records, dead }) => sum + records - dead, 0),
    });
  }

  #noteState({ type }: FrameHeader, payload: Uint8Array): void {
    if (type === FrameType.State) this.#state = decodeState(payload);
    if (type === FrameType.Positions) this.#state = withPositions(this.#state, decodePositions(payload));
    if (type === FrameType.Seal) this.#state = decodeSeal(payload).state;
  }
}

/** Hands the frames of one segment over to the writer, without the garbage in them. */
class FrameTaker {
  readonly #writer: CompactedWriter;
  readonly #lastLsn: number;
  readonly #marks: Marks;
  #operations = 0;

  constructor(writer: CompactedWriter, lastLsn: number, marks: Marks) {
    this.#writer = writer;
    this.#lastLsn = lastLsn;
    this.#marks = marks;
  }

  take(header: FrameHeader, stored: Uint8Array): void {
    const { type, firstLsn, records, timestamp } = header;
    // One without records stands behind the last of those before it.
    if (firstLsn > this.#lastLsn + (records === 0 ? 1 : 0)) return;
    const bytes = recordsOf(header, stored);
    if (bytes !== undefined) this.#takeRecords(header, bytes, stored);
    else if (type === FrameType.Gap) {
      if (records > 0) this.#writer.gap(firstLsn, Math.min(records, this.#lastLsn - firstLsn + 1), timestamp);
    } else if (isForeign(header)) this.#writer.copy(header, stored);
  }

  /** `bytes`: what `stored`, the payload as it lies in the file, holds. */
  #takeRecords(header: FrameHeader, bytes: Uint8Array, stored: Uint8Array): void {
    const before = this.#operations;
    if (stored.byteLength >= COPIED_BYTES && this.#isWhole(header, bytes)) {
      this.#writer.copy(header, stored);
      return;
    }
    this.#operations = before;
    this.#scan(header, bytes, (lsn, timestamp, at, end, dead) => {
      if (!dead) this.#writer.add(lsn, timestamp, bytes.subarray(at, end));
      return true;
    });
  }

  /** Whether nothing of a frame is garbage or was cut off. */
  #isWhole(header: FrameHeader, bytes: Uint8Array): boolean {
    let whole = header.firstLsn + header.records - 1 <= this.#lastLsn;
    if (whole) {
      this.#scan(header, bytes, (_lsn, _timestamp, _at, _end, dead) => {
        whole = !dead;
        return whole;
      });
    }
    return whole;
  }

  #scan(
    { type, firstLsn, records, timestamp }: FrameHeader,
    payload: Uint8Array,
    visit: (lsn: number, timestamp: number, at: number, end: number, dead: boolean) => boolean,
  ): void {
    const sparse = type === FrameType.Sparse;
    scanRecords(payload, 0, payload.byteLength, sparse, firstLsn, timestamp, (record) => {
      const { lsn, kind } = record;
      if (lsn >= firstLsn + records) throw tooMany(lsn);
      if (lsn > this.#lastLsn) return false;
      const dead = kind !== RecordKind.Data && this.#marks.has(this.#operations++);
      return visit(lsn, record.timestamp, record.at, record.end, dead);
    });
  }
}

/** What takes the place of promised records is read once more before it does. */
function check(storage: Storage, target: string, info: SegmentInfo): void {
  withFile(storage, target, (file) => {
    const { salt, firstLsn: lsn, headerBytes, headerCrc: previousCrc, lastLsn, endCrc } = info;
    let end = previousCrc;
    let expected = lsn;
    for (const { header } of walkFrames(new Window(file), headerBytes, { salt, lsn, previousCrc })) {
      end = header.headerCrc;
      expected = header.firstLsn + header.records;
    }
    if (end === endCrc && expected === lastLsn + 1) return;
    throw corrupt(`What compaction wrote does not read back, from LSN ${expected} on. Nothing was changed.`, {
      lsn: expected,
    });
  });
}

function tooMany(lsn: number): Error {
  return corrupt(`A frame holds more records than it says, at LSN ${lsn}. It was not compacted.`, { lsn });
}
