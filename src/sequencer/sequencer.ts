import { toPlainError, WalError } from '../errors.js';
import { crc32 } from '../format/checksum.js';
import { Field, FRAME_HEADER_BYTES, type Salt, writeSequencerFields } from '../format/frame.js';
import { Level } from '../format/levels.js';
import type { LogState } from '../format/state.js';
import type { LogEnd, Recovered } from '../recovery/recover.js';
import { type Control, Counter, LogPhase, Slot } from '../ring/control.js';
import { Descriptor, FrameFlag, FrameOutcome, FrameState, RingPhase, RingSlot } from '../ring/ring.js';
import { isNoSpace, prepareSpare, type Spare } from '../segments/prepare.js';
import type { SegmentInfo } from '../segments/segment-info.js';
import { SegmentWriter, segmentBytesFor } from '../segments/segment-writer.js';
import type { Storage } from '../storage/storage.js';
import { Group } from './group.js';
import type { Member } from './member.js';

/** What the sequencer needs of the world around it; the thread provides it, and so can a test. */
export interface SequencerHost {
  /** Milliseconds since the epoch. */
  now(): number;
  randomBytes(count: number): Uint8Array;
  /** A watermark moved that the opening thread wants to hear of. */
  wakeOpener(): void;
  /** The current segment fills up and no spare is at hand. */
  wantSpare(): void;
  /** A ring's frames are all taken and its producer is gone: nobody needs it any more. */
  forgotten(member: Member): void;
  /** A segment began, and the one before it, if any, was sealed. */
  rotated(current: SegmentInfo, sealed: SegmentInfo | undefined): void;
}

export interface SequencerOptions {
  segmentBytes: number;
  /** 0: never sync on time alone. */
  flushIntervalMs: number;
}

/** The most that one write takes together. Bounds how long the first record of a group waits for the last. */
const GROUP_BYTES = 4 * 1024 * 1024;
/** Size of a segment that had to be made while records were waiting for it. */
const STARVED_SEGMENT_BYTES = 4 * 1024 * 1024;

/**
 * The I/O actor's brain. Takes ready frames from the rings, gives them LSNs, writes them as one group, syncs when
 * somebody asked for it, and moves the watermarks. Synchronous and without threads: it runs in the actor's thread over
 * a real directory, and in tests over a simulated disk.
 *
 * The order inside {@link step} carries the guarantees:
 *   1. a frame gets its LSN and header, then `sequenced` moves (memory);
 *   2. the group is written whole, then `written` moves (os) and the producers get their ring space back;
 *   3. the file is synced, then `synced` moves (disk).
 * Whatever throws in between poisons the log: nothing after it is acknowledged, and no write or sync is tried again.
 */
export class Sequencer {
  readonly #storage: Storage;
  readonly #control: Control;
  readonly #host: SequencerHost;
  readonly #options: SequencerOptions;
  readonly #members: Member[] = [];
  readonly #group = new Group();
  readonly #spares: Spare[] = [];
  readonly #logId: Uint8Array;
  /** Segments before the current one. */
  readonly #sealed: SegmentInfo[];
  #current: SegmentWriter | undefined;
  #state: LogState;
  #end: LogEnd;
  #nextLsn: number;
  #nextSegmentId: number;
  #durableLsn: number;
  readonly #recoveredLsn: number;
  #recordBytes = 0;
  #turn = 0;
  #spareAsked = false;
  /** When the oldest unsynced write was made; undefined when everything is synced. */
  #dirtySince: number | undefined;

  constructor(
    storage: Storage,
    control: Control,
    host: SequencerHost,
    options: SequencerOptions,
    recovered: Recovered,
  ) {
    this.#storage = storage;
    this.#control = control;
    this.#host = host;
    this.#options = options;
    this.#logId = recovered.logId ?? host.randomBytes(16);
    this.#sealed = [...recovered.segments];
    this.#state = recovered.state;
    this.#end = recovered.end;
    this.#nextLsn = recovered.end.lastLsn + 1;
    this.#nextSegmentId = recovered.nextSegmentId;
    this.#durableLsn = recovered.end.lastLsn;
    this.#recoveredLsn = recovered.end.lastLsn;
    const now = host.now();
    for (const level of [Level.Memory, Level.Os, Level.Disk]) control.publishCommit(level, this.#durableLsn, 0, now);
    this.#publishSegments();
  }

  get logId(): Uint8Array {
    return this.#logId;
  }

  get state(): LogState {
    return this.#state;
  }

  get failed(): boolean {
    return this.#control.phase !== LogPhase.Running;
  }

  addMember(member: Member): void {
    this.#members.push(member);
    // Whatever happened before it came: its thread finds out from the control block.
    if (this.failed) member.wake();
  }

  /** The producer's thread is gone: what it published is still taken, an unfinished frame never was. */
  dropMember(id: number): void {
    const member = this.#members.find((candidate) => candidate.id === id);
    if (member !== undefined) Atomics.store(member.ring.head, RingSlot.phase, RingPhase.Closing);
  }

  /** The answer to `wantSpare`, which may be that none could be made. */
  addSpare(spare: Spare | undefined): void {
    this.#spareAsked = false;
    if (spare !== undefined) this.#spares.push(spare);
  }

  /** Milliseconds until there is something to do without being asked; undefined for never. */
  timeToFlush(): number | undefined {
    if (this.#dirtySince === undefined || this.#options.flushIntervalMs === 0 || this.failed) return undefined;
    return Math.max(0, this.#dirtySince + this.#options.flushIntervalMs - this.#host.now());
  }

  /** Takes what is ready and brings it as far as somebody asked for. Returns whether there was anything to do. */
  step(): boolean {
    if (this.failed) return false;
    try {
      return this.#step();
    } catch (error) {
      this.#poison(error);
      return true;
    }
  }

  #step(): boolean {
    if (!this.#gather()) {
      if (this.timeToFlush() !== 0) return false;
      this.#sync();
      return true;
    }
    const group = this.#group;
    if (group.frames > 0) {
      this.#commitMemory();
      this.#current!.write(group.views, group.bytes);
      this.#commitOs();
      this.#control.add(Counter.groups, 1);
      this.#askForSpare();
    }
    const wantsSync = (group.flags & FrameFlag.WantsDisk) !== 0;
    if (group.frames > 0) this.#dirtySince ??= this.#host.now();
    group.clear();
    // The interval holds under unbroken load too, when there is never a step with nothing to write.
    if (wantsSync || this.timeToFlush() === 0) this.#sync();
    return true;
  }

  /** Everything in the rings by now, on disk when this returns. */
  sync(): void {
    this.#guard(() => {
      this.#drain();
      if (this.#dirtySince !== undefined) this.#sync();
    });
  }

  /** Ends the current segment and begins the next. A segment without records stays. */
  rotate(): void {
    this.#guard(() => {
      this.#drain();
      const current = this.#current;
      if (current === undefined || current.info.lastLsn < current.info.firstLsn) return;
      const { segmentBytes } = this.#options;
      const spare = this.#takeSpare(segmentBytesFor(0, this.#state), segmentBytes);
      this.#beginSegment(spare);
    });
  }

  /** Writes a changed state and makes it durable. */
  updateState(change: (state: LogState) => LogState): LogState {
    return this.#guard(() => {
      this.#drain();
      const state = change(this.#state);
      if (this.#current !== undefined && !this.#current.hasRoomForState(state)) {
        this.#beginSegment(this.#takeSpare(segmentBytesFor(0, state), this.#options.segmentBytes));
      }
      if (this.#current === undefined) {
        this.#beginSegment(this.#takeSpare(segmentBytesFor(0, state), this.#options.segmentBytes));
      }
      this.#state = state;
      this.#current!.writeState(state, this.#durableLsn, this.#host.now());
      this.#dirtySince ??= this.#host.now();
      this.#sync();
      return state;
    });
  }

  /**
   * Gives up the segments wholly below the checkpoint. The mark is durable before any file may go, so that a file which
   * comes back after a crash is not taken for a part of the log.
   */
  cleanup(): SegmentInfo[] {
    const limit = this.#keepFrom();
    const gone = this.#sealed.filter((segment) => segment.lastLsn < limit);
    // Without a current segment the newest sealed one stays: it carries the state and the last LSN.
    if (this.#current === undefined && gone.length === this.#sealed.length) gone.pop();
    if (gone.length === 0) return [];
    const low = gone[gone.length - 1].lastLsn + 1;
    this.updateState((state) => ({ ...state, low }));
    this.#sealed.splice(0, gone.length);
    this.#publishSegments();
    return gone;
  }

  #keepFrom(): number {
    const acknowledged = Object.values(this.#state.subscriptions);
    return Math.min(this.#state.checkpoint, ...acknowledged) + 1;
  }

  /** Drains the rings, seals and closes. The sequencer is of no use afterwards. */
  close(): void {
    if (this.failed) {
      this.#closeFile();
      return;
    }
    this.#guard(() => {
      this.#drain();
      if (this.#current === undefined) return;
      this.#sealCurrent();
      this.#current.close();
      this.#current = undefined;
    });
    Atomics.store(this.#control.slots, Slot.phase, LogPhase.Closed);
    // What a producer publishes from now on nobody takes; it finds the phase, and says so to its callers.
    for (const member of this.#members) member.wake();
  }

  #closeFile(): void {
    try {
      this.#current?.close();
    } catch {
      // The log failed already, and says so.
    }
  }

  #drain(): void {
    while (this.#step());
  }

  #guard<T>(work: () => T): T {
    if (this.failed) throw new WalError('ERR_WAL_FAILED', this.#control.failure());
    try {
      return work();
    } catch (error) {
      // No space is met before anything is written, and is no reason to stop.
      if (error instanceof WalError && error.code === 'ERR_WAL_NO_SPACE') throw error;
      this.#poison(error);
      throw error;
    }
  }

  /** Collects ready frames into the group, ring by ring. Returns false when there were none. */
  #gather(): boolean {
    const members = this.#members;
    const gone: Member[] = [];
    let found = false;
    for (let i = 0; i < members.length; i++) {
      const member = members[(this.#turn + i) % members.length];
      while (member.ring.state(member.taken) === FrameState.Ready) {
        const bytes = member.ring.descriptors[member.ring.descriptor(member.taken) + Descriptor.bytes];
        if (this.#group.frames > 0 && (this.#group.bytes + bytes > GROUP_BYTES || !this.#hasRoom(bytes))) {
          this.#turn = (this.#turn + i) % members.length;
          this.#group.finish();
          return true;
        }
        found = true;
        if (this.#ensureRoom(bytes)) this.#take(member);
        else this.#reject(member);
      }
      if (member.closing && member.unwritten === 0) gone.push(member);
    }
    // Behind the loop, which counts on the list as it is.
    for (const member of gone) this.#forget(member);
    if (members.length > 0) this.#turn = (this.#turn + 1) % members.length;
    this.#group.finish();
    return found;
  }

  /** A segment with room for a frame of `bytes`; false when the disk is full. Only called with an empty group if it rotates. */
  #ensureRoom(bytes: number): boolean {
    if (this.#hasRoom(bytes)) return true;
    try {
      const least = segmentBytesFor(bytes, this.#state);
      this.#beginSegment(this.#takeSpare(least, Math.max(least, this.#options.segmentBytes)));
      return true;
    } catch (error) {
      if (error instanceof WalError && error.code === 'ERR_WAL_NO_SPACE') return false;
      throw error;
    }
  }

  #hasRoom(bytes: number): boolean {
    return this.#current?.hasRoom(this.#group.bytes + bytes) ?? false;
  }

  /** Gives the next frame of a ring its place in the log. */
  #take(member: Member): void {
    const { ring } = member;
    const at = ring.descriptor(member.taken);
    const offset = ring.descriptors[at + Descriptor.offset];
    const bytes = ring.descriptors[at + Descriptor.bytes];
    let flags = ring.descriptors[at + Descriptor.flags];
    // A producer of which nobody waits for more than memory still wants to know when it has nothing in flight.
    if ((flags & (FrameFlag.WantsOs | FrameFlag.WantsDisk)) === 0) flags |= FrameFlag.WantsOs;
    const { view, data } = ring;
    if ((flags & FrameFlag.NeedsCrc) !== 0) {
      const payloadAt = offset + FRAME_HEADER_BYTES;
      const payload = data.subarray(payloadAt, payloadAt + view.getUint32(offset + Field.storedBytes, true));
      view.setUint32(offset + Field.payloadCrc, crc32(payload), true);
    }
    const records = view.getUint32(offset + Field.records, true);
    const current = this.#current!;
    const now = this.#host.now();
    const { salt, endOffset } = current.info;
    const crc = writeSequencerFields(
      view,
      data,
      offset,
      this.#nextLsn,
      this.#durableLsn,
      salt,
      now,
      current.lastHeaderCrc,
    );
    current.noteFrame(endOffset + this.#group.bytes, this.#nextLsn, records, now, crc);
    ring.setLsn(at, this.#nextLsn);
    ring.descriptors[at + Descriptor.outcome] = FrameOutcome.Written;
    ring.setState(member.taken, FrameState.Taken);
    this.#nextLsn += records;
    this.#recordBytes += view.getUint32(offset + Field.rawBytes, true);
    this.#group.add(ring, offset, bytes);
    this.#group.flags |= flags;
    member.taken++;
    member.unwritten++;
    member.waiting |= flags;
  }

  /** No space: the frame is given back with nothing written, behind everything before it. */
  #reject(member: Member): void {
    const { ring } = member;
    ring.descriptors[ring.descriptor(member.taken) + Descriptor.outcome] = FrameOutcome.NoSpace;
    ring.setState(member.taken, FrameState.Taken);
    member.taken++;
    member.unsynced++;
    ring.advance(RingSlot.sequenced, 1);
    ring.advance(RingSlot.written, 1);
    member.wake();
  }

  // Watermarks move before the rings' counters: whose append has resolved finds its record below the watermark.

  #commitMemory(): void {
    this.#publish(Level.Memory);
    for (const member of this.#members) {
      member.ring.advance(RingSlot.sequenced, member.unwritten);
    }
    this.#announce(Level.Memory);
    if ((this.#group.flags & FrameFlag.WantsMemory) !== 0) this.#wakeWaiting(FrameFlag.WantsMemory);
  }

  #commitOs(): void {
    this.#publish(Level.Os);
    for (const member of this.#members) {
      member.ring.advance(RingSlot.written, member.unwritten);
      member.unsynced += member.unwritten;
      member.unwritten = 0;
    }
    this.#announce(Level.Os);
    // A producer without space waits for `written`, whatever level its records asked for.
    this.#wakeWaiting(FrameFlag.WantsOs, true);
  }

  #sync(): void {
    // From here on `#dirtySince` is wrong if the sync throws; the log is poisoned then, and nobody looks.
    this.#current?.sync();
    this.#control.add(Counter.syncs, 1);
    this.#nowDurable();
  }

  #nowDurable(): void {
    this.#dirtySince = undefined;
    this.#durableLsn = this.#nextLsn - 1;
    this.#publish(Level.Disk);
    for (const member of this.#members) {
      member.ring.advance(RingSlot.synced, member.unsynced);
      member.unsynced = 0;
    }
    this.#announce(Level.Disk);
    this.#wakeWaiting(FrameFlag.WantsDisk);
  }

  #wakeWaiting(flag: number, space = false): void {
    for (const member of this.#members) {
      if ((member.waiting & flag) === 0 && !(space && member.wantsSpace)) continue;
      member.waiting &= ~flag;
      member.wake();
    }
  }

  #publish(level: number): void {
    const control = this.#control;
    control.publishCommit(level, this.#nextLsn - 1, this.#recordBytes, this.#host.now());
    if (level === Level.Os) {
      control.set(Counter.records, this.#nextLsn - 1 - this.#recoveredLsn);
      if (this.#current) control.set(Counter.segmentOffset, this.#current.info.endOffset);
    }
  }

  #announce(level: number): void {
    if ((Atomics.load(this.#control.slots, Slot.interest) & (1 << level)) !== 0) this.#wakeOpener();
  }

  /** One message at a time is on its way: the opening thread clears the flag before it looks at the watermarks. */
  #wakeOpener(): void {
    if (Atomics.exchange(this.#control.slots, Slot.openerWake, 1) === 0) this.#host.wakeOpener();
  }

  #forget(member: Member): void {
    Atomics.store(member.ring.head, RingSlot.phase, RingPhase.Dropped);
    this.#members.splice(this.#members.indexOf(member), 1);
    this.#host.forgotten(member);
  }

  /** Early enough to have it when the segment is full, late enough that a small log never gets one. */
  #askForSpare(): void {
    const { endOffset, fileBytes } = this.#current!.info;
    if (this.#spareAsked || this.#spares.length > 0 || endOffset < fileBytes / 4) return;
    this.#spareAsked = true;
    this.#host.wantSpare();
  }

  /** The smallest spare that serves, or a new one of the size wanted, or as small as it must be when space is short. */
  #takeSpare(least: number, wanted: number): Spare {
    const found = this.#spares.findIndex((spare) => spare.bytes >= least);
    if (found >= 0) return this.#spares.splice(found, 1)[0];
    const starved = Math.max(least, Math.min(wanted, STARVED_SEGMENT_BYTES));
    try {
      for (const bytes of starved > least ? [starved, least] : [least]) {
        if (this.#storage.freeBytes() < bytes) continue;
        try {
          return prepareSpare(this.#storage, bytes);
        } catch (error) {
          if (!isNoSpace(error)) throw error;
        }
      }
    } catch (error) {
      throw new WalError('ERR_WAL_FAILED', `A new segment could not be made: ${(error as Error).message}`, {
        cause: error,
      });
    }
    throw new WalError(
      'ERR_WAL_NO_SPACE',
      `There is no room on the disk for a segment of ${least} bytes. Nothing was written; free some space and append again.`,
    );
  }

  #beginSegment(spare: Spare): void {
    let sealed: SegmentInfo | undefined;
    if (this.#current !== undefined) {
      this.#sealCurrent();
      this.#current.close();
      sealed = this.#current.info;
      this.#sealed.push(sealed);
      this.#current = undefined;
    }
    this.#current = SegmentWriter.create(this.#storage, spare, {
      logId: this.#logId,
      segmentId: this.#nextSegmentId++,
      salt: this.#newSalt(),
      firstLsn: this.#nextLsn,
      now: this.#host.now(),
      previous: this.#end,
      state: this.#state,
    });
    this.#publishSegments();
    this.#host.rotated({ ...this.#current.info }, sealed && { ...sealed });
  }

  #sealCurrent(): void {
    const current = this.#current!;
    current.seal(this.#host.now());
    current.trim();
    this.#control.add(Counter.syncs, 2);
    this.#nowDurable();
    const { id, lastLsn, endOffset } = current.info;
    this.#end = { segmentId: id, lastLsn, endOffset, headerCrc: current.lastHeaderCrc };
  }

  #newSalt(): Salt {
    const bytes = this.#host.randomBytes(8);
    const view = new DataView(bytes.buffer, bytes.byteOffset, 8);
    return { low: view.getUint32(0, true), high: view.getUint32(4, true) };
  }

  #publishSegments(): void {
    const control = this.#control;
    const segments = this.#current === undefined ? this.#sealed : [...this.#sealed, this.#current.info];
    control.set(Counter.segments, segments.length);
    control.set(
      Counter.fileBytes,
      segments.reduce((sum, segment) => sum + segment.fileBytes, 0),
    );
    control.set(Counter.segmentId, this.#current?.info.id ?? 0);
    control.set(Counter.firstLsn, segments.length > 0 ? segments[0].firstLsn : this.#nextLsn);
    control.set(Counter.segmentOffset, this.#current?.info.endOffset ?? 0);
  }

  /**
   * An I/O error: the page cache may have dropped what it could not write and said so this once. So nothing is tried
   * again; everybody who waits is woken and finds the phase changed.
   */
  #poison(error: unknown): void {
    this.#group.clear();
    const { message } = toPlainError(error);
    this.#control.fail(message);
    for (const member of this.#members) {
      member.waiting = 0;
      member.wake();
    }
    this.#wakeOpener();
  }
}
