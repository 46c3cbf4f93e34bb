import { buildFrame, FrameType, frameBytes, HeaderFlag, type Salt } from '../format/frame.js';
import { addToIndex, encodeSeal, type IndexEntry, sealReserve } from '../format/seal.js';
import { encodeSegmentHeader, type Predecessor, SegmentFlag, segmentHeaderBytes } from '../format/segment-header.js';
import { encodePositions, encodeState, type LogState, type Positions } from '../format/state.js';
import type { Storage, StorageFile } from '../storage/storage.js';
import { segmentName } from './names.js';
import { isNoSpace, noSpace, type Spare } from './prepare.js';
import type { SegmentInfo } from './segment-info.js';

export interface SegmentStart {
  logId: Uint8Array;
  segmentId: number;
  salt: Salt;
  firstLsn: number;
  now: number;
  previous: Predecessor;
  state: LogState;
  flags: number;
}

const PAGE_BYTES = 4096;
const PAGE = new Uint8Array(PAGE_BYTES);
const EMPTY = new Uint8Array(0);

export interface SegmentMark {
  lastLsn: number;
  headerCrc: number;
  entries: number;
}

/** Room that a segment needs for one frame of `frameBytesTotal` bytes. */
export function segmentBytesFor(frameBytesTotal: number, state: LogState): number {
  const stateBytes = encodeState(state).byteLength;
  let bytes = segmentHeaderBytes(stateBytes) + frameBytesTotal + 4096;
  bytes += sealReserve(bytes, stateBytes) + frameBytes(stateBytes);
  return bytes + 4096 - (bytes % 4096);
}

/** Writes one segment, from its header to its seal. Knows offsets and checksums; when to sync is the sequencer's. */
export class SegmentWriter {
  readonly info: SegmentInfo;
  /** Its blocks do not exist before they are written: a write may meet a full disk, and is then taken back. */
  readonly growing: boolean;
  readonly #file: StorageFile;
  readonly #index: IndexEntry[] = [];
  #state: LogState;
  #reserve: number;
  #lastHeaderCrc: number;

  private constructor(file: StorageFile, info: SegmentInfo, state: LogState, growing: boolean) {
    this.#file = file;
    this.info = info;
    this.growing = growing;
    this.#state = state;
    this.#lastHeaderCrc = info.headerCrc;
    this.#reserve = this.#reserveFor(state);
  }

  /**
   * Makes a segment of a spare. The header is on disk before the file takes the name of a segment, and the name is
   * durable before this returns: so a segment file always has a whole header, and no record is lost with its name.
   */
  static create(storage: Storage, spare: Spare, start: SegmentStart): SegmentWriter {
    const name = segmentName(start.segmentId);
    let { flags } = start;
    if (spare.recycled) flags |= SegmentFlag.Recycled;
    if (spare.growing !== undefined) flags |= SegmentFlag.Growing;
    const { now: createdAt, ...fields } = start;
    const { bytes, headerCrc } = encodeSegmentHeader({ ...fields, createdAt, flags, segmentBytes: spare.bytes });
    const prepared = storage.open(spare.name, 'write');
    try {
      // Before it is renamed.
      prepared.openThrough?.();
      prepared.write([bytes], 0);
      prepared.sync();
      storage.rename(spare.name, name);
      storage.syncFolder();
    } catch (error) {
      prepared.close();
      if (spare.growing === undefined || !isNoSpace(error)) throw error;
      storage.remove(spare.name);
      throw noSpace(error);
    }
    return new SegmentWriter(
      prepared,
      {
        name,
        id: start.segmentId,
        salt: start.salt,
        firstLsn: start.firstLsn,
        lastLsn: start.firstLsn - 1,
        headerBytes: bytes.byteLength,
        headerCrc,
        endCrc: headerCrc,
        endOffset: bytes.byteLength,
        fileBytes: spare.bytes,
        state: 'open',
      },
      start.state,
      spare.growing !== undefined,
    );
  }

  /** Checksum of the last frame's header, which the next one repeats. */
  get lastHeaderCrc(): number {
    return this.#lastHeaderCrc;
  }

  /** Whether a frame of this size still leaves room for the seal. */
  hasRoom(bytes: number): boolean {
    return this.info.endOffset + bytes + this.#reserve <= this.info.fileBytes;
  }

  /** Notes a frame that the caller is about to write at `endOffset + pending`. */
  noteFrame(offset: number, firstLsn: number, records: number, timestamp: number, headerCrc: number): void {
    addToIndex(this.#index, offset, firstLsn, timestamp);
    this.info.lastLsn = firstLsn + records - 1;
    this.#lastHeaderCrc = headerCrc;
  }

  /** What {@link rollBack} needs to forget frames that were noted and could not be written. */
  mark(): SegmentMark {
    return { lastLsn: this.info.lastLsn, headerCrc: this.#lastHeaderCrc, entries: this.#index.length };
  }

  rollBack({ lastLsn, headerCrc, entries }: SegmentMark): void {
    this.info.lastLsn = lastLsn;
    this.#lastHeaderCrc = headerCrc;
    this.#index.length = entries;
  }

  /**
   * Writes frames that were noted, all in one go. `ERR_WAL_NO_SPACE` says that a growing segment met a full disk and
   * ends where it ended before; any other error leaves it in an unknown state.
   */
  write(views: readonly Uint8Array[], bytes: number): void {
    try {
      this.#file.write(this.#wholePages(views, bytes), this.info.endOffset);
    } catch (error) {
      if (!this.growing || !isNoSpace(error)) throw error;
      // A part of it may be there. Cut off, it cannot be taken for a torn tail, nor for a record; and it must stay cut off
      // when the power goes, for those who appended it are told that it is not in the log.
      this.#file.truncate(this.info.endOffset);
      this.#file.sync();
      throw noSpace(error);
    }
    this.info.endOffset += bytes;
  }

  /**
   * The same, and syncs it, in one call. False: not in this way, and {@link write} and {@link sync} have all of it to do.
   * Only while everything in the file is on stable storage.
   */
  writeThrough(views: readonly Uint8Array[], bytes: number): boolean {
    const end = this.info.endOffset + bytes;
    if (end + restOfPage(end) > this.info.fileBytes) return false;
    try {
      if (this.#file.writeThrough?.(views, bytes, this.info.endOffset) !== true) return false;
    } catch (error) {
      // The disk is full, which `write` finds out again: it takes back what there is of it.
      if (!this.growing || !isNoSpace(error)) throw error;
      return false;
    }
    this.info.endOffset = end;
    return true;
  }

  /**
   * Behind the end of a prepared segment there are zeros, or what a recycled one held. Writing zeros up to the end of the
   * page spares the kernel reading that page from the disk first, when it was prepared past the page cache or long ago.
   */
  #wholePages(views: readonly Uint8Array[], bytes: number): readonly Uint8Array[] {
    const end = this.info.endOffset + bytes;
    const rest = restOfPage(end);
    if (this.growing || rest === 0 || end + rest > this.info.fileBytes) return views;
    return [...views, PAGE.subarray(0, rest)];
  }

  sync(): void {
    this.#file.sync();
  }

  /** What to sync, for somebody else who does it. */
  get file(): StorageFile {
    return this.#file;
  }

  /** `lasting`: so that no one damaged place takes it. Three times in one write, with room between the first and the last. */
  writeState(state: LogState, durableLsn: number, prefixDurable: boolean, now: number, lasting = false): void {
    const payloads = lasting ? lastingPayloads(state) : [encodeState(state)];
    this.#writeOwn(FrameType.State, payloads, durableLsn, prefixDurable, now);
    this.#state = state;
    this.#reserve = this.#reserveFor(state);
  }

  /** Whether a state that is written three times fits, and in the seal later. */
  hasRoomForLastingState(state: LogState): boolean {
    const bytes = lastingPayloads(state).map(({ byteLength }) => frameBytes(byteLength));
    return this.hasRoomForBoth(
      bytes.reduce((sum, each) => sum + each),
      state,
    );
  }

  /** A frame of nothing but its header, which says how far the log is durable. */
  writeStamp(durableLsn: number, prefixDurable: boolean, now: number): void {
    this.#writeOwn(FrameType.Stamp, [EMPTY], durableLsn, prefixDurable, now);
  }

  /** Positions of subscriptions that changed; the whole of it is in `state`. */
  writePositions(positions: Positions, state: LogState, durableLsn: number, prefixDurable: boolean, now: number): void {
    this.#writeOwn(FrameType.Positions, [encodePositions(positions)], durableLsn, prefixDurable, now);
    this.#state = state;
    this.#reserve = this.#reserveFor(state);
  }

  /** Whether a frame of `bytes` fits, and the state in the seal later. */
  hasRoomForBoth(bytes: number, state: LogState): boolean {
    return this.info.endOffset + bytes + this.#reserveFor(state) <= this.info.fileBytes;
  }

  /** What became of a transaction; the state behind it is `state`. A commit is a record. */
  writeTransaction(
    payload: Uint8Array,
    records: number,
    state: LogState,
    durableLsn: number,
    prefixDurable: boolean,
    now: number,
  ): void {
    const { endOffset, lastLsn } = this.info;
    this.#writeOwn(FrameType.Transaction, [payload], durableLsn, prefixDurable, now, records);
    if (records > 0) this.noteFrame(endOffset, lastLsn + 1, records, now, this.#lastHeaderCrc);
    this.#state = state;
    this.#reserve = this.#reserveFor(state);
  }

  /** The sparse index so far. */
  get index(): readonly IndexEntry[] {
    return this.#index;
  }

  /**
   * Ends the segment and makes all of it durable. Everything before the seal is synced first, so that a seal on disk
   * says that every record before it is there too.
   */
  seal(now: number): void {
    this.#file.sync();
    const payload = encodeSeal({ state: this.#state, index: this.#index }, this.info.endOffset);
    this.#writeOwn(FrameType.Seal, [payload], this.info.lastLsn, true, now);
    this.#file.sync();
    this.info.state = 'sealed';
    this.info.endCrc = this.#lastHeaderCrc;
  }

  /** Cuts a sealed segment's unused end off. Not synced: that the file is longer after a crash is harmless. */
  trim(): void {
    const { endOffset } = this.info;
    // One that grew ends there already, but for a seal in the block that it ended with; and cutting nothing off costs ext4 some milliseconds.
    if (this.#file.size() !== endOffset) this.#file.truncate(endOffset);
    this.info.fileBytes = endOffset;
  }

  close(): void {
    this.#file.close();
  }

  /** Frames of the log's own, in one write. */
  #writeOwn(
    type: number,
    payloads: readonly Uint8Array[],
    durableLsn: number,
    prefixDurable: boolean,
    now: number,
    records = 0,
  ): void {
    const { salt, lastLsn } = this.info;
    const views: Uint8Array[] = [];
    let previousCrc = this.#lastHeaderCrc;
    for (const payload of payloads) {
      // What is before the others of one write is not durable before all of it is.
      const flags = prefixDurable && views.length === 0 ? HeaderFlag.PrefixDurable : 0;
      const frame = buildFrame(type, payload, lastLsn + 1, durableLsn, salt, now, previousCrc, flags, records);
      views.push(frame.bytes);
      previousCrc = frame.headerCrc;
    }
    // Not noted before it is written: nothing to take back when there is no room for it.
    this.write(views, bytesOf(views));
    this.#lastHeaderCrc = previousCrc;
  }

  #reserveFor(state: LogState): number {
    return sealReserve(this.info.fileBytes, encodeState(state).byteLength);
  }
}

/** Between two frames that say the same: more than a disk or a filesystem loses at once. */
const APART = new Uint8Array(4096).fill(0x20);

/** A state three times over; JSON may have blanks behind it. */
function lastingPayloads(state: LogState): Uint8Array[] {
  const payload = encodeState(state);
  return [payload, Buffer.concat([payload, APART]), payload];
}

function restOfPage(end: number): number {
  return -end & (PAGE_BYTES - 1);
}

function bytesOf(views: readonly Uint8Array[]): number {
  return views.reduce((sum, { byteLength }) => sum + byteLength, 0);
}
