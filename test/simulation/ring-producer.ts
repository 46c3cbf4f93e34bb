import { crc32 } from '../../src/format/checksum.js';
import { ENCRYPTION_BYTES } from '../../src/format/encryption.js';
import { Field, FRAME_HEADER_BYTES, FrameType, writeEncoderFields } from '../../src/format/frame.js';
import { align8 } from '../../src/format/integers.js';
import { readTransactionPrefix, type TransactionPrefix, TransactionRole } from '../../src/format/transaction.js';
import type { FrameEncoding } from '../../src/producer/encode-in-ring.js';
import type { RecordBatch } from '../../src/producer/records.js';
import { Stage } from '../../src/producer/stage.js';
import { DESCRIPTORS, Descriptor, FrameFlag, FrameOutcome, FrameState, Ring, RingSlot } from '../../src/ring/ring.js';
import { encodeFrame } from './encoding.js';
import { encodedBytes, writeRecord } from './records.js';

/** A frame in flight: the numbers of its records, and what its producer waits for. */
export interface SentFrame {
  producer: number;
  ids: number[];
  /** Where each append of it begins, as indices into `ids`: what lies between two of them is atomic. */
  appends: number[];
  level: number;
  /** Ring offset behind the frame. */
  end: number;
  /** 0 until it was sequenced. */
  firstLsn: number;
  /** Its records are operations of this transaction, which it commits, or which something later decides about. */
  transaction?: { id: string; whole: boolean };
}

/** What is to go into a frame. */
interface Content {
  type: number;
  ids: number[];
  appends: number[];
  /** The most that it takes. */
  most: number;
  /** Writes it from `at` on and returns the offset behind it. */
  write(at: number): number;
}

/** How a frame goes out. */
export interface Posting {
  level: number;
  /** Checksummed by its producer, and not by the actor. */
  checksum: boolean;
  /** Undefined: as it is. */
  encoding?: FrameEncoding | undefined;
}

export interface Progress {
  sequenced(frame: SentFrame): void;
  rejected(frame: SentFrame): void;
  written(frame: SentFrame): void;
  synced(frame: SentFrame): void;
}

/**
 * The append side of one thread, without promises or an event loop: publishes frames as the Appender does, and takes
 * in the actor's counters when it is told to.
 */
export class RingProducer {
  readonly id: number;
  readonly ring: Ring;
  #frames: SentFrame[] = [];
  #stageOf: Stage | undefined;
  /** Of the transaction frame that was written last. */
  #prefix!: TransactionPrefix;
  #head = 0;
  #tail = 0;
  #published = 0;
  #sequenced = 0;
  #written = 0;
  #synced = 0;

  constructor(id: number, ringBytes: number) {
    this.id = id;
    this.ring = Ring.allocate(ringBytes);
  }

  /** As new, for the next run of the log. */
  reset(): void {
    this.ring.head.fill(0);
    this.ring.descriptors.fill(0);
    this.#frames = [];
    this.#head = this.#tail = this.#published = this.#sequenced = this.#written = this.#synced = 0;
  }

  get inFlight(): number {
    return this.#published - this.#written;
  }

  /** Publishes one frame of these records; undefined when the ring has no room for it now. */
  publish(
    ids: number[],
    appends: number[],
    level: number,
    checksum: boolean,
    encoding?: FrameEncoding,
  ): SentFrame | undefined {
    const { data } = this.ring;
    const most = ids.reduce((sum, id) => sum + encodedBytes(id), 0);
    const write = (at: number) => ids.reduce((cursor, id) => writeRecord(data, cursor, id), at);
    return this.#publish({ type: FrameType.Records, ids, appends, most, write }, { level, checksum, encoding });
  }

  /** The same of operations of a transaction; `idsOf`: which records a transaction's next so many operations are. */
  publishBatch(
    batch: RecordBatch,
    posting: Posting,
    idsOf: (id: string, count: number) => number[],
  ): SentFrame | undefined {
    const ids: number[] = [];
    const write = (at: number) => this.#stage(batch, at);
    const content = { type: batch.frameType!, ids, appends: [0], most: batch.bytes, write };
    const frame = this.#publish(content, posting, batch.count);
    if (frame === undefined) return undefined;
    const { id, role } = this.#prefix;
    ids.push(...idsOf(id, batch.count));
    frame.transaction = { id, whole: role === TransactionRole.Whole };
    return frame;
  }

  #stage(batch: RecordBatch, at: number): number {
    this.#stageOf ??= new Stage(this.ring.data);
    this.#stageOf.begin(at);
    batch.write(this.#stageOf);
    const end = this.#stageOf.cursor;
    this.#stageOf.finish();
    this.#prefix = readTransactionPrefix(this.ring.data, at, end);
    return end;
  }

  #publish(content: Content, posting: Posting, records = content.ids.length): SentFrame | undefined {
    const { ring } = this;
    const start = this.#reserve(FRAME_HEADER_BYTES + content.most + ENCRYPTION_BYTES + 8);
    if (start === undefined) return undefined;
    const end = content.write(start + FRAME_HEADER_BYTES);
    const rawBytes = end - start - FRAME_HEADER_BYTES;
    writeEncoderFields(ring.view, start, content.type, rawBytes, rawBytes, records);
    let flags = FrameFlag.WantsMemory << posting.level;
    const encoded = encodeFrame(ring, start, posting.encoding);
    const storedBytes = encoded ?? rawBytes;
    if (encoded === undefined) {
      const payload = ring.data.subarray(start + FRAME_HEADER_BYTES, end);
      if (posting.checksum) ring.view.setUint32(start + Field.payloadCrc, crc32(payload), true);
      else flags |= FrameFlag.NeedsCrc;
    }
    const bytes = align8(FRAME_HEADER_BYTES + storedBytes);
    ring.data.fill(0, start + FRAME_HEADER_BYTES + storedBytes, start + bytes);
    const at = ring.descriptor(this.#published);
    ring.descriptors[at + Descriptor.offset] = start;
    ring.descriptors[at + Descriptor.bytes] = bytes;
    ring.descriptors[at + Descriptor.flags] = flags;
    this.#head += bytes;
    const { ids, appends } = content;
    const frame: SentFrame = { producer: this.id, ids, appends, level: posting.level, end: this.#head, firstLsn: 0 };
    this.#frames[this.#published % DESCRIPTORS] = frame;
    ring.setState(this.#published++, FrameState.Ready);
    return frame;
  }

  /** Takes in what the actor's counters say. */
  collect(progress: Progress): void {
    const { ring } = this;
    for (let n = ring.ahead(RingSlot.sequenced, this.#sequenced); n > 0; n--) {
      const frame = this.#frame(this.#sequenced);
      const at = ring.descriptor(this.#sequenced++);
      if (ring.descriptors[at + Descriptor.outcome] === FrameOutcome.NoSpace) {
        progress.rejected(frame);
        continue;
      }
      frame.firstLsn = ring.lsn(at);
      progress.sequenced(frame);
    }
    for (let n = ring.ahead(RingSlot.written, this.#written); n > 0; n--) {
      const frame = this.#frame(this.#written++);
      this.#tail = frame.end;
      if (frame.firstLsn > 0) progress.written(frame);
    }
    for (let n = ring.ahead(RingSlot.synced, this.#synced); n > 0; n--) {
      const frame = this.#frame(this.#synced++);
      if (frame.firstLsn > 0) progress.synced(frame);
    }
    if (this.#sequenced > this.#published || this.#written > this.#sequenced || this.#synced > this.#written) {
      throw new Error(
        `Ring ${this.id}: counters ${this.#sequenced}, ${this.#written}, ${this.#synced} are out of step.`,
      );
    }
  }

  /**
   * After a crash: frames that had an LSN, and perhaps were written, when nobody had been told of it yet. They may be
   * there afterwards, at that LSN.
   */
  collectInFlight(progress: Pick<Progress, 'sequenced'>): void {
    const { ring } = this;
    for (let n = this.#sequenced; n < this.#published && ring.state(n) === FrameState.Taken; n++) {
      const at = ring.descriptor(n);
      if (ring.descriptors[at + Descriptor.outcome] !== FrameOutcome.Written) continue;
      const frame = this.#frame(n);
      frame.firstLsn = ring.lsn(at);
      progress.sequenced(frame);
    }
  }

  #frame(number: number): SentFrame {
    return this.#frames[number % DESCRIPTORS];
  }

  #reserve(bytes: number): number | undefined {
    const { dataBytes } = this.ring;
    if (this.#published - this.#synced >= DESCRIPTORS) return undefined;
    const start = this.#head % dataBytes;
    const skip = start + bytes > dataBytes ? dataBytes - start : 0;
    if (this.#head === this.#tail) this.#tail += skip;
    if (this.#head + skip - this.#tail + bytes > dataBytes) return undefined;
    this.#head += skip;
    return this.#head % dataBytes;
  }
}

const PRODUCERS = 3;
const RING_BYTES = 32 * 1024;
/** Rings are shared memory, which is slow to get: runs that follow one another use the same. */
const idle: RingProducer[][] = [];

export function borrowProducers(): RingProducer[] {
  const producers = idle.pop();
  // What a run left in flight is no other run's business.
  for (const producer of producers ?? []) producer.reset();
  return producers ?? Array.from({ length: PRODUCERS }, (_, id) => new RingProducer(id, RING_BYTES));
}

export function returnProducers(producers: RingProducer[]): void {
  idle.push(producers);
}
