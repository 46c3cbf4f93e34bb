import { toPlainError, WalError } from '../errors.js';
import { crc32 } from '../format/checksum.js';
import { Field, FRAME_HEADER_BYTES, HeaderFlag, type Salt, writeSequencerFields } from '../format/frame.js';
import { Level } from '../format/levels.js';
import type { IndexEntry } from '../format/seal.js';
import { type Predecessor, SegmentFlag } from '../format/segment-header.js';
import { type LogState, type Positions, withPositions } from '../format/state.js';
import { type Control, Counter, LogPhase, Slot } from '../ring/control.js';
import { Descriptor, FrameFlag, FrameOutcome, FrameState, RingPhase, RingSlot } from '../ring/ring.js';
import { growingSpare, isNoSpace, noSpace, prepareSpare, type Spare } from '../segments/prepare.js';
import type { SegmentInfo } from '../segments/segment-info.js';
import { type SegmentMark, SegmentWriter, segmentBytesFor } from '../segments/segment-writer.js';
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
  /** Segments up to this size are prepared while records wait, and never grow. Default: 4 MiB. */
  growAbove?: number;
}

/** Where a log stands when the sequencer takes it over, as recovery found it. */
export interface LogStart {
  /** Undefined: a new log. */
  logId: Uint8Array | undefined;
  segments: readonly SegmentInfo[];
  state: LogState;
  /** What the next segment's header says of the one before it. */
  end: Predecessor;
  /** Time of the last frame, ms since the epoch. */
  lastTime: number;
  /** Higher than every id ever used. */
  nextSegmentId: number;
}

/** The most that one write takes together. Bounds how long the first record of a group waits for the last. */
const GROUP_BYTES = 4 * 1024 * 1024;
/** Size of the first segment of a run, which is made while its first records wait. */
const STARVED_SEGMENT_BYTES = 4 * 1024 * 1024;
/**
 * Segments are prepared ahead up to this rate. Filling one with zeros costs about 0.45 µs a KiB, on a core that a busy
 * log wants for itself; growing a file costs about 13 µs a sync. Measured on two cores: 64 appends of 100 bytes in
 * flight (120 MB/s) lose 12 % without it, 1,000 (400 MB/s) gain 10 %.
 */
const PREPARE_BYTES_PER_MS = 192 * 1024;

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
  #end: Predecessor;
  #nextLsn: number;
  #nextSegmentId: number;
  #durableLsn: number;
  /** Records since the log was opened. */
  #appended = 0;
  /** The durable LSN that the last frame was stamped with. */
  #stampedLsn: number;
  /** Time of the last frame. Frames never go back in time, so that a time can be looked up. */
  #lastTime: number;
  #recordBytes = 0;
  /** How things stood before the group's first frame was taken. */
  #beforeGroup: { mark: SegmentMark; firstLsn: number; recordBytes: number } | undefined;
  #turn = 0;
  #spareAsked = false;
  #segmentStartedAt = 0;
  #preparedBytes = 0;
  /** When the oldest unsynced write was made; undefined when everything is synced. */
  #dirtySince: number | undefined;

  constructor(storage: Storage, control: Control, host: SequencerHost, options: SequencerOptions, recovered: LogStart) {
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
    this.#stampedLsn = recovered.end.lastLsn;
    this.#lastTime = recovered.lastTime;
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
    if (group.frames > 0 && this.#writeGroup(this.#current!)) {
      this.#commitOs();
      this.#control.add(Counter.groups, 1);
      this.#dirtySince ??= this.#host.now();
      // Also by time alone: a log that is never idle must not keep its `os` records unsynced for ever.
      if ((group.flags & FrameFlag.WantsDisk) !== 0 || this.timeToFlush() === 0) this.#sync();
      this.#askForSpare();
    }
    group.clear();
    return true;
  }

  /** Returns false when the disk is full: the group's frames are given back, and nothing of them is in the log. */
  #writeGroup(current: SegmentWriter): boolean {
    const { views, bytes } = this.#group;
    if (!current.growing) {
      this.#commitMemory();
      current.write(views, bytes);
      return true;
    }
    // A growing segment may meet a full disk. Nobody may have heard of these LSNs then, for others will get them.
    try {
      current.write(views, bytes);
    } catch (error) {
      if (!isFull(error)) throw error;
      this.#takeBack(current);
      return false;
    }
    this.#commitMemory();
    return true;
  }

  #takeBack(current: SegmentWriter): void {
    const { mark, firstLsn, recordBytes } = this.#beforeGroup!;
    current.rollBack(mark);
    this.#appended -= this.#nextLsn - firstLsn;
    this.#nextLsn = firstLsn;
    this.#recordBytes = recordBytes;
    for (const member of this.#members) {
      for (let frame = member.taken - member.unwritten; frame < member.taken; frame++) this.#giveBack(member, frame);
      member.unwritten = 0;
    }
  }

  /**
   * Nothing is in the rings. What is durable was not when the last frame was stamped; say so now, so that damage to the
   * last group can be told from a torn tail, and readers in other processes know how far they may go.
   */
  idle(): void {
    if (this.failed || this.#current === undefined || this.#stampedLsn >= this.#durableLsn) return;
    try {
      if (!this.#current.hasRoom(FRAME_HEADER_BYTES)) return;
      this.#stampedLsn = this.#durableLsn;
      this.#current.writeStamp(this.#durableLsn, this.#dirtySince === undefined, this.#now());
      this.#publishOffset();
      this.#dirtySince ??= this.#host.now();
    } catch (error) {
      if (!isFull(error)) this.#poison(error);
    }
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
      this.#ensureState(state);
      this.#state = state;
      this.#current!.writeState(state, this.#durableLsn, this.#dirtySince === undefined, this.#now());
      this.#dirtySince ??= this.#host.now();
      this.#sync();
      return state;
    });
  }

  /**
   * Notes positions of subscriptions. They survive the death of the process when this returns, and power loss with the
   * next sync: losing one means that records are delivered again.
   */
  notePositions(positions: Positions): LogState {
    return this.#guard(() => {
      this.#drain();
      const state = withPositions(this.#state, positions);
      this.#ensureState(state);
      this.#state = state;
      this.#current!.writePositions(positions, state, this.#durableLsn, this.#dirtySince === undefined, this.#now());
      this.#dirtySince ??= this.#host.now();
      return state;
    });
  }

  /** The sparse index of the current segment, if it is this one. */
  liveIndex(segmentId: number): IndexEntry[] | undefined {
    return this.#current?.info.id === segmentId ? [...this.#current.index] : undefined;
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

  /**
   * Drops every record above `lsn`. One durable step does it: a new segment that begins at `lsn + 1` and says so; what
   * older segments hold from there on is void from that moment, whatever happens to their files. Returns the segments
   * of which nothing is left.
   */
  truncateAfter(lsn: number): SegmentInfo[] {
    return this.#guard(() => {
      this.#drain();
      this.#sync();
      if (lsn >= this.#nextLsn - 1) return [];
      const state = clampedTo(this.#state, lsn);
      const least = segmentBytesFor(0, state);
      const spare = this.#takeSpare(least, Math.max(least, this.#options.segmentBytes));
      this.#retireCurrent(spare);
      const kept = this.#sealed.filter((segment) => segment.firstLsn <= lsn);
      const gone = this.#sealed.filter((segment) => segment.firstLsn > lsn);
      const last = kept.at(-1);
      const before = { end: this.#end, state: this.#state, nextLsn: this.#nextLsn };
      this.#end = {
        segmentId: last?.id ?? 0,
        lastLsn: last?.lastLsn ?? lsn,
        endOffset: last?.endOffset ?? 0,
        headerCrc: last?.endCrc ?? 0,
      };
      this.#state = state;
      this.#nextLsn = lsn + 1;
      try {
        this.#createSegment(spare, SegmentFlag.Truncates);
      } catch (error) {
        // The disk is full: nothing was cut off, and the log goes on where it was.
        this.#end = before.end;
        this.#state = before.state;
        this.#nextLsn = before.nextLsn;
        throw error;
      }
      if (last !== undefined) last.lastLsn = lsn;
      this.#sealed.splice(0, this.#sealed.length, ...kept);
      this.#durableLsn = lsn;
      this.#stampedLsn = lsn;
      for (const level of [Level.Memory, Level.Os, Level.Disk]) this.#publish(level);
      this.#publishSegments();
      return gone;
    });
  }

  /** The finished segments, oldest first. */
  get sealed(): readonly SegmentInfo[] {
    return this.#sealed;
  }

  /** Notes, durably, what a compaction that is about to take effect asks of the log from then on. */
  noteCompaction(compacted: number, deletesGone: number): LogState {
    return this.updateState((state) => ({
      ...state,
      compacted: Math.max(state.compacted ?? 0, compacted),
      ...(deletesGone > 0 && { deletesGone: Math.max(state.deletesGone ?? 0, deletesGone) }),
    }));
  }

  /** One segment has taken the place of several that follow one another, the file of the last included. */
  replaceSealed(ids: readonly number[], info: SegmentInfo): void {
    const at = this.#sealed.findIndex((segment) => segment.id === ids[0]);
    if (at < 0 || ids.some((id, i) => this.#sealed[at + i]?.id !== id)) {
      throw new WalError('ERR_WAL_FAILED', `Segments ${ids.join(', ')} are not there to be replaced.`);
    }
    this.#sealed.splice(at, ids.length, info);
    this.#publishSegments();
  }

  #keepFrom(): number {
    const acknowledged = Object.values(this.#state.subscriptions).map((subscription) => subscription.acknowledged);
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
      if (this.#dirtySince !== undefined) this.#sync();
      if (this.#current.growing) this.#endGrowing();
      this.#sealIfRoom();
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

  /** Takes what was ready when it began; producers that never pause do not keep it for ever. */
  #drain(): void {
    const targets = this.#members.map((member) => ({ member, frames: member.taken + member.ready() }));
    const behind = () => targets.some(({ member, frames }) => member.taken < frames);
    while (behind() && this.#step());
  }

  #guard<T>(work: () => T): T {
    if (this.failed) throw new WalError('ERR_WAL_FAILED', this.#control.failure());
    try {
      return work();
    } catch (error) {
      // No space is met before anything is written, and is no reason to stop.
      if (isFull(error)) throw error;
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
      // Looked at before the frames: what a producer published before it closed is seen below.
      const { closing } = member;
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
      if (closing && member.unwritten === 0) gone.push(member);
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
      if (isFull(error)) return false;
      throw error;
    }
  }

  /** A segment with room for this state, as a frame now and in the seal later. */
  #ensureState(state: LogState): void {
    if (this.#current?.hasRoomForState(state)) return;
    const least = segmentBytesFor(0, state);
    this.#beginSegment(this.#takeSpare(least, Math.max(least, this.#options.segmentBytes)));
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
    if (this.#group.frames === 0) {
      this.#beforeGroup = { mark: current.mark(), firstLsn: this.#nextLsn, recordBytes: this.#recordBytes };
    }
    const now = this.#now();
    const { salt, endOffset } = current.info;
    const first = this.#group.frames === 0 && this.#dirtySince === undefined;
    const crc = writeSequencerFields(
      view,
      data,
      offset,
      this.#nextLsn,
      this.#durableLsn,
      salt,
      now,
      current.lastHeaderCrc,
      first ? HeaderFlag.PrefixDurable : 0,
    );
    this.#stampedLsn = this.#durableLsn;
    current.noteFrame(endOffset + this.#group.bytes, this.#nextLsn, records, now, crc);
    ring.setLsn(at, this.#nextLsn);
    ring.descriptors[at + Descriptor.outcome] = FrameOutcome.Written;
    ring.setState(member.taken, FrameState.Taken);
    this.#nextLsn += records;
    this.#appended += records;
    this.#recordBytes += view.getUint32(offset + Field.rawBytes, true);
    this.#group.add(ring, offset, bytes);
    this.#group.flags |= flags;
    member.taken++;
    member.unwritten++;
    member.waiting |= flags;
  }

  /** No space: the frame is given back with nothing written, behind everything before it. */
  #reject(member: Member): void {
    this.#giveBack(member, member.taken++);
  }

  #giveBack(member: Member, frame: number): void {
    const { ring } = member;
    ring.descriptors[ring.descriptor(frame) + Descriptor.outcome] = FrameOutcome.NoSpace;
    ring.setState(frame, FrameState.Taken);
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
    if (level === Level.Os) {
      control.set(Counter.records, this.#appended);
      // Before the watermark: whoever sees that finds where the file ends that holds it.
      this.#publishOffset();
    }
    control.publishCommit(level, this.#nextLsn - 1, this.#recordBytes, this.#host.now());
  }

  #publishOffset(): void {
    this.#control.set(Counter.segmentOffset, this.#current?.info.endOffset ?? 0);
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
    const elapsed = this.#host.now() - this.#segmentStartedAt;
    if (endOffset < elapsed * PREPARE_BYTES_PER_MS || endOffset < STARVED_SEGMENT_BYTES) this.#host.wantSpare();
  }

  /**
   * The smallest spare that serves. Without one: a small prepared segment for the first records of a run; and later, when
   * preparing could not keep up, one that grows.
   */
  #takeSpare(least: number, wanted: number): Spare {
    const found = this.#spares.findIndex((spare) => spare.bytes >= least);
    if (found >= 0) return this.#spares.splice(found, 1)[0];
    const first = Math.max(least, Math.min(wanted, STARVED_SEGMENT_BYTES));
    try {
      if (this.#storage.freeBytes() < least) throw noSpace(undefined);
      const { growAbove = STARVED_SEGMENT_BYTES } = this.#options;
      if (this.#current === undefined || wanted <= growAbove) return prepareSpare(this.#storage, first);
      return growingSpare(this.#storage, least, wanted);
    } catch (error) {
      throw isNoSpace(error) ? noSpace(error) : error;
    }
  }

  #beginSegment(spare: Spare): void {
    const sealed = this.#retireCurrent(spare);
    this.#createSegment(spare);
    this.#host.rotated({ ...this.#current!.info }, sealed && { ...sealed });
  }

  /** Seals and closes the current segment, if there is one. `spare` is kept for later when that cannot be done now. */
  #retireCurrent(spare: Spare): SegmentInfo | undefined {
    const current = this.#current;
    if (current === undefined) return undefined;
    try {
      this.#sealCurrent();
    } catch (error) {
      this.#spares.push(spare);
      throw error;
    }
    current.close();
    this.#sealed.push(current.info);
    this.#current = undefined;
    return current.info;
  }

  #createSegment(spare: Spare, flags = 0): void {
    this.#preparedBytes = spare.growing ?? spare.bytes;
    this.#current = SegmentWriter.create(this.#storage, spare, {
      logId: this.#logId,
      segmentId: this.#nextSegmentId++,
      salt: this.#newSalt(),
      firstLsn: this.#nextLsn,
      now: this.#now(),
      previous: this.#end,
      state: this.#state,
      flags,
    });
    this.#segmentStartedAt = this.#host.now();
    this.#spareAsked = false;
    this.#publishSegments();
  }

  #sealCurrent(): void {
    const current = this.#current!;
    current.seal(this.#now());
    current.trim();
    this.#control.add(Counter.syncs, 2);
    this.#nowDurable();
    const { id, lastLsn, endOffset } = current.info;
    this.#end = { segmentId: id, lastLsn, endOffset, headerCrc: current.lastHeaderCrc };
  }

  /**
   * A file that grew has no size of its own: without a successor that says where it ends, a closed log that lost its end
   * would look like one whose writer stopped there. So an empty segment, prepared and sealed, ends such a log.
   */
  #endGrowing(): void {
    try {
      const spare = prepareSpare(this.#storage, segmentBytesFor(0, this.#state));
      this.#retireCurrent(spare);
      this.#createSegment(spare);
    } catch (error) {
      if (!isFull(error) && !isNoSpace(error)) throw error;
    }
  }

  /** On a full disk a growing segment stays without its seal; recovery reads it to its end then. */
  #sealIfRoom(): void {
    try {
      this.#sealCurrent();
    } catch (error) {
      if (!isFull(error)) throw error;
    }
  }

  #now(): number {
    this.#lastTime = Math.max(this.#lastTime, this.#host.now());
    return this.#lastTime;
  }

  #newSalt(): Salt {
    const bytes = this.#host.randomBytes(8);
    const view = new DataView(bytes.buffer, bytes.byteOffset, 8);
    return { low: view.getUint32(0, true), high: view.getUint32(4, true) };
  }

  #publishSegments(): void {
    const control = this.#control;
    const segments = this.#current === undefined ? this.#sealed : [...this.#sealed, this.#current.info];
    const growing = this.#current?.growing ? this.#current.info.fileBytes : 0;
    control.set(Counter.segments, segments.length);
    control.set(Counter.growing, growing > 0 ? this.#preparedBytes : 0);
    control.set(Counter.fileBytes, segments.reduce((sum, segment) => sum + segment.fileBytes, 0) - growing);
    control.set(Counter.segmentId, this.#current?.info.id ?? 0);
    control.set(Counter.firstLsn, segments.length > 0 ? segments[0].firstLsn : this.#nextLsn);
    this.#publishOffset();
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

function isFull(error: unknown): boolean {
  return error instanceof WalError && error.code === 'ERR_WAL_NO_SPACE';
}

/** The state of a log that ends at `lsn`. */
function clampedTo(state: LogState, lsn: number): LogState {
  const subscriptions = Object.entries(state.subscriptions).map(([name, { acknowledged, level }]) => [
    name,
    { acknowledged: Math.min(acknowledged, lsn), level },
  ]);
  return { ...state, subscriptions: Object.fromEntries(subscriptions) };
}
