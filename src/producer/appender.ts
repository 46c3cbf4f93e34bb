import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';
import { WalError } from '../errors.js';
import { crc32 } from '../format/checksum.js';
import { Codec } from '../format/codec.js';
import { ENCRYPTION_BYTES, type RingKey } from '../format/encryption.js';
import { Field, FRAME_HEADER_BYTES, FrameType, writeEncoderFields } from '../format/frame.js';
import { COMPRESS_BYTES } from '../format/frame-payload.js';
import { align8 } from '../format/integers.js';
import { RECORD_OVERHEAD_BYTES, RecordKind, writeRecordPrefix } from '../format/record.js';
import { type Control, LogPhase } from '../ring/control.js';
import { DESCRIPTORS, Descriptor, FrameFlag, FrameOutcome, FrameState, type Ring, RingSlot } from '../ring/ring.js';
import { closedError, tooLarge } from './arguments.js';
import { encodeRecords, type FrameEncoding, storeEncoded } from './encode-in-ring.js';
import { Pace } from './pace.js';
import { PendingFrame, type Reject, type Resolve, type WaiterList } from './pending-frame.js';
import { Poller } from './poller.js';
import { bodyBytes, copyEntry, type Entry, PayloadBatch, type RecordBatch, writeEntry } from './records.js';
import { STAGE_BYTES, Stage } from './stage.js';
import { WaitingLine } from './waiting-line.js';

export interface AppenderOptions {
  /** Target size of a frame. */
  frameBytes: number;
  maxRecordBytes: number;
  /** Frames of this many bytes and more are encoded by `encode`. */
  encodeBytes: number;
  /** A frame of this size may be published though the tick is not over. Default: {@link PUBLISH_BYTES}. */
  publishBytes?: number;
  /** How payloads are compressed. Default: not at all. */
  codec?: number;
  /** What this ring's payloads are encrypted with; nobody else may have it. */
  key?: RingKey;
}

export interface AppenderHost {
  /**
   * Hands a frame to the encoders, which must lead to `Ready`. `how` is called for each attempt: no two of them may
   * encrypt alike. Undefined: encode in this thread.
   */
  encode?: (frame: number, how: () => FrameEncoding | undefined) => void;
  /** Something is in flight, or nothing is any more: whether the thread must stay alive. */
  hold(busy: boolean): void;
  /** Nothing is in flight any more. Called before `hold(false)`, and may append. */
  idle?: () => void;
  /** Appends began or ceased to wait for room in the ring. */
  backpressure(waiting: boolean): void;
}

/**
 * A frame of this size is published though the tick is not over, so that the actor starts while the producer is still
 * appending, if {@link Pace} finds that it pays.
 */
export const PUBLISH_BYTES = 56 * 1024;

/**
 * And at least this part of all that is in flight: with more groups under way than this, there are more syncs than it takes to keep both
 * threads at work, and each costs the processors of whoever else wants them. 10,000 of 100 bytes in flight: see docs/BENCHMARKS.md.
 */
const PUBLISH_SHARE = 1 / 4;

/** If it does not pay yet, it may with so much more in the frame. */
const CUT_AGAIN_BYTES = 4 * 1024;

/**
 * Frames of this size and more are checksummed by the thread that made them while the actor has no time to spare. Otherwise
 * it does that: a thread that makes many small records is the busy one then. 1,000 records of 100 bytes in flight lose a
 * quarter when the actor always does, 10,000 a tenth when it never does.
 */
const OWN_CRC_BYTES = 4 * 1024;

/** Not even for an empty record. */
const NO_ROOM = -1;

interface Waiting {
  /** One record, or the records of an atomic batch. Undefined once the append was aborted. */
  records: Entry | RecordBatch | undefined;
  level: number;
  resolve: Resolve;
  reject: Reject;
}

/**
 * The append side of one thread: copies records into the thread's own ring, groups them in frames, and resolves their
 * promises as the actor's counters move. The same in every thread.
 */
export class Appender {
  readonly ring: Ring;
  readonly latency: readonly RecordableHistogram[] = [createHistogram(), createHistogram(), createHistogram()];
  readonly #control: Control;
  readonly #options: AppenderOptions;
  readonly #host: AppenderHost;
  readonly #pending: PendingFrame[];
  readonly #stage: Stage;
  readonly #line = new WaitingLine<Waiting>();
  readonly #poller: Poller;
  /** The most a batch may take: an empty ring holds it in one piece, and what the pool makes of it. */
  readonly #maxFrameBytes: number;
  readonly #codec: number;
  readonly #publishBytes: number;
  #key: RingKey | undefined;
  /** Frames that were encrypted with `#key`. This thread alone counts, so that no number is given twice. */
  #encrypted = 0;
  /** What encryption adds to a frame. */
  readonly #overhead: number;
  /** Whether the pool encodes large frames: it needs room for what it makes of one, which keeps its records meanwhile. */
  readonly #poolEncodes: boolean;

  // The frame that is open, if `#open`: its place in the ring, and how far it may be filled.
  #open = false;
  #frameStart = 0;
  #limit = 0;
  /** From here on it may be published though the tick is not over. */
  #publishAt = 0;
  /** How far the stage may be filled by a record that needs no new frame and need not wait in line. */
  #room = NO_ROOM;
  /** Who waits for the open frame, by level. */
  #waiters: readonly WaiterList[];
  #records = 0;
  #flags = 0;
  #type: number = FrameType.Records;

  // Bytes, counted since the ring was made: `#head` given out, `#tail` written to the file.
  #head = 0;
  #tail = 0;
  // Frames, counted since the ring was made.
  #published = 0;
  #sequenced = 0;
  #written = 0;
  #synced = 0;
  #retired = 0;
  /** Promises not settled yet, those of the open frame included. */
  #unsettled = 0;
  /** Of the unsettled, those of the open frame. */
  #openWaiters = 0;
  readonly #pace = new Pace();
  /** What one of those who waited for the last frame had in it. */
  #waiterBytes = 0;
  /** What was in flight when this thread had appended last. */
  #inFlightBytes = 0;
  /** Since when this thread is at it, in this turn of the event loop; Infinity when it is not. */
  #tickStartedAt = Number.POSITIVE_INFINITY;
  #tickRecords = 0;
  #flushScheduled = false;
  #failed = false;
  readonly #whenSettled: (() => void)[] = [];

  constructor(ring: Ring, control: Control, options: AppenderOptions, host: AppenderHost) {
    this.ring = ring;
    this.#control = control;
    this.#options = options;
    this.#host = host;
    const { codec = Codec.None, publishBytes = PUBLISH_BYTES, key } = options;
    this.#codec = codec;
    this.#publishBytes = publishBytes;
    this.#key = key;
    this.#overhead = key === undefined ? 0 : ENCRYPTION_BYTES;
    this.#poolEncodes = host.encode !== undefined && (key !== undefined || codec !== Codec.None);
    this.#maxFrameBytes = Math.floor(ring.dataBytes / 2);
    this.#pending = Array.from({ length: DESCRIPTORS }, () => new PendingFrame());
    this.#stage = new Stage(ring.data);
    this.#waiters = this.#pending[0].waiters;
    this.#poller = new Poller(ring, control, () => this.#progress());
  }

  /** Appends waiting for room in the ring. */
  get queued(): number {
    return this.#line.length;
  }

  get inFlight(): number {
    return this.#unsettled + this.#line.length;
  }

  get ringUse(): number {
    return this.#head - this.#tail + (this.#open ? this.#stage.cursor - this.#frameStart : 0);
  }

  /** Appends one record. Everything was checked but its size. */
  append(entry: Entry, level: number, resolve: Resolve, reject: Reject): Waiting | undefined {
    const bytes = bodyBytes(entry);
    if (bytes > this.#options.maxRecordBytes) {
      reject(tooLarge(bytes, this.#options.maxRecordBytes));
      return undefined;
    }
    if (this.#line.length === 0 && this.#tryAppend(entry, bytes, level, resolve, reject)) return undefined;
    return this.#waitInLine(copyEntry(entry), level, resolve, reject);
  }

  /** As `append`, of which nobody wants to take it out of the line again. */
  appendOne(entry: Entry, level: number): Promise<number> {
    const bytes = bodyBytes(entry);
    if (bytes > this.#options.maxRecordBytes) return Promise.reject(tooLarge(bytes, this.#options.maxRecordBytes));
    if (this.#line.length === 0 && this.#ensureFrame(bytes + RECORD_OVERHEAD_BYTES)) {
      const appended = this.#expect(level).wait(this.#records);
      this.#write(entry, bytes);
      return appended;
    }
    return new Promise((resolve, reject) => this.#waitInLine(copyEntry(entry), level, resolve, reject));
  }

  /** As `appendOne` of an opaque record. */
  appendBytes(payload: Uint8Array, level: number): Promise<number> {
    const bytes = payload.length;
    const stage = this.#stage;
    if (stage.used + bytes > this.#room || bytes > this.#options.maxRecordBytes) {
      return this.appendOne({ kind: RecordKind.Data, key: undefined, value: payload }, level);
    }
    const appended = this.#expect(level).wait(this.#records);
    const at = writeRecordPrefix(stage.bytes, stage.used, RecordKind.Data, bytes);
    stage.bytes.set(payload, at);
    stage.used = at + bytes;
    this.#records++;
    this.#afterWrite();
    return appended;
  }

  /** Appends records that recovery takes whole or not at all: all in one frame. `resolve` gets the LSN of the first. */
  appendGroup(batch: RecordBatch, level: number, resolve: Resolve, reject: Reject): Waiting | undefined {
    const { maxRecordBytes } = this.#options;
    const limit = this.mostGroupBytes;
    if (batch.largest > maxRecordBytes) reject(tooLarge(batch.largest, maxRecordBytes));
    else if (batch.bytes > limit) reject(tooLarge(batch.bytes, limit, 'An atomic batch'));
    else if (this.#line.length > 0 || !this.#tryAppendGroup(batch, level, resolve, reject)) {
      return this.#waitInLine(batch.copied(), level, resolve, reject);
    }
    return undefined;
  }

  /** The most that a group may take. */
  get mostGroupBytes(): number {
    return this.#maxFrameBytes - FRAME_HEADER_BYTES - 8 - this.#overhead;
  }

  /** Takes an append that waits in line out of it. Returns false when it is in the ring already. */
  abandon(waiting: Waiting | undefined): boolean {
    if (waiting?.records === undefined) return false;
    waiting.records = undefined;
    return true;
  }

  /** Resolves once everything appended before this call is in the ring and published. */
  flushed(): Promise<void> {
    if (this.#line.length === 0) {
      this.publish();
      return Promise.resolve();
    }
    // An empty batch at the end of the line: it passes when everything before it has.
    return new Promise((resolve, reject) => {
      this.#waitInLine(new PayloadBatch([]), 0, () => resolve(), reject);
    });
  }

  /** Resolves once nothing of this thread is in flight any more, however that ended. */
  settled(): Promise<void> {
    this.publish();
    this.#progress();
    if (!this.#busy) return Promise.resolve();
    return new Promise((resolve) => {
      this.#whenSettled.push(resolve);
      this.#poller.start();
    });
  }

  /** The actor moved a counter, or the log failed. Called when a message came; harmless at any time. */
  wake(): void {
    this.#poller.woken();
  }

  /** Frames from here on are encrypted with this; the log knows its key already. */
  setKey(key: RingKey): void {
    this.#key = key;
    this.#encrypted = 0;
  }

  /** Publishes the open frame, so that the actor may take it. */
  publish(): void {
    if (!this.#open || this.#records === 0) return;
    const { ring } = this;
    const start = this.#frameStart;
    const payloadAt = start + FRAME_HEADER_BYTES;
    const storedBytes = this.#stage.cursor - payloadAt;
    this.#stage.finish();
    const bytes = this.#stage.cursor - start;
    writeEncoderFields(ring.view, start, this.#type, storedBytes, storedBytes, this.#records);
    this.#waiterBytes = storedBytes / Math.max(1, this.#openWaiters);
    const frame = this.#published++;
    const at = ring.descriptor(frame);
    ring.descriptors[at + Descriptor.offset] = start;
    ring.descriptors[at + Descriptor.raw] = start;
    ring.descriptors[at + Descriptor.bytes] = bytes;
    const pool = bytes >= this.#options.encodeBytes && this.#host.encode !== undefined;
    const encodes = this.#encodes(storedBytes);
    const encoded = !pool && encodes && this.#encodeHere(frame);
    const here = !pool && !encoded && bytes >= OWN_CRC_BYTES && this.#control.actorIsBusy;
    if (here) {
      const payload = ring.data.subarray(payloadAt, payloadAt + storedBytes);
      ring.view.setUint32(start + Field.payloadCrc, crc32(payload), true);
    }
    ring.descriptors[at + Descriptor.flags] = pool || here || encoded ? this.#flags : this.#flags | FrameFlag.NeedsCrc;
    const most = align8(FRAME_HEADER_BYTES + storedBytes + this.#overhead);
    this.#head += pool && encodes ? bytes + most : most;
    const pending = this.#pendingOf(frame);
    pending.end = this.#head;
    pending.publishedAt = performance.now();
    this.#open = false;
    this.#room = NO_ROOM;
    this.#openWaiters = 0;
    this.#host.hold(true);
    if (pool) {
      ring.setState(frame, FrameState.Encoding);
      this.#host.encode!(frame, this.#how);
    } else {
      ring.setState(frame, FrameState.Ready);
      this.#control.ring();
    }
    this.#poller.start();
  }

  /** Whether a payload of so many bytes is compressed or encrypted. Neither, in a plain log. */
  #encodes(bytes: number): boolean {
    return this.#key !== undefined || (this.#codec !== Codec.None && bytes >= COMPRESS_BYTES);
  }

  readonly #how = (): FrameEncoding | undefined => {
    if (this.#key === undefined) return this.#codec === Codec.None ? undefined : { codec: this.#codec, key: undefined };
    return { codec: this.#codec, key: { ...this.#key, counter: this.#encrypted++ } };
  };

  /** In this thread: nobody else sees the frame before it is published. Returns false when it is best left as it is. */
  #encodeHere(frame: number): boolean {
    const encoded = encodeRecords(this.ring, frame, this.#how()!);
    if (encoded !== undefined) storeEncoded(this.ring, frame, this.#frameStart, encoded);
    return encoded !== undefined;
  }

  /** Rejects whatever is not settled, because the log failed or was closed under it. */
  #failAll(error: WalError): void {
    this.#failed = true;
    this.#open = false;
    this.#room = NO_ROOM;
    this.#openWaiters = 0;
    for (let frame = this.#retired; frame <= this.#published; frame++) {
      this.#unsettled -= this.#pendingOf(frame).rejectAll(error);
    }
    for (const waiting of this.#line.drain()) waiting.reject(error);
    this.#host.hold(false);
  }

  #pendingOf(frame: number): PendingFrame {
    return this.#pending[frame % DESCRIPTORS];
  }

  #waitInLine(records: Entry | RecordBatch, level: number, resolve: Resolve, reject: Reject): Waiting {
    const waiting: Waiting = { records, level, resolve, reject };
    this.#line.push(waiting);
    this.#room = NO_ROOM;
    if (this.#line.length === 1) {
      this.#host.hold(true);
      this.#host.backpressure(true);
      Atomics.store(this.ring.head, RingSlot.wantsSpace, 1);
      this.publish();
      this.#poller.start();
    }
    return waiting;
  }

  #tryAppend(entry: Entry, body: number, level: number, resolve: Resolve, reject: Reject): boolean {
    if (!this.#ensureFrame(body + RECORD_OVERHEAD_BYTES)) return false;
    this.#expect(level).add(resolve, reject, this.#records);
    this.#write(entry, body);
    return true;
  }

  #write(entry: Entry, body: number): void {
    writeEntry(this.#stage, entry, body);
    this.#records++;
    this.#makeRoom();
    this.#afterWrite();
  }

  #tryAppendGroup(batch: RecordBatch, level: number, resolve: Resolve, reject: Reject): boolean {
    if (batch.count === 0) {
      this.publish();
      resolve(0);
      return true;
    }
    if (batch.frameType !== undefined) this.publish();
    if (!this.#ensureFrame(batch.bytes)) return false;
    this.#expect(level).add(resolve, reject, this.#records);
    batch.write(this.#stage);
    this.#records += batch.count;
    if (batch.frameType !== undefined) {
      this.#type = batch.frameType;
      // Nothing else goes into it.
      this.#limit = this.#stage.cursor;
    }
    this.#makeRoom();
    this.#afterWrite();
    return true;
  }

  /** One more waits for the open frame; the list is for telling it. */
  #expect(level: number): WaiterList {
    this.#flags |= FrameFlag.WantsMemory << level;
    this.#unsettled++;
    this.#openWaiters++;
    return this.#waiters[level];
  }

  #makeRoom(): void {
    if (this.#line.length > 0) return;
    const { used, cursor } = this.#stage;
    this.#room = Math.min(STAGE_BYTES, this.#limit - cursor + used) - RECORD_OVERHEAD_BYTES;
  }

  #afterWrite(): void {
    if (!this.#flushScheduled) {
      this.#flushScheduled = true;
      // Answering counts too, if this is what it led to.
      this.#tickStartedAt = Math.min(this.#tickStartedAt, performance.now());
      // After all microtasks of this turn: everything that is appended together goes out together.
      process.nextTick(this.#flush);
    }
    this.#tickRecords++;
    if (this.#stage.cursor < this.#publishAt) return;
    if (this.#cuts()) this.publish();
    else this.#publishAt = this.#stage.cursor + CUT_AGAIN_BYTES;
  }

  readonly #flush = (): void => {
    this.#flushScheduled = false;
    if (this.#tickRecords > 0) this.#pace.observe(performance.now() - this.#tickStartedAt, this.#tickRecords);
    this.#tickStartedAt = Number.POSITIVE_INFINITY;
    this.#tickRecords = 0;
    this.#inFlightBytes = this.#unsettled * this.#waiterBytes;
    if (!this.#mayHold()) this.publish();
  };

  #cuts(): boolean {
    return this.#pace.cuts(this.#unsettled, this.#control.syncMs);
  }

  /**
   * Whether the open frame had better wait until the group in flight is durable, and go out with what is appended then.
   * It would wait for that group's sync in any case, in the ring.
   */
  #mayHold(): boolean {
    if (this.#flags !== FrameFlag.WantsDisk || this.#unsettled === this.#openWaiters) return false;
    return this.#line.length === 0 && !this.#cuts();
  }

  /** Nothing is in flight any more that the open frame was held for. */
  #letGo(): void {
    if (!this.#open || this.#flushScheduled || this.#unsettled > this.#openWaiters) return;
    this.#flushScheduled = true;
    // Behind whatever those who have just been answered append now, which runs in microtasks that are queued already.
    queueMicrotask(() => process.nextTick(this.#flush));
  }

  /** An open frame with room for `bytes` more of records. */
  #ensureFrame(bytes: number): boolean {
    if (this.#open) {
      if (this.#stage.cursor + bytes <= this.#limit) return true;
      this.publish();
    }
    const least = FRAME_HEADER_BYTES + bytes + this.#overhead + 8;
    if (this.#beginFrame(least)) return true;
    // Perhaps the actor has been busy since we looked last.
    this.#collect();
    return this.#beginFrame(least);
  }

  /** `least`: what it has to hold at once. */
  #beginFrame(least: number): boolean {
    const most = Math.max(least, this.#options.frameBytes);
    const copies = this.#poolEncodes && most >= this.#options.encodeBytes ? 2 : 1;
    const bytes = copies * least;
    if (this.#published - this.#retired >= DESCRIPTORS) return false;
    const { dataBytes } = this.ring;
    let start = this.#head % dataBytes;
    if (start + bytes > dataBytes) {
      // It must lie in one piece: leave the rest of this round unused. In an empty ring that costs nothing.
      if (this.#head === this.#tail) this.#tail += dataBytes - start;
      else if (this.#head - this.#tail + (dataBytes - start) + bytes > dataBytes) return false;
      this.#head += dataBytes - start;
      start = 0;
    }
    const free = dataBytes - (this.#head - this.#tail);
    if (free < bytes) return false;
    const room = Math.min(free, dataBytes - start, copies * most);
    this.#open = true;
    this.#frameStart = start;
    this.#stage.begin(start + FRAME_HEADER_BYTES);
    this.#publishAt = start + Math.max(this.#publishBytes, this.#inFlightBytes * PUBLISH_SHARE);
    this.#limit = start + Math.floor(room / copies) - this.#overhead - 8;
    this.#records = 0;
    this.#flags = 0;
    this.#type = FrameType.Records;
    const book = this.#pendingOf(this.#published);
    book.startedAt = performance.now();
    this.#waiters = book.waiters;
    return true;
  }

  /** Settles what the actor's counters allow, admits who waits in line. Returns whether anything is still in flight. */
  #progress(): boolean {
    if (!this.#flushScheduled) this.#tickStartedAt = Number.POSITIVE_INFINITY;
    this.#collect();
    const { phase } = this.#control;
    if (phase !== LogPhase.Running && !this.#failed) {
      // What the counters say was done before the end is done: look once more, behind the phase.
      this.#collect();
      this.#failAll(phase === LogPhase.Failed ? this.#indeterminate() : closedError());
    }
    this.#admit();
    this.#letGo();
    if (!this.#busy) this.#host.idle?.();
    const busy = this.#busy;
    if (!busy) {
      this.#host.hold(false);
      for (const resolve of this.#whenSettled.splice(0)) resolve();
    }
    return busy;
  }

  get #busy(): boolean {
    if (this.#failed) return false;
    return this.#published > this.#written || this.#unsettled > 0 || this.#line.length > 0;
  }

  #collect(): void {
    const { ring } = this;
    // The actor moves them in the order sequenced, written, synced, perhaps while we look. Read in the reverse order, no
    // frame is seen as synced or written that is not seen as sequenced too: its LSN is known before anybody is told it.
    const synced = this.#synced + ring.ahead(RingSlot.synced, this.#synced);
    const written = this.#written + ring.ahead(RingSlot.written, this.#written);
    const sequenced = this.#sequenced + ring.ahead(RingSlot.sequenced, this.#sequenced);
    while (this.#sequenced < sequenced) this.#onSequenced(this.#sequenced++);
    while (this.#written < written) {
      const pending = this.#pendingOf(this.#written++);
      this.#tail = pending.end;
      this.#settle(pending, 1);
    }
    while (this.#synced < synced) {
      // Frames that nobody wanted on disk were retired when they were written; their book may be in use again.
      if (this.#synced >= this.#retired) this.#settle(this.#pendingOf(this.#synced), 2);
      this.#synced++;
    }
    while (this.#retired < this.#written && this.#pendingOf(this.#retired).unsettled === 0) this.#retired++;
  }

  #onSequenced(frame: number): void {
    const at = this.ring.descriptor(frame);
    const pending = this.#pendingOf(frame);
    if (this.ring.descriptors[at + Descriptor.outcome] === FrameOutcome.NoSpace) {
      this.#unsettled -= pending.rejectAll(noSpace());
      return;
    }
    pending.firstLsn = this.ring.lsn(at);
    this.#settle(pending, 0);
  }

  #settle(pending: PendingFrame, level: number): void {
    const waiters = pending.waiters[level];
    if (waiters.count === 0) return;
    const now = performance.now();
    this.latency[level].record(Math.max(1, Math.round((now - pending.startedAt) * 1e6)));
    this.#poller.observe(now - pending.publishedAt);
    if (!this.#flushScheduled) this.#tickStartedAt = Math.min(this.#tickStartedAt, now);
    this.#unsettled -= waiters.resolveAll(pending.firstLsn);
  }

  #admit(): void {
    if (this.#line.length === 0) return;
    for (let waiting = this.#line.peek(); waiting !== undefined; waiting = this.#line.peek()) {
      if (waiting.records !== undefined && !this.#enter(waiting)) return;
      // In the ring now: too late to be taken out of the line.
      waiting.records = undefined;
      this.#line.shift();
    }
    Atomics.store(this.ring.head, RingSlot.wantsSpace, 0);
    this.#host.backpressure(false);
  }

  #enter({ records, level, resolve, reject }: Waiting): boolean {
    if ('count' in records!) return this.#tryAppendGroup(records, level, resolve, reject);
    return this.#tryAppend(records!, bodyBytes(records!), level, resolve, reject);
  }

  #indeterminate(): WalError {
    return new WalError(
      'ERR_WAL_INDETERMINATE',
      `The log failed while this record was in flight: it may or may not survive. Reopen the log to find out. ` +
        `The failure: ${this.#control.failure()}`,
    );
  }
}

export type { Waiting };

function noSpace(): WalError {
  return new WalError(
    'ERR_WAL_NO_SPACE',
    'There is no room on the disk for a new segment. Nothing of this append was written; free some space and append again.',
  );
}
