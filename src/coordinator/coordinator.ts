import { randomBytes } from 'node:crypto';
import { BroadcastChannel } from 'node:worker_threads';
import { WalError } from '../errors.js';
import { Codec } from '../format/codec.js';
import { makeRingKey, type RingKey, SALT_BYTES } from '../format/encryption.js';
import { COMPRESS_BYTES } from '../format/frame-payload.js';
import { type ActorKey, KeyRing, type WritingKey } from '../format/key-ring.js';
import { Level } from '../format/levels.js';
import type { IndexEntry } from '../format/seal.js';
import { type LogState, type Positions, withKey } from '../format/state.js';
import type { TransactionNote } from '../format/transaction.js';
import { Appender, type AppenderOptions } from '../producer/appender.js';
import { closedError } from '../producer/arguments.js';
import { makeHandle, type ProducerHandle, type ProducerMessage } from '../producer/connect.js';
import type { FrameEncoding } from '../producer/encode-in-ring.js';
import { expectLifeLine, forgetLifeLine } from '../producer/life-line.js';
import { onAbort } from '../producer/on-abort.js';
import { RecordWriter } from '../producer/producer.js';
import type { Catalog } from '../reader/catalog.js';
import type { LogSource } from '../reader/log-source.js';
import { knownKeys, readsDamaged } from '../recovery/known-keys.js';
import type { RecoveryReport } from '../recovery/recover.js';
import { Control, Counter, LogPhase } from '../ring/control.js';
import { Ring } from '../ring/ring.js';
import { isCompacting } from '../segments/names.js';
import type { Spare } from '../segments/prepare.js';
import type { Retired } from '../segments/retire.js';
import type { SegmentInfo } from '../segments/segment-info.js';
import { NodeStorage } from '../storage/node-storage.js';
import { ActorLink } from './actor-link.js';
import { type CommitEvent, Commits } from './commits.js';
import { checkCut, checkFirstCheckpoint } from './compaction-limits.js';
import { type CompactionReport, type CompactOptions, Compactor } from './compactor.js';
import { CROWDED_POOL_FRAME_BYTES, POOL_ENCRYPT_BYTES, POOL_FRAME_BYTES } from './encode-frame.js';
import { DirectoryLock } from './lock.js';
import type { ActorReady, TaskEncryption } from './messages.js';
import type { ResolvedOptions } from './options.js';
import { Pool } from './pool.js';
import { SyncerLink } from './syncer-link.js';

/** What the coordinator tells whoever opened the log. */
export interface CoordinatorListener {
  commit(event: CommitEvent): void;
  rotated(current: SegmentInfo, sealed: SegmentInfo): void;
  compacted(report: CompactionReport): void;
  backpressure(waiting: boolean): void;
  /** The log failed; told once. */
  failed(error: WalError): void;
  /** Work in the background failed; the log goes on. */
  trouble(error: unknown): void;
}

/**
 * The opening thread's side of an open log: holds the lock, starts the actor and the pool, appends through a ring of its
 * own, turns watermarks into events, and does slow work on files one at a time.
 */
export class Coordinator {
  readonly control: Control;
  readonly appender: Appender;
  readonly writer: RecordWriter;
  readonly commits: Commits;
  readonly report: RecoveryReport;
  readonly #directory: string;
  readonly #options: ResolvedOptions;
  readonly #lock: DirectoryLock;
  readonly #link: ActorLink;
  readonly #pool: Pool;
  #listener: CoordinatorListener = {
    commit: ignore,
    rotated: ignore,
    compacted: ignore,
    backpressure: ignore,
    failed: ignore,
    trouble: ignore,
  };
  readonly #compactor: Compactor;
  readonly #appenderOptions: AppenderOptions;
  readonly #keys: KeyRing;
  readonly #logId: Uint8Array;
  /** What the log is written with; undefined when it is not encrypted. */
  #key: WritingKey | undefined;
  /** Channels of the producers in other threads, by the id of their ring. */
  readonly #channels = new Map<number, string>();
  /** Frames on their way through the pool. */
  readonly #encoding = new Set<Promise<void>>();
  readonly #syncer: SyncerLink;
  /** Work that was begun before a close, and that a close waits for. */
  readonly #underWay = new Set<Promise<unknown>>();
  #state: LogState;
  #leftSpares: string[];
  #leftUnfinished: string[];
  /** Files that no longer belong to the log and are still there. */
  #obsolete: string[];
  #nextRing = 1;
  /** A cut that is under way: until it is done, nothing above `lsn` is there for readers. */
  #cut: { lsn: number; done: Promise<void> } | undefined;
  /** The log failed during a cut, and nobody knows whether it was made: what readers above it meet is no damage. */
  #unsureAbove = Number.POSITIVE_INFINITY;
  #catalog: Catalog | undefined;
  #failureTold = false;
  #closing = false;

  static async open(directory: string, options: ResolvedOptions): Promise<Coordinator> {
    const lock = DirectoryLock.acquire(directory);
    try {
      const control = new Control();
      const syncer = new SyncerLink(control);
      const ring = Ring.allocate(options.ringBytes);
      const { segmentBytes, flushIntervalMs, syncMethod, writeThrough, recoveryMode, signal } = options;
      // First of all: with the wrong key nothing is read, and nothing touched.
      const { keys, logId, key } = await takeKeys(directory, options);
      signal?.throwIfAborted();
      const data = {
        directory,
        control: control.memory,
        ring: ring.memory,
        sync: syncer.memory,
        segmentBytes,
        flushIntervalMs,
        syncMethod,
        writeThrough,
        recoveryMode,
        encryption: key && { logId, key: actorKey(key) },
      };
      const { link, ready } = await ActorLink.start(control, data, signal, options.onProgress);
      return new Coordinator(directory, options, lock, control, ring, link, syncer, ready, { keys, logId, key });
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  private constructor(
    directory: string,
    options: ResolvedOptions,
    lock: DirectoryLock,
    control: Control,
    ring: Ring,
    link: ActorLink,
    syncer: SyncerLink,
    ready: ActorReady,
    { keys, logId, key }: LogKeys,
  ) {
    this.#directory = directory;
    this.#options = options;
    this.#lock = lock;
    this.#keys = keys;
    this.#logId = logId;
    this.#key = key;
    this.#link = link;
    this.#syncer = syncer;
    this.control = control;
    this.report = ready.report;
    this.#state = ready.state;
    this.#leftSpares = ready.spares;
    this.#leftUnfinished = ready.unfinished;
    this.#obsolete = ready.obsolete;
    this.#pool = new Pool(options.encoders);
    this.#compactor = this.#newCompactor();
    this.commits = new Commits(
      control,
      (event) => this.#listener.commit(event),
      (busy) => link.hold('waiters', busy),
    );
    const { maxRecordBytes, segmentBytes } = options;
    // A frame lies in one segment: small segments want small frames, to be filled well and not to be outgrown.
    const frameBytes = Math.min(options.frameBytes, segmentBytes / 4);
    this.#appenderOptions = { ...howToEncode(options), frameBytes, maxRecordBytes };
    this.appender = new Appender(ring, control, this.#ringOptions(), {
      encode: (frame, how) => this.#encode(ring, frame, how),
      hold: (busy) => link.hold('appends', busy),
      idle: () => this.#idle(),
      backpressure: (waiting) => this.#listener.backpressure(waiting),
    });
    this.writer = new RecordWriter(this.appender, control, options.level);
    link.listen({
      wake: () => this.#woken(),
      rotated: ({ current, sealed }) => {
        if (sealed === undefined) return;
        this.#listener.rotated(current, sealed);
        this.#compactIfWorthIt();
      },
      ringDropped: (id) => {
        forgetLifeLine(this.#channels.get(id)!);
        this.#channels.delete(id);
      },
      wantSpare: () => this.#background(() => this.#provideSpare()),
      wantSyncer: () => !this.#closing && syncer.start(),
      died: () => this.#actorDied(),
    });
    const left = this.#leftUnfinished.filter(isCompacting);
    if (left.length > 0) this.#background(() => this.#pool.maintain({ op: 'discard', directory, names: left }));
    this.#leftUnfinished = this.#leftUnfinished.filter((name) => !isCompacting(name));
    if (this.#obsolete.length > 0 && options.autoCleanup) this.#background(() => this.#retire());
  }

  /** Takes over from here on; called before any event can arrive. */
  listen(listener: CoordinatorListener): void {
    this.#listener = listener;
  }

  get state(): LogState {
    return this.#state;
  }

  /** The log for readers of this process: what is committed, shared memory tells. */
  logSource(catalog: Catalog): LogSource & { close(): Promise<void> } {
    const { control } = this;
    const watermark = (level: number) => Math.min(control.watermark(level), this.#cut?.lsn ?? Number.POSITIVE_INFINITY);
    const os = () => watermark(Level.Os);
    this.#catalog = catalog;
    return {
      catalog,
      keys: this.#keys,
      low: () => this.#state.low,
      promised: () => Math.min(os(), this.#unsureAbove),
      readable: async () => os(),
      liveEnd: (id) => (control.get(Counter.segmentId) === id ? control.get(Counter.segmentOffset) : undefined),
      liveIndex: (segmentId) => this.#liveIndex(segmentId),
      followed: () => this.commits.follow(),
      watermark,
      reached: async (level, lsn, signal) => {
        try {
          if (this.#cut !== undefined) await either(this.#cut.done, signal);
          if (lsn > this.#unsureAbove) throw this.#link.failure();
          if (!this.#closing) await this.waitFor(level, lsn, signal, true);
        } catch (error) {
          if (!(error instanceof WalError) || error.code !== 'ERR_WAL_CLOSED') throw error;
          return false;
        }
        return !this.#closing;
      },
      close: async () => {},
    };
  }

  async #liveIndex(segmentId: number): Promise<readonly IndexEntry[] | undefined> {
    if (this.#closing || this.control.phase !== LogPhase.Running) return undefined;
    return this.#link.request<IndexEntry[] | undefined>({ op: 'liveIndex', segmentId });
  }

  /** Everything appended before this call, in any thread, is on disk when it resolves. */
  async sync(): Promise<void> {
    await this.appender.flushed();
    await Promise.all(this.#encoding);
    await this.#link.request({ op: 'sync' });
  }

  waitFor(level: number, lsn: number, signal?: AbortSignal, reader = false): Promise<void> {
    const reached = this.commits.waitFor(level, lsn, signal, reader);
    // Nothing moves any more: what has not been reached never will be.
    if (this.control.phase === LogPhase.Failed) this.commits.rejectAll(this.#link.failure());
    return reached;
  }

  /** Rewrites the sealed segments without what no replay needs. */
  compact(options?: CompactOptions): Promise<CompactionReport> {
    return this.#compactor.compact(options);
  }

  #compactIfWorthIt(): void {
    const { autoCompact } = this.#options;
    if (autoCompact === 0 || this.#closing || this.control.phase !== LogPhase.Running) return;
    this.#compactor.compactIfWorthIt(autoCompact).catch((error) => {
      if (!this.#closing) this.#listener.trouble(error);
    });
  }

  #newCompactor(): Compactor {
    return new Compactor({
      directory: this.#directory,
      segmentBytes: this.#options.segmentBytes,
      control: this.control.memory,
      encryption: () => this.#encryptionForTasks(),
      request: (request) => this.#link.request(request),
      run: (task) => this.#pool.maintain(task),
      exclusively: (work) => this.#pool.exclusively(work),
      setState: (state) => {
        this.#state = state;
      },
      done: (report) => this.#listener.compacted(report),
      retire: async (names) => {
        this.#obsolete.push(...names);
        await this.#retire();
      },
    });
  }

  /** Keys for a thread of the pool, for the time of its task. */
  async #encryptionForTasks(): Promise<TaskEncryption | undefined> {
    if (this.#key === undefined) return undefined;
    await this.#keys.load(this.#logId, this.#state.encryption);
    const { id, checkValue } = this.#key;
    const state = withKey(this.#state, this.#logId, id, checkValue).encryption!;
    return { logId: this.#logId, keys: this.#keys.exported(), current: id, state };
  }

  rotate(): Promise<void> {
    return this.#pool.exclusively(async () => {
      await this.appender.flushed();
      await Promise.all(this.#encoding);
      const key = await this.#keys.forWriting(this.#logId, this.#state.encryption);
      this.#state = await this.#link.request<LogState>({ op: 'rotate', key: key && actorKey(key) });
      if (key !== undefined && key.id !== this.#key?.id) this.#writeWith(key);
    });
  }

  /** The log knows the key by now, durably. Frames that were encrypted before are as good as ever: each names its key. */
  #writeWith(key: WritingKey): void {
    this.#key = key;
    this.appender.setKey(this.#ringKey()!);
    for (const name of this.#channels.values()) {
      const channel = new BroadcastChannel(name);
      channel.postMessage({ key: this.#ringKey()! } satisfies ProducerMessage);
      channel.close();
    }
  }

  /** For one ring alone, whose counter begins anew with it. */
  #ringKey(): RingKey | undefined {
    return this.#key && makeRingKey(this.#key.id, this.#key.key, randomBytes(SALT_BYTES));
  }

  #ringOptions(): AppenderOptions {
    return { ...this.#appenderOptions, key: this.#ringKey() };
  }

  checkpoint(lsn: number): Promise<void> {
    return this.#pool.exclusively(async () => {
      checkFirstCheckpoint(this.#state, lsn);
      this.#state = await this.#link.request<LogState>({ op: 'checkpoint', lsn });
    });
  }

  /** Drops every record above `lsn`, durably. `before` is called once readers get nothing above it any more. */
  truncateAfter(lsn: number, before: () => Promise<void>): Promise<void> {
    return this.#pool.exclusively(async () => {
      checkCut(this.#state, lsn);
      await this.#withReadersHeldAt(lsn, async () => {
        await before();
        // What was there before the cut must be known, or the cut is none to the readers.
        await this.#catalog?.refresh();
        const request = { op: 'truncateAfter', lsn } as const;
        const { state, gone } = await this.#link.request<{ state: LogState; gone: SegmentInfo[] }>(request);
        this.#state = state;
        this.#obsolete.push(...gone.map((segment) => segment.name));
        // The cut is made. If the directory cannot be read now, the next read tries again, and says so.
        await this.#catalog?.refresh().catch(ignore);
        this.commits.wentBack(lsn);
      });
      await this.#retire();
    });
  }

  /**
   * Others may append behind the cut before this thread hears that it was made. A reader that took the new watermark for
   * the old records would deliver what is void.
   */
  async #withReadersHeldAt(lsn: number, work: () => Promise<void>): Promise<void> {
    let over: () => void = ignore;
    this.#cut = {
      lsn,
      done: new Promise((resolve) => {
        over = resolve;
      }),
    };
    try {
      await work();
    } finally {
      if (this.control.phase === LogPhase.Failed) this.#unsureAbove = lsn;
      this.#cut = undefined;
      over();
    }
  }

  /** Notes positions of subscriptions; resolves once they survive the death of the process. */
  async notePositions(positions: Positions): Promise<void> {
    this.#state = await this.#link.request<LogState>({ op: 'positions', positions });
  }

  /** Takes a step of a transaction; resolves, to the LSN of a commit, once it survives the death of the process. */
  async noteTransaction(note: TransactionNote): Promise<number> {
    const { lsn, state } = await this.#link.request<{ lsn: number; state: LogState }>({ op: 'transaction', note });
    this.#state = state;
    return lsn;
  }

  /** Everything that the actor has taken by now is on disk when it resolves. */
  async syncTaken(): Promise<void> {
    await this.#link.request({ op: 'sync' });
  }

  /** A close that comes meanwhile waits for this work, which may still append. */
  underWay<T>(work: Promise<T>): Promise<T> {
    this.#underWay.add(work);
    const over = () => this.#underWay.delete(work);
    work.then(over, over);
    return work;
  }

  /** Sizes in bytes of what appends are made of. */
  get sizes(): AppenderOptions {
    return this.#appenderOptions;
  }

  /** `recycle`: whether files may be written over, which nobody may be reading then. */
  cleanup(recycle: () => boolean): Promise<Retired> {
    return this.#pool.exclusively(async () => {
      const { state, gone } = await this.#link.request<{ state: LogState; gone: SegmentInfo[] }>({ op: 'cleanup' });
      this.#state = state;
      this.#obsolete.push(...gone.map((segment) => segment.name));
      return this.#retire(recycle() && !this.#compactor.busy);
    });
  }

  producer(): ProducerHandle {
    const ring = Ring.allocate(this.#options.ringBytes);
    const handle = makeHandle(ring, this.control, this.#options.level, this.#ringOptions());
    const id = this.#nextRing++;
    this.#channels.set(id, handle.channel);
    expectLifeLine(handle.channel, () => {
      if (this.control.phase === LogPhase.Running) void this.#link.request({ op: 'dropRing', id }).catch(() => {});
    });
    void this.#link.request({ op: 'addRing', id, ring: ring.memory, channel: handle.channel }).catch(() => {});
    return handle;
  }

  async close(): Promise<void> {
    this.#closing = true;
    this.writer.refuse(closedError());
    await Promise.allSettled(this.#underWay);
    await this.appender.settled();
    await this.#compactor.close();
    await this.#pool.close();
    const failure = await this.#link.close().catch((error: unknown) => error);
    await this.#syncer.close();
    for (const channel of this.#channels.values()) forgetLifeLine(channel);
    this.commits.look();
    this.commits.rejectAll(closedError());
    this.#lock.release();
    // Everything was let go of; but whoever relied on close to make records durable must know.
    if (failure !== undefined) throw failure;
  }

  #encode(ring: Ring, frame: number, how: () => FrameEncoding | undefined): void {
    const done = this.#pool.encode(ring, this.control, frame, how);
    this.#encoding.add(done);
    void done.finally(() => this.#encoding.delete(done));
  }

  #woken(): void {
    this.appender.wake();
    this.commits.look();
    if (this.control.phase === LogPhase.Failed) this.#tellFailure();
  }

  /** The process may end now: first whoever listens hears of what became of the appends that were just settled. */
  #idle(): void {
    if (this.commits.interested) this.commits.look();
    if (this.control.phase === LogPhase.Failed) this.#tellFailure();
  }

  #tellFailure(): void {
    if (this.#failureTold) return;
    this.#failureTold = true;
    const error = this.#link.failure();
    this.commits.rejectAll(error);
    this.#listener.failed(error);
  }

  /** Nobody is left to wake the producers but this thread. */
  #actorDied(): void {
    for (const name of this.#channels.values()) {
      const channel = new BroadcastChannel(name);
      channel.postMessage(0);
      channel.close();
    }
    this.#woken();
  }

  async #provideSpare(): Promise<void> {
    let spare: Spare | undefined;
    const { segmentBytes } = this.#options;
    const directory = this.#directory;
    try {
      if (this.#leftSpares.length + this.#leftUnfinished.length > 0) {
        const left = { spares: this.#leftSpares, unfinished: this.#leftUnfinished };
        this.#leftSpares = [];
        this.#leftUnfinished = [];
        spare = await this.#pool.maintain<Spare | undefined>({ op: 'adopt', directory, segmentBytes, ...left });
      }
      spare ??= await this.#pool.maintain<Spare>({ op: 'prepare', directory, bytes: segmentBytes });
    } catch (error) {
      // No room: the actor meets it when it needs the segment, and tells the appends. Anything else is worth saying.
      if ((error as WalError).code !== 'ERR_WAL_NO_SPACE') throw error;
    } finally {
      await this.#link.request({ op: 'addSpare', spare }).catch(() => {});
    }
  }

  async #retire(recycle = false): Promise<Retired> {
    if (this.#obsolete.length === 0) return { segments: 0, bytes: 0, spares: [] };
    const names = [...this.#obsolete];
    const { segmentBytes } = this.#options;
    const retired = await this.#pool.maintain<Retired>({
      op: 'retire',
      directory: this.#directory,
      names,
      recycle: recycle ? 1 : 0,
      segmentBytes,
    });
    this.#obsolete = this.#obsolete.filter((name) => !names.includes(name));
    for (const spare of retired.spares) await this.#link.request({ op: 'addSpare', spare });
    return retired;
  }

  #background(work: () => Promise<unknown>): void {
    if (this.#closing) return;
    this.#pool.exclusively(work).catch((error) => this.#listener.trouble(error));
  }
}

function ignore(): void {}

interface LogKeys {
  keys: KeyRing;
  /** Of a log that has no segment yet, or of which nothing tells it: the one that it will have. */
  logId: Uint8Array;
  key: WritingKey | undefined;
}

/** The keys of a log that is about to be opened for writing. `ERR_WAL_KEY` when they are not the right ones. */
async function takeKeys(directory: string, options: ResolvedOptions): Promise<LogKeys> {
  const keys = new KeyRing(options.keySource);
  const { recoveryMode, signal } = options;
  const known = await knownKeys(new NodeStorage(directory), readsDamaged(recoveryMode), signal);
  const { logId = randomBytes(16), encryption } = known ?? {};
  await keys.unlock(logId, encryption);
  return { keys, logId, key: await keys.forWriting(logId, encryption) };
}

function actorKey({ id, checkValue, headerKey }: WritingKey): ActorKey {
  return { id, checkValue, headerKey };
}

/** A frame that is to be compressed is worth waiting for: the larger, the smaller it gets. */
const COMPRESSED_PUBLISH_BYTES = 128 * 1024;

function howToEncode({ codec, keySource, poolPays }: ResolvedOptions) {
  const plain = codec === Codec.None && keySource === undefined;
  const paying = plain ? POOL_FRAME_BYTES : codec === Codec.None ? POOL_ENCRYPT_BYTES : COMPRESS_BYTES;
  const encodeBytes = poolPays ? paying : CROWDED_POOL_FRAME_BYTES;
  return codec === Codec.None ? { codec, encodeBytes } : { codec, encodeBytes, publishBytes: COMPRESSED_PUBLISH_BYTES };
}

/** Resolves once the promise does; rejects with the reason of a signal that fires before. */
function either(promise: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const settled = signal && onAbort(signal, () => reject(signal.reason));
    void promise.then(() => {
      settled?.();
      resolve();
    });
  });
}
