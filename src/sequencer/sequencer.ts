import { toPlainError, WalError } from '../errors.js';
import { crc32 } from '../format/checksum.js';
import { Field, FRAME_HEADER_BYTES, frameBytes, HeaderFlag, type Salt, writeSequencerFields } from '../format/frame.js';
import { writeEncryptedFields } from '../format/frame-payload.js';
import type { ActorKey } from '../format/key-ring.js';
import { Level } from '../format/levels.js';
import type { IndexEntry } from '../format/seal.js';
import { type Predecessor, SegmentFlag } from '../format/segment-header.js';
import {
  clampedTo,
  encodeState,
  type LogState,
  neededFrom,
  type Positions,
  withKey,
  withPositions,
} from '../format/state.js';
import type { TransactionNote } from '../format/transaction.js';
import { type Control, Counter, FOLLOWED, LogPhase, Slot } from '../ring/control.js';
import { Descriptor, FrameFlag, FrameOutcome, FrameState, RingPhase, RingSlot } from '../ring/ring.js';
import { growingSpare, isNoSpace, noSpace, prepareSpare, type Spare } from '../segments/prepare.js';
import type { SegmentInfo } from '../segments/segment-info.js';
import { type SegmentMark, SegmentWriter, segmentBytesFor } from '../segments/segment-writer.js';
import type { Storage } from '../storage/storage.js';
import { Group } from './group.js';
import type { Member } from './member.js';
import { PreparePolicy } from './prepare-policy.js';
import { type Syncer, SyncPolicy, WORTH_HANDING_OVER_MS } from './syncer.js';
import { type TransactionFrame, Transactions } from './transactions.js';

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
  /** Without one, every sync is made here. */
  syncer?: Syncer | undefined;
}

export interface SequencerOptions {
  segmentBytes: number;
  /** 0: never sync on time alone. */
  flushIntervalMs: number;
  /** Segments up to this size are prepared while records wait, and never grow. Default: 4 MiB. */
  growAbove?: number;
  /** Syncs that take less, in milliseconds on average, are never handed to the host's syncer. Default: 0.1. */
  handOverAboveMs?: number;
  /** What the producers encrypt with. Undefined: nothing is encrypted. */
  key?: ActorKey;
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
/** How long after the last reader that followed, or waited, the log counts as followed: another may come, as a loop begins anew. */
const FOLLOWED_FOR_MS = 1000;

/**
 * The I/O actor's brain. Takes ready frames from the rings, gives them LSNs, writes them as one group, syncs when
 * somebody asked for it, and moves the watermarks. Synchronous and without threads: it runs in the actor's thread over
 * a real directory, and in tests over a simulated disk.
 *
 * The order inside {@link step} carries the guarantees:
 *   1. a frame gets its LSN and header, then `sequenced` moves (memory);
 *   2. the group is written whole, then `written` moves (os) and the producers get their ring space back;
 *   3. the file is synced, then `synced` moves (disk).
 * Where write and sync are one call, all three move behind it, in this order.
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
  readonly #transactions = new Transactions();
  /** A prepare or an abort was written, for which no later frame vouches yet. */
  #noteUnvouched = false;
  #turn = 0;
  #waitedMs = 0;
  /** Bytes of groups since the last sync was begun, and those that it took. */
  #unsyncedBytes = 0;
  #syncedBytes = 0;
  #spareAsked = false;
  readonly #preparing = new PreparePolicy();
  /** Spares that were asked for and did not come yet. */
  #spareRequests = 0;
  /** One of them was on its way while the current segment was written. */
  #fillsMeanwhile = false;
  #segmentStartedAt = 0;
  #preparedBytes = 0;
  /** When the oldest write was made that no sync was begun for; undefined when there is none. */
  #dirtySince: number | undefined;
  /** A sync that the syncer is at, and how far the log is durable when it is over. */
  #syncing: { lsn: number; recordBytes: number } | undefined;
  #followedUntil = Number.NEGATIVE_INFINITY;
  /** Somebody wants a sync of what was written since that one began. */
  #syncWanted = false;
  readonly #policy: SyncPolicy;
  /** Of the keys that frames may be encrypted with, by id. */
  readonly #headerKeys = new Map<number, Uint8Array>();

  constructor(storage: Storage, control: Control, host: SequencerHost, options: SequencerOptions, recovered: LogStart) {
    this.#storage = storage;
    this.#control = control;
    this.#host = host;
    this.#options = options;
    this.#policy = new SyncPolicy(options.handOverAboveMs ?? WORTH_HANDING_OVER_MS);
    this.#logId = recovered.logId ?? host.randomBytes(16);
    this.#sealed = [...recovered.segments];
    this.#state = recovered.state;
    this.#end = recovered.end;
    this.#nextLsn = recovered.end.lastLsn + 1;
    this.#nextSegmentId = recovered.nextSegmentId;
    this.#durableLsn = recovered.end.lastLsn;
    this.#stampedLsn = recovered.end.lastLsn;
    this.#lastTime = recovered.lastTime;
    const { key } = options;
    // No segment is open yet: the header of the first one knows the key before any frame needs it.
    if (key !== undefined) {
      this.#headerKeys.set(key.id, key.headerKey);
      this.#state = withKey(this.#state, this.#logId, key.id, key.checkValue);
    }
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

  /**
   * How long the last {@link step} waited for a sync, in milliseconds, less what its bytes take at the rate at which the disk
   * fills a spare: what a sync takes whatever is in it. 0 when it made none, or handed it over.
   */
  get fixedSyncMs(): number {
    return this.#preparing.withoutBytes(this.#waitedMs, this.#syncedBytes);
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
    this.#spareRequests = Math.max(0, this.#spareRequests - 1);
    if (spare === undefined) return;
    if (spare.fillRate !== undefined) this.#preparing.filled(spare.fillRate);
    this.#spares.push(spare);
  }

  /** Milliseconds until there is something to do without being asked; undefined for never. */
  timeToFlush(): number | undefined {
    if (this.#dirtySince === undefined || this.#options.flushIntervalMs === 0 || this.failed) return undefined;
    // What is due meanwhile is looked at when that sync is over: until then there is nothing to do, and no turn to spend on it.
    if (this.#syncing !== undefined) return undefined;
    return Math.max(0, this.#dirtySince + this.#options.flushIntervalMs - this.#host.now());
  }

  /** Takes what is ready and brings it as far as somebody asked for. Returns whether there was anything to do. */
  step(): boolean {
    if (this.failed) return false;
    this.#waitedMs = 0;
    try {
      return this.#step();
    } catch (error) {
      this.#poison(error);
      return true;
    }
  }

  #step(): boolean {
    const synced = this.#syncing !== undefined && this.#takeSynced();
    if (!this.#gather()) {
      if (this.timeToFlush() !== 0) return synced;
      this.#syncSoon();
      return true;
    }
    const group = this.#group;
    if (group.frames > 0 && this.#writeThrough(this.#current!)) {
      this.#control.add(Counter.groups, 1);
      this.#askForSpare();
    } else if (group.frames > 0 && this.#writeGroup(this.#current!)) {
      this.#commitOs();
      this.#unsyncedBytes += group.bytes;
      this.#control.add(Counter.groups, 1);
      this.#dirtySince ??= this.#host.now();
      // Also by time alone: a log that is never idle must not keep its `os` records unsynced for ever.
      if ((group.flags & FrameFlag.WantsDisk) !== 0 || this.timeToFlush() === 0) this.#syncSoon();
      this.#askForSpare();
    } else if (this.timeToFlush() === 0) {
      // The disk is full and all of it was given back: what came before is due all the same.
      this.#syncSoon();
    }
    group.clear();
    return true;
  }

  /**
   * A group of which all wait for `disk`, while nothing else is to be synced, is written and synced in one call: nobody hears
   * of it at a lower level meanwhile. Not while others wait for less, whom that would hold up; nor while somebody reads what
   * was written last, because it is not in the page cache then. Returns false where that is so, or where it cannot be done.
   */
  #writeThrough(current: SegmentWriter): boolean {
    const { views, bytes, flags } = this.#group;
    const now = this.#host.now();
    if (this.#isFollowed(now) || this.#policy.isMixed(now)) return false;
    if ((flags & FrameFlag.WantsAny) !== FrameFlag.WantsDisk || !this.#clean) return false;
    const before = performance.now();
    if (!current.writeThrough(views, bytes)) return false;
    this.#unsyncedBytes = bytes;
    this.#noteSync(performance.now() - before);
    this.#commitMemory();
    this.#commitOs();
    this.#nowDurable();
    return true;
  }

  /** Whether somebody reads what is written, or did a moment ago. */
  #isFollowed(now: number): boolean {
    if ((Atomics.load(this.#control.slots, Slot.interest) & FOLLOWED) !== 0)
      this.#followedUntil = now + FOLLOWED_FOR_MS;
    return now < this.#followedUntil;
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
    // While a sync is under way, its own stamp comes when it is over.
    if (this.failed || this.#current === undefined || this.#syncing !== undefined) return;
    const noteDurable = this.#noteUnvouched && this.#clean;
    if (this.#stampedLsn >= this.#durableLsn && !noteDurable) return;
    try {
      if (!this.#current.hasRoom(FRAME_HEADER_BYTES)) return;
      this.#stampedLsn = this.#durableLsn;
      if (noteDurable) this.#noteUnvouched = false;
      this.#current.writeStamp(this.#durableLsn, this.#clean, this.#now());
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
      if (!this.#clean) this.#sync();
    });
  }

  /**
   * Ends the current segment and begins the next. A segment without records stays, unless `key` is another than before:
   * when this returns, the header of the current segment knows it, durably, and frames may be encrypted with it.
   */
  rotate(key?: ActorKey): void {
    this.#guard(() => {
      this.#drain();
      const isNew = key !== undefined && this.#state.encryption?.current !== key.id;
      const current = this.#current;
      if (!isNew && (current === undefined || current.info.lastLsn < current.info.firstLsn)) return;
      if (!isNew) return this.#beginSegmentWith(this.#state);
      this.#headerKeys.set(key.id, key.headerKey);
      const state = withKey(this.#state, this.#logId, key.id, key.checkValue);
      // Without a segment there is no frame yet that the key could be needed for, and the next header will have it.
      if (current === undefined) this.#state = state;
      else this.#beginSegmentWith(state);
    });
  }

  /** Begins a segment whose header has this state. When there is no room for it, nothing has changed. */
  #beginSegmentWith(state: LogState): void {
    const before = this.#state;
    const least = segmentBytesFor(0, state);
    this.#state = state;
    try {
      this.#beginSegment(this.#takeSpare(least, Math.max(least, this.#options.segmentBytes)));
    } catch (error) {
      this.#state = before;
      throw error;
    }
  }

  /** Writes a changed state and makes it durable. */
  updateState(change: (state: LogState) => LogState): LogState {
    return this.#guard(() => {
      this.#drain();
      return this.#putState(change(this.#state));
    });
  }

  /**
   * The same for what nothing else tells: it stands where no one damaged place can take it, in the header of a segment, or as a
   * state that is written more than once. On a full disk once must do.
   */
  #updateForGood(change: (state: LogState) => LogState): LogState {
    return this.#guard(() => {
      this.#drain();
      const state = change(this.#state);
      if (this.#current?.hasRoomForLastingState(state)) return this.#putState(state, true);
      try {
        this.#beginSegmentWith(state);
        return state;
      } catch (error) {
        if (!isFull(error)) throw error;
        return this.#putState(state);
      }
    });
  }

  #putState(state: LogState, lasting = false): LogState {
    if (!lasting) this.#ensureState(state);
    this.#current!.writeState(state, this.#durableLsn, this.#clean, this.#now(), lasting);
    // Only now: a segment that grows may have refused it, and nothing has changed then.
    this.#state = state;
    this.#dirtySince ??= this.#host.now();
    this.#sync();
    return state;
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
      this.#current!.writePositions(positions, state, this.#durableLsn, this.#clean, this.#now());
      this.#state = state;
      this.#dirtySince ??= this.#host.now();
      return state;
    });
  }

  /**
   * A step of a transaction that takes more than one frame; `lsn` is that of a commit. What it writes survives the death of the process when this
   * returns, and power loss with the next sync. Throws `ERR_WAL_TRANSACTION`, with nothing written, when the step does not
   * fit what is known of the transaction: so of two who decide about one at once, one is refused.
   */
  noteTransaction(note: TransactionNote): { lsn: number; state: LogState } {
    if (!this.failed) this.#transactions.check(note, this.#state);
    return this.#guard(() => {
      this.#drain();
      const step = this.#transactions.frameFor(note, this.#state, this.#nextLsn);
      const lsn = step === undefined ? 0 : this.#writeTransaction(step);
      this.#transactions.done(note, this.#nextLsn);
      return { lsn, state: this.#state };
    });
  }

  #writeTransaction({ payload, records, stateIn }: TransactionFrame): number {
    const lsn = this.#nextLsn;
    // A segment that begins with this very frame is the one that leads to the larger state.
    this.#ensureRoomFor(frameBytes(payload.byteLength), stateIn(lsn));
    const current = this.#current!;
    const state = stateIn(current.info.firstLsn);
    current.writeTransaction(payload, records, state, this.#durableLsn, this.#clean, this.#now());
    // Nothing of it is known before it is written, so that there is nothing to take back when the disk is full.
    this.#state = state;
    this.#nextLsn += records;
    this.#appended += records;
    this.#recordBytes += records > 0 ? payload.byteLength : 0;
    this.#dirtySince ??= this.#host.now();
    this.#noteUnvouched = records === 0;
    this.#control.add(Counter.groups, 1);
    this.#commitMemory();
    this.#commitOs();
    return lsn;
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
    this.#updateForGood((state) => ({ ...state, low }));
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
      this.#transactions.cut();
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
    return this.#updateForGood((state) => ({
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
    return Math.min(neededFrom(this.#state), this.#transactions.neededFrom());
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
      if (!this.#clean) this.#sync();
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
      // The number of a file that is closed may be another file's by the time the syncer uses it.
      if (this.#syncing !== undefined) this.#host.syncer!.finish();
    } catch {
      // As below.
    }
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
        const bytes = member.nextBytes();
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
    this.#ensureRoomFor(frameBytes(encodeState(state).byteLength), state);
  }

  /** A segment with room for a frame of `bytes`, and for this state in the seal later. */
  #ensureRoomFor(bytes: number, state: LogState): void {
    if (this.#current?.hasRoomForBoth(bytes, state)) return;
    const least = segmentBytesFor(bytes, state);
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
    const wantsLess = (flags & (FrameFlag.WantsMemory | FrameFlag.WantsOs)) !== 0;
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
    if (wantsLess) this.#policy.wantedLess(now);
    const { salt, endOffset } = current.info;
    const first = this.#group.frames === 0 && this.#clean;
    const durable = this.#durableLsn;
    const previous = current.lastHeaderCrc;
    const bits = first ? HeaderFlag.PrefixDurable : 0;
    const crc =
      data[offset + Field.encryption] === 0
        ? writeSequencerFields(view, data, offset, this.#nextLsn, durable, salt, now, previous, bits)
        : writeEncryptedFields(this.#headerKeys, view, data, offset, this.#nextLsn, durable, salt, now, previous, bits);
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

  /** Everything written is durable when this returns. */
  #sync(): void {
    this.#awaitSyncer();
    const before = performance.now();
    // From here on `#dirtySince` is wrong if the sync throws; the log is poisoned then, and nobody looks.
    this.#current?.sync();
    this.#noteSync(performance.now() - before);
    this.#nowDurable();
  }

  #noteSync(ms: number): void {
    this.#waitedMs = ms;
    this.#syncedBytes = this.#unsyncedBytes;
    this.#unsyncedBytes = 0;
    this.#policy.observe(ms);
    this.#control.add(Counter.syncs, 1);
  }

  /**
   * As {@link #sync}, or begins it: then the log goes on being written, at the lower levels, and `synced` moves once it is
   * over. The syncer has the file until then: it is not sealed, nor closed before that, nor synced by anybody else but to
   * make a cut last that a full disk asked for: of a failure, one of the two is told, and either of them ends the log.
   */
  #syncSoon(): void {
    if (this.#syncing !== undefined) {
      this.#syncWanted = true;
      return;
    }
    const { syncer } = this.#host;
    const handOver = syncer !== undefined && this.#policy.handsOver(this.#host.now());
    if (!handOver || !syncer.begin(this.#current!.file)) return this.#sync();
    // What is written from here on, this sync may have missed.
    this.#syncing = { lsn: this.#nextLsn - 1, recordBytes: this.#recordBytes };
    this.#syncWanted = false;
    this.#dirtySince = undefined;
    this.#unsyncedBytes = 0;
    for (const member of this.#members) member.syncing = member.unsynced;
  }

  /** Takes note if the syncer is done. Returns whether it was. */
  #takeSynced(): boolean {
    if (!this.#syncerDone((syncer) => syncer.over())) return false;
    if (this.#syncWanted) this.#syncSoon();
    return true;
  }

  #awaitSyncer(): void {
    if (this.#syncing !== undefined) this.#syncerDone((syncer) => syncer.finish());
    this.#syncWanted = false;
  }

  #syncerDone(ask: (syncer: Syncer) => number | undefined): boolean {
    const { lsn, recordBytes } = this.#syncing!;
    const ms = ask(this.#host.syncer!);
    if (ms === undefined) return false;
    this.#syncing = undefined;
    this.#policy.observe(ms);
    this.#control.add(Counter.syncs, 1);
    this.#durableUpTo(lsn, recordBytes, (member) => member.syncing);
    return true;
  }

  #nowDurable(): void {
    this.#dirtySince = undefined;
    this.#durableUpTo(this.#nextLsn - 1, this.#recordBytes, (member) => member.unsynced);
  }

  #durableUpTo(lsn: number, recordBytes: number, framesOf: (member: Member) => number): void {
    this.#durableLsn = lsn;
    this.#control.publishCommit(Level.Disk, lsn, recordBytes, this.#host.now());
    for (const member of this.#members) {
      const frames = framesOf(member);
      member.ring.advance(RingSlot.synced, frames);
      member.unsynced -= frames;
      member.syncing = 0;
    }
    this.#announce(Level.Disk);
    this.#wakeWaiting(FrameFlag.WantsDisk);
  }

  /** Everything that was written is known to be on stable storage. */
  get #clean(): boolean {
    return this.#dirtySince === undefined && this.#syncing === undefined;
  }

  #wakeWaiting(flag: number, space = false): void {
    for (const member of this.#members) {
      if ((member.waiting & flag) === 0 && !(space && member.wantsSpace)) continue;
      // A sync that was begun before its newest frames leaves somebody waiting.
      if (flag !== FrameFlag.WantsDisk || member.unsynced === 0) member.waiting &= ~flag;
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
    if (!this.#preparing.pays(endOffset / elapsed) && endOffset >= STARVED_SEGMENT_BYTES) return;
    this.#spareRequests++;
    this.#fillsMeanwhile = true;
    this.#host.wantSpare();
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
      if (this.#current === undefined || wanted <= growAbove) return this.#prepareNow(first);
      return growingSpare(this.#storage, least, wanted);
    } catch (error) {
      throw isNoSpace(error) ? noSpace(error) : error;
    }
  }

  #prepareNow(bytes: number): Spare {
    const spare = prepareSpare(this.#storage, bytes);
    if (spare.fillRate !== undefined) this.#preparing.filled(spare.fillRate);
    return spare;
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
    this.#noteRun(current);
    this.#sealed.push(current.info);
    this.#current = undefined;
    return current.info;
  }

  /** One that ended early, or is the small first one of a run, tells little of how quick the log is. */
  #noteRun({ growing, info }: SegmentWriter): void {
    const bytes = info.endOffset;
    if (bytes * 2 < this.#options.segmentBytes) return;
    const ms = this.#host.now() - this.#segmentStartedAt;
    this.#preparing.ended({ grew: growing, filling: this.#fillsMeanwhile, bytes, ms });
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
    this.#fillsMeanwhile = this.#spareRequests > 0;
    this.#publishSegments();
  }

  #sealCurrent(): void {
    this.#awaitSyncer();
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
