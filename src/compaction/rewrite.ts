import { randomBytes } from 'node:crypto';
import { corrupt } from '../errors.js';
import { makeRingKey, SALT_BYTES } from '../format/encryption.js';
import { FRAME_HEADER_BYTES, type FrameHeader, FrameType } from '../format/frame.js';
import { isSound, type PayloadKeys } from '../format/frame-payload.js';
import type { NumberedKey } from '../format/key-ring.js';
import { RecordKind } from '../format/record.js';
import { decodeSeal } from '../format/seal.js';
import { SegmentFlag, type SegmentHeader } from '../format/segment-header.js';
import { scanRecords } from '../format/sparse.js';
import {
  afterTransaction,
  decodePositions,
  decodeState,
  type EncryptionState,
  type LogState,
  withPositions,
} from '../format/state.js';
import { mayDecide, readTransactionPrefix } from '../format/transaction.js';
import { CompactedWriter } from '../segments/compacted-writer.js';
import { withFile } from '../segments/read-segment.js';
import type { SegmentInfo } from '../segments/segment-info.js';
import { Window, walkFrames } from '../segments/walk.js';
import type { Storage, StorageFile } from '../storage/storage.js';
import type { MarkedSegment } from './mark.js';
import { type Marks, MarksFile } from './marks.js';
import type { Pace } from './pace.js';
import type { Run } from './plan.js';
import { type Look, lookInto, withSegment } from './source.js';

/** A frame without garbage is copied as it is from this size on; smaller ones are put together. */
const COPIED_BYTES = 4096;

/** What it takes to compact an encrypted log. */
export interface CompactionKeys {
  /** Those that are at hand. */
  keys: PayloadKeys;
  /** The one to write with. */
  current: NumberedKey;
  /** What the log says of its keys; it knows all of them. */
  state: EncryptionState;
}

/**
 * Writes what is left of a run into a file of this name, syncs it, and reads it back. The run is not touched. With
 * `encryption`, no record gets into the file in plain that was not in plain before.
 */
export function rewriteRun(
  storage: Storage,
  run: Run,
  marksName: string,
  target: string,
  pace: Pace,
  encryption?: CompactionKeys,
): SegmentInfo {
  const file = storage.open(target, 'create');
  try {
    const info = new Rewriter(storage, run, file, marksName, pace, encryption).write();
    check(storage, target, info, encryption?.keys);
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
  readonly #encryption: CompactionKeys | undefined;
  #writer!: CompactedWriter;
  #state!: LogState;
  #timestamp = 0;

  constructor(
    storage: Storage,
    run: Run,
    file: StorageFile,
    marksName: string,
    pace: Pace,
    encryption: CompactionKeys | undefined,
  ) {
    this.#encryption = encryption;
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
          const marks = marksFile.read(segment.marks);
          const taker = new FrameTaker(this.#writer, segment, marks, this.#encryption?.keys);
          source.walk(this.#pace, (header, frame, offset) => {
            this.#timestamp = header.timestamp;
            this.#noteState(header, frame.subarray(FRAME_HEADER_BYTES), segment.info);
            taker.take(header, frame, offset);
          });
          this.#writer.coverTo(segment.info.lastLsn);
        });
      }
    } finally {
      marksFile.close();
    }
    return this.#writer.seal(this.#withKeys(this.#state), this.#timestamp);
  }

  #begin(first: SegmentHeader): CompactedWriter {
    const last = this.#run[this.#run.length - 1].info;
    const salt = randomBytes(8);
    const { logId, firstLsn, createdAt, previous, flags, state } = first;
    const header = {
      logId,
      segmentId: last.id,
      salt: { low: salt.readUInt32LE(0), high: salt.readUInt32LE(4) },
      firstLsn,
      createdAt,
      // More than it will have: a file that is cut to the end of its seal is smaller than it was made.
      segmentBytes: this.#run.reduce((sum, { info }) => sum + info.fileBytes, 0) * 2 + 1024 * 1024,
      previous,
      flags: SegmentFlag.Compacted | (flags & SegmentFlag.Truncates),
      state: this.#withKeys(state),
      records: this.#run.reduce((sum, { records, dead }) => sum + records - dead, 0),
    };
    if (this.#encryption === undefined) return new CompactedWriter(this.#file, header);
    // A salt of its own, so a subkey of its own: its counter begins anew, whoever else writes with the same key.
    const { current, keys } = this.#encryption;
    const ringKey = makeRingKey(current.id, current.key, randomBytes(SALT_BYTES));
    return new CompactedWriter(this.#file, header, { ringKey, keys });
  }

  /** A segment knows every key that its frames may need: those of the run, and the one that it is written with. */
  #withKeys(state: LogState): LogState {
    return this.#encryption === undefined ? state : { ...state, encryption: this.#encryption.state };
  }

  #noteState(header: FrameHeader, payload: Uint8Array, { firstLsn, lastLsn }: SegmentInfo): void {
    const { type } = header;
    // A segment that recovery ended on a full disk has no seal to tell.
    if (mayDecide(header) && isWithin(header, lastLsn)) {
      const prefix = readTransactionPrefix(payload, 0, payload.byteLength);
      this.#state = afterTransaction(this.#state, prefix, header.firstLsn, firstLsn);
    }
    if (type === FrameType.State) this.#state = decodeState(payload);
    if (type === FrameType.Positions) this.#state = withPositions(this.#state, decodePositions(payload));
    if (type === FrameType.Seal) this.#state = decodeSeal(payload).state;
  }
}

/** Whether something of it is left after a cut. One without records stands behind the last of those before it. */
function isWithin({ firstLsn, records }: FrameHeader, lastLsn: number): boolean {
  return firstLsn <= lastLsn + (records === 0 ? 1 : 0);
}

type Records = Extract<Look, { is: 'records' }>;

/** Hands the frames of one segment over to the writer, without the garbage in them. */
class FrameTaker {
  readonly #writer: CompactedWriter;
  readonly #name: string;
  readonly #lastLsn: number;
  readonly #marks: Marks;
  readonly #aborted: ReadonlySet<string>;
  readonly #keys: PayloadKeys | undefined;
  #operations = 0;

  constructor(writer: CompactedWriter, { info, aborted }: MarkedSegment, marks: Marks, keys: PayloadKeys | undefined) {
    this.#writer = writer;
    this.#name = info.name;
    this.#lastLsn = info.lastLsn;
    this.#marks = marks;
    this.#aborted = new Set(aborted);
    this.#keys = keys;
  }

  take(header: FrameHeader, frame: Uint8Array, offset: number): void {
    const { firstLsn, records, timestamp } = header;
    if (!isWithin(header, this.#lastLsn)) return;
    const stored = frame.subarray(FRAME_HEADER_BYTES);
    const look = lookInto(header, frame, this.#lastLsn, this.#keys, { segment: this.#name, offset });
    switch (look.is) {
      case 'spare':
        return;
      case 'gap':
        if (records > 0) this.#writer.gap(firstLsn, Math.min(records, this.#lastLsn - firstLsn + 1), timestamp);
        return;
      case 'records':
        if (look.committed === undefined) this.#takeRecords(header, look, stored);
        else this.#takeTransaction(header, look, look.committed.prefix, stored);
        return;
      case 'part':
        if (this.#aborted.has(look.id)) return;
    }
    this.#writer.copy(header, stored);
  }

  #takeRecords(header: FrameHeader, look: Records, stored: Uint8Array): void {
    const before = this.#operations;
    const { payload } = look;
    if (payload.byteLength >= COPIED_BYTES && this.#isWhole(header, look)) {
      this.#writer.copy(header, stored);
      return;
    }
    this.#operations = before;
    this.#scan(header, look, (lsn, timestamp, at, end, dead) => {
      if (!dead) this.#writer.add(lsn, timestamp, payload.subarray(at, end), header.codec);
      return true;
    });
  }

  /** Its operations stay together, in a frame of their own: they count at one LSN, and a reader is told whose they are. */
  #takeTransaction(header: FrameHeader, look: Records, prefix: Uint8Array, stored: Uint8Array): void {
    const before = this.#operations;
    const left = { records: 0, bytes: 0 };
    let whole = true;
    // Counted first: an array of them could be a hundred times as large as the frame.
    this.#scan(header, look, (_lsn, _timestamp, at, end, dead) => {
      if (dead) whole = false;
      else {
        left.records++;
        left.bytes += end - at;
      }
      return true;
    });
    if (whole) this.#writer.copy(header, stored);
    if (whole || left.records === 0) return;
    this.#operations = before;
    this.#writer.addTransaction(header, prefix, left, (add) => {
      this.#scan(header, look, (lsn, _timestamp, at, end, dead) => {
        if (!dead) add(lsn, look.payload.subarray(at, end));
        return true;
      });
    });
  }

  /** Whether nothing of a frame is garbage or was cut off. */
  #isWhole(header: FrameHeader, look: Records): boolean {
    let whole = header.firstLsn + header.records - 1 <= this.#lastLsn;
    if (whole) {
      this.#scan(header, look, (_lsn, _timestamp, _at, _end, dead) => {
        whole = !dead;
        return whole;
      });
    }
    return whole;
  }

  #scan(
    { firstLsn, records, timestamp }: FrameHeader,
    { payload, at, sparse }: Records,
    visit: (lsn: number, timestamp: number, at: number, end: number, dead: boolean) => boolean,
  ): void {
    scanRecords(payload, at, payload.byteLength, sparse, firstLsn, timestamp, (record) => {
      const { lsn, kind } = record;
      if (lsn >= firstLsn + records) throw tooMany(lsn);
      if (lsn > this.#lastLsn) return false;
      const dead = kind !== RecordKind.Data && this.#marks.has(this.#operations++);
      return visit(lsn, record.timestamp, record.at, record.end, dead);
    });
  }
}

/** What takes the place of promised records is read once more before it does. */
function check(storage: Storage, target: string, info: SegmentInfo, keys: PayloadKeys | undefined): void {
  withFile(storage, target, (file) => {
    const { salt, firstLsn: lsn, headerBytes, headerCrc: previousCrc, lastLsn, endCrc } = info;
    let end = previousCrc;
    let expected = lsn;
    const isSoundHere = (header: FrameHeader, bytes: Uint8Array, at: number) => isSound(header, bytes, at, keys);
    const expectation = { salt, lsn, previousCrc, isSound: isSoundHere };
    for (const { header } of walkFrames(new Window(file), headerBytes, expectation)) {
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
