import fs from 'node:fs';
import path from 'node:path';
import type { CommitEvent } from './coordinator/commits.js';
import type { CompactionReport, CompactOptions } from './coordinator/compactor.js';
import { Coordinator } from './coordinator/coordinator.js';
import { GuardedEmitter } from './coordinator/guarded-emitter.js';
import { type OpenOptions, type ResolvedOptions, resolveOptions } from './coordinator/options.js';
import { invalidArgument, WalError } from './errors.js';
import { KeyRing } from './format/key-ring.js';
import { LEVEL_NAMES, Level, levelNumber } from './format/levels.js';
import type { LogState } from './format/state.js';
import {
  applier,
  checkTarget,
  type RecoverTarget,
  type Replayed,
  type ReplayHandler,
  replayed,
  replayInto,
  utf8Key,
} from './kv/replay.js';
import type { Transaction } from './kv/transaction.js';
import {
  listPrepared,
  type PreparedTransaction,
  preparedIn,
  Transactions,
  type TransactionsHost,
} from './kv/transactions.js';
import {
  type AppendOptions,
  type BatchOperation,
  checkLevel,
  checkLsn,
  checkOptions,
  checkSignal,
  closedError,
  describe,
} from './producer/arguments.js';
import type { ProducerHandle } from './producer/connect.js';
import type { LsnRange } from './producer/producer.js';
import { Catalog } from './reader/catalog.js';
import { decodeForReplay, type FrameDecoder } from './reader/decode-frame.js';
import { nodeFiles } from './reader/files.js';
import { FilesSource } from './reader/files-source.js';
import { LogCursor } from './reader/log-cursor.js';
import type { LogSource } from './reader/log-source.js';
import { type ReadProgress, type ReadRequest, readLog } from './reader/read-log.js';
import { Reader } from './reader/reader.js';
import { filesOf } from './reader/storage-files.js';
import { type TransactionPlace, transactionRecords } from './reader/transaction-records.js';
import { inspectLive } from './recovery/inspect-live.js';
import { knownKeys, readsDamaged } from './recovery/known-keys.js';
import { openError, type Recovered, type RecoveryReport } from './recovery/recover.js';
import { salvageLog } from './recovery/salvage.js';
import { Counter } from './ring/control.js';
import { LOCK_NAME, segmentIdOf } from './segments/names.js';
import { NodeStorage, syncDirectory } from './storage/node-storage.js';
import type { SubscribeOptions, Subscription } from './subscriptions/subscription.js';
import { type SubscriptionStats, Subscriptions } from './subscriptions/subscriptions.js';
import type { Bytes, Durability, Lsn, WalRecord } from './types.js';

export interface ReadOptions {
  /** The first LSN to deliver, or the time from which on. Default: the first that there is. */
  from?: Lsn | Date;
  /** The last LSN to deliver, or the time up to which. Default: what is committed at `os` when the read begins. */
  to?: Lsn | Date;
  /** Wait for more instead of ending; each record is delivered once it is committed at `level`. Default: false. */
  follow?: boolean;
  /** For `follow`. What is committed at `memory` can be read once it is written, so `memory` means `os`. Default: `disk`. */
  level?: Durability;
  /** Ends the read by throwing the signal's reason. */
  signal?: AbortSignal;
  /** Called after each batch. */
  onProgress?: (progress: ReadProgress) => void;
}

export interface ReplayOptions extends Omit<ReadOptions, 'follow' | 'level'> {}

export interface RecoverOptions extends ReplayOptions {
  /** `utf8`: keys are strings. `buffer`: keys are Uint8Arrays. Default: `utf8`. */
  keyEncoding?: 'utf8' | 'buffer';
}

export interface CleanupResult {
  segments: number;
  bytes: number;
}

export interface Latency {
  p50: number;
  p90: number;
  p99: number;
  max: number;
}

export interface WalStats {
  watermarks: Record<'memory' | 'os' | 'disk', Lsn>;
  firstLsn: Lsn;
  checkpoint: Lsn;
  segments: number;
  /** Bytes of the segment files. */
  bytes: number;
  /** Records written since the log was opened, in all threads. */
  records: number;
  /** Groups written since then: each is one write. */
  commits: number;
  syncs: number;
  recordsPerSync: number;
  /** Appends of this thread that wait for room in the ring. */
  queueDepth: number;
  /** Appends of this thread whose promise is not settled. */
  inFlight: number;
  /** This thread's ring, in bytes. */
  ring: { bytes: number; used: number };
  subscriptions: SubscriptionStats[];
  /** Transactions that are prepared, and neither committed nor aborted. */
  preparedTransactions: number;
  /** From append to commit, in milliseconds, by frames of this thread. */
  latencyMs: Record<'memory' | 'os' | 'disk', Latency>;
}

type CommitListener = (event: CommitEvent) => void;

export interface WalEvents {
  commit: CommitListener;
  'commit:memory': CommitListener;
  'commit:os': CommitListener;
  'commit:disk': CommitListener;
  'commit:replicated': CommitListener;
  /** A segment was sealed and the next one began. */
  rotate: (event: { segment: string; firstLsn: Lsn; sealed: string; lastLsn: Lsn }) => void;
  checkpoint: (event: { lsn: Lsn }) => void;
  cleanup: (event: CleanupResult) => void;
  /** The sealed segments were compacted. */
  compact: (event: CompactionReport) => void;
  /** Appends of this thread began to wait for room in the ring. */
  backpressure: (event: { queueDepth: number }) => void;
  /** And now they all fit. */
  drain: () => void;
  close: () => void;
  error: (error: Error) => void;
}

/** How much a lookup reads at once: twice the distance of the sparse index. */
const LOOKUP_BYTES = 128 * 1024;

/** Closing or reading only: why nothing can be written. */
function readOnlyError(): WalError {
  return new WalError('ERR_WAL_READ_ONLY', 'The log was opened with readOnly: true. Open it without to write.');
}

/**
 * A write-ahead log: many producers in, one order on disk, commit events out, everything promised back after a crash.
 *
 * Every method that fails rejects with a `WalError`, whose `code` is stable.
 */
export class WriteAheadLog extends GuardedEmitter<WalEvents> {
  /** What `open` found in the directory. */
  readonly recovery: RecoveryReport;
  /** The log's directory, as an absolute path. */
  readonly directory: string;
  readonly #options: ResolvedOptions;
  /** Undefined when the log is read only. */
  readonly #coordinator: Coordinator | undefined;
  readonly #recovered: Recovered | undefined;
  /** Undefined when the log is read only. */
  readonly #transactions: Transactions | undefined;
  readonly #source: LogSource & { close(): Promise<void> };
  #closing: Promise<void> | undefined;
  /** The clean-up that follows a checkpoint by itself, if one is under way. */
  #automaticCleanup: Promise<CleanupResult> | undefined;
  #activeReads = 0;
  readonly #subscriptions = new Subscriptions({
    state: () => this.#state,
    first: () => Math.max(this.#state.low, this.#coordinator?.control.get(Counter.firstLsn) ?? 1),
    last: (level) => this.watermark(level),
    follow: (from, level, signal) => this.read({ from, follow: true, level, signal }),
    write: (positions) => this.#writable().notePositions(positions),
    sync: () => this.sync(),
  });

  private constructor(
    directory: string,
    options: ResolvedOptions,
    source: Coordinator | Recovered,
    files = nodeFiles(directory),
    keys = new KeyRing(undefined),
  ) {
    super();
    this.directory = directory;
    this.#options = options;
    const known = source instanceof Coordinator ? undefined : (source.segments.at(-1)?.id ?? 0);
    const catalog = new Catalog(files, known);
    this.recovery = source.report;
    if (!(source instanceof Coordinator)) {
      this.#recovered = source;
      this.#source = new FilesSource(directory, catalog, source, keys);
      return;
    }
    this.#coordinator = source;
    this.#source = source.logSource(catalog);
    this.#transactions = new Transactions(transactionsHost(source, options));
    source.listen({
      commit: (event) => this.#committed(event),
      rotated: (current, sealed) => {
        const { name: segment, firstLsn } = current;
        this.emit('rotate', { segment, firstLsn, sealed: sealed.name, lastLsn: sealed.lastLsn });
      },
      compacted: (report) => this.emit('compact', report),
      backpressure: (waiting) => this.#backpressure(waiting),
      failed: (error) => this.report(error),
      trouble: (error) => this.report(error),
    });
  }

  /**
   * Opens the log in a directory: creates it, or recovers what is in it. One writer per directory: a second open, in
   * any process or thread, rejects with `ERR_WAL_LOCKED`. Damage to anything that was promised rejects with
   * `ERR_WAL_CORRUPT`, and leaves everything as it is.
   */
  static async open(directory: string, options: OpenOptions = {}): Promise<WriteAheadLog> {
    if (typeof directory !== 'string' || directory === '' || directory.includes('\0')) {
      throw invalidArgument(`directory must be a path, not ${describe(directory)}.`);
    }
    const resolved = resolveOptions(options);
    resolved.signal?.throwIfAborted();
    const absolute = path.resolve(directory);
    try {
      prepareDirectory(absolute, resolved);
      if (resolved.readOnly) return await openReadOnly(absolute, resolved);
      return new WriteAheadLog(absolute, resolved, await Coordinator.open(absolute, resolved));
    } catch (error) {
      if (resolved.signal?.aborted && error === resolved.signal.reason) throw error;
      throw openError(error, absolute);
    }

    async function openReadOnly(at: string, how: ResolvedOptions): Promise<WriteAheadLog> {
      const startedAt = performance.now();
      const storage = new NodeStorage(at);
      const keys = new KeyRing(how.keySource);
      const known = await knownKeys(storage, readsDamaged(how.recoveryMode), how.signal);
      if (known !== undefined) await keys.unlock(known.logId, known.encryption);
      const { recovered, view } =
        how.recoveryMode === 'salvage'
          ? await salvageLog(storage, how.onProgress, how.signal, keys)
          : { recovered: await inspectLive(storage, how.recoveryMode), view: undefined };
      recovered.report.durationMs = performance.now() - startedAt;
      return new WriteAheadLog(at, how, recovered, view && filesOf(view), keys);
    }
  }

  /**
   * Appends one opaque record of at most `maxRecordBytes` (strings count in UTF-8). Resolves to its LSN once it is as
   * durable as `options.durability` says. The caller may reuse the buffer as soon as the call returns.
   */
  append(payload: Bytes, options?: AppendOptions): Promise<Lsn> {
    return this.#coordinator?.writer.append(payload, options) ?? Promise.reject(this.#cannotWrite());
  }

  /** Appends records atomically: after any crash all of them are there or none. Their LSNs are consecutive. */
  appendMany(payloads: Iterable<Bytes>, options?: AppendOptions): Promise<LsnRange> {
    return this.#coordinator?.writer.appendMany(payloads, options) ?? Promise.reject(this.#cannotWrite());
  }

  put(key: Bytes, value: Bytes, options?: AppendOptions): Promise<Lsn> {
    return this.#coordinator?.writer.put(key, value, options) ?? Promise.reject(this.#cannotWrite());
  }

  delete(key: Bytes, options?: AppendOptions): Promise<Lsn> {
    return this.#coordinator?.writer.delete(key, options) ?? Promise.reject(this.#cannotWrite());
  }

  /** Removes every key: what was put before is hidden from a replay. */
  clear(options?: AppendOptions): Promise<Lsn> {
    return this.#coordinator?.writer.clear(options) ?? Promise.reject(this.#cannotWrite());
  }

  /** Puts and deletes, atomically. */
  batch(operations: BatchOperation[], options?: AppendOptions): Promise<LsnRange> {
    return this.#coordinator?.writer.batch(operations, options) ?? Promise.reject(this.#cannotWrite());
  }

  /** The same as `put(key, value, { durability: level })`. */
  writeWithDurability(key: Bytes, value: Bytes, level: Durability): Promise<Lsn> {
    return this.put(key, value, { durability: level });
  }

  /** Begins a transaction. Nothing of it is in the log before its `commit` or `prepare`. */
  transaction(): Transaction {
    if (this.#closing !== undefined || this.#transactions === undefined) throw this.#cannotWrite();
    return this.#transactions.begin();
  }

  /**
   * The transactions that are prepared, in this run or an earlier one, and neither committed nor aborted. They stay so,
   * and keep their operations from being cleaned up, until somebody decides. With `readOnly`: those that were in doubt when
   * the log was opened.
   */
  async preparedTransactions(): Promise<PreparedTransaction[]> {
    this.#checkOpen();
    return listPrepared(
      () => this.#state,
      (place) => this.#readTransaction(place),
    );
  }

  /**
   * Commits a prepared transaction; resolves to the LSN of the commit, at which a replay shows its operations. Unknown, or
   * decided already: `ERR_WAL_TRANSACTION`. Its durability is `disk`, unless `options` say otherwise.
   */
  commitPrepared(id: string, options?: AppendOptions): Promise<Lsn> {
    return this.#transactions?.commitPrepared(id, options) ?? Promise.reject(this.#cannotWrite());
  }

  /** Aborts a prepared transaction: it never appears in a replay. Otherwise as `commitPrepared`. */
  abortPrepared(id: string, options?: AppendOptions): Promise<void> {
    return this.#transactions?.abortPrepared(id, options) ?? Promise.reject(this.#cannotWrite());
  }

  /** Resolves, to the `disk` watermark, once everything appended before this call, in any thread, is on disk. */
  async sync(): Promise<Lsn> {
    await this.#writable().sync();
    return this.watermark('disk');
  }

  /** Resolves once the watermark of `level` has reached `lsn`. It makes nothing durable by itself. */
  async waitFor(lsn: Lsn, level: Durability, options: { signal?: AbortSignal } = {}): Promise<void> {
    checkLsn(lsn);
    const number = checkLevel(level);
    checkOptions(options);
    if (options.signal !== undefined) checkSignal(options.signal);
    await this.#writable().waitFor(number, lsn, options.signal);
  }

  /** The highest LSN committed at a level; 0 before the first, and for `replicated` without a replica. */
  watermark(level: Durability): Lsn {
    const number = levelNumber(level);
    if (number < 0)
      throw invalidArgument(`level must be 'memory', 'os', 'disk' or 'replicated', not ${describe(level)}.`);
    if (this.#coordinator !== undefined) return this.#coordinator.control.watermark(number);
    return level === 'replicated' ? 0 : this.recovery.lastLsn;
  }

  /**
   * Records in order, from `from` to `to` inclusive; with `follow`, also those that are still to come. An LSN below the
   * first reads as `ERR_WAL_TRUNCATED`, damage as `ERR_WAL_CORRUPT` with its place; the read ends, the log goes on.
   * Closing the log ends a following read quietly.
   */
  read(options: ReadOptions = {}): Reader {
    return this.#reader(options);
  }

  /**
   * One record, without a scan of the log. Above the last, or compacted away: `ERR_WAL_NOT_FOUND`; below the clean-up:
   * `ERR_WAL_TRUNCATED`.
   */
  async get(lsn: Lsn): Promise<WalRecord> {
    checkLsn(lsn);
    this.#checkOpen();
    const isThere = lsn <= (await this.#source.readable());
    const records = isThere ? await this.#lookUp(lsn) : undefined;
    if (records?.[0]?.lsn === lsn) return records[0];
    if (isThere) {
      const message = `LSN ${lsn} is not in the log any more: it was compacted away, or lost to damage.`;
      throw new WalError('ERR_WAL_NOT_FOUND', message, { lsn });
    }
    throw new WalError(
      'ERR_WAL_NOT_FOUND',
      `There is no record with LSN ${lsn}; the log ends at LSN ${this.watermark('os')}.`,
      { lsn },
    );
  }

  /** Committed key-value operations in order, from the checkpoint on. */
  replay(options?: ReplayOptions): AsyncGenerator<Replayed, void, undefined>;
  /** The same, handed to a function; resolves to how many there were. A promise that the handler returns is awaited. */
  replay(handler: ReplayHandler, options?: ReplayOptions): Promise<number>;
  replay(
    first?: ReplayHandler | ReplayOptions,
    second?: ReplayOptions,
  ): AsyncGenerator<Replayed, void, undefined> | Promise<number> {
    const handler = typeof first === 'function' ? first : undefined;
    const options = handler === undefined ? (first as ReplayOptions | undefined) : second;
    const batches = () => {
      if (options !== undefined) checkOptions(options);
      const { from = this.#state.checkpoint + 1, ...rest } = options ?? {};
      return this.#reader({ ...rest, from, follow: false }, decodeForReplay).batches();
    };
    const read = (place: TransactionPlace) => this.#readTransaction(place);
    if (handler === undefined) return replayed(batches(), read);
    return (async () => replayInto(batches(), read, handler))();
  }

  /** Replays into a Map, or anything with `set`, `delete` and `clear`. */
  async recover<K = string>(target: RecoverTarget<K>, options: RecoverOptions = {}): Promise<RecoveryReport> {
    checkTarget(target);
    checkOptions(options);
    const { keyEncoding = 'utf8', ...range } = options;
    if (keyEncoding !== 'utf8' && keyEncoding !== 'buffer') {
      throw invalidArgument(`keyEncoding must be 'utf8' or 'buffer', not ${describe(keyEncoding)}.`);
    }
    const keyOf = keyEncoding === 'utf8' ? utf8Key : (key: Uint8Array) => key;
    await this.replay(applier(target as RecoverTarget<unknown>, keyOf), range);
    return this.recovery;
  }

  /** A plain object to hand to another thread, once, for `connect` there. */
  producer(): ProducerHandle {
    return this.#writable().producer();
  }

  /** Seals the current segment and starts the next; nothing happens while it holds no records. */
  async rotate(): Promise<void> {
    await this.#writable().rotate();
  }

  /** Durably records that the state up to `lsn` is safe outside the log. A checkpoint never goes back. */
  async checkpoint(lsn: Lsn): Promise<void> {
    checkLsn(lsn, 'lsn', 0);
    const coordinator = this.#writable();
    // What is sequenced may be checkpointed: the request drains the rings, so it reaches the disk first.
    const last = this.watermark('memory');
    if (lsn > last) throw invalidArgument(`A checkpoint at LSN ${lsn} is ahead of the log, which ends at LSN ${last}.`);
    if (lsn < this.#state.checkpoint) {
      throw invalidArgument(`A checkpoint at LSN ${lsn} is behind the one at LSN ${this.#state.checkpoint}.`);
    }
    await coordinator.checkpoint(lsn);
    this.emit('checkpoint', { lsn });
    if (!this.#options.autoCleanup || this.#closing !== undefined) return;
    const cleanup = this.#cleanup(coordinator);
    this.#automaticCleanup = cleanup;
    void cleanup
      .catch((error) => this.report(error))
      .finally(() => {
        if (this.#automaticCleanup === cleanup) this.#automaticCleanup = undefined;
      });
  }

  /**
   * Drops every record above `lsn`, durably: nothing of it ever comes back, and the next record gets `lsn + 1`. Positions
   * of subscriptions above it go back to it. Below the checkpoint: `ERR_WAL_INVALID_ARGUMENT`; below the clean-up:
   * `ERR_WAL_TRUNCATED`. Readers that are past it end with `ERR_WAL_TRUNCATED`.
   */
  async truncateAfter(lsn: Lsn): Promise<void> {
    checkLsn(lsn, 'lsn', 0);
    const coordinator = this.#writable();
    const last = this.watermark('os');
    if (lsn > last) throw invalidArgument(`The log ends at LSN ${last}; there is nothing to cut after LSN ${lsn}.`);
    if (lsn < this.#state.low - 1) {
      throw new WalError(
        'ERR_WAL_TRUNCATED',
        `LSN ${lsn} was cleaned up; the log begins at LSN ${this.#state.low} now.`,
        { lsn },
      );
    }
    if (lsn < this.#state.checkpoint) {
      throw invalidArgument(
        `LSN ${lsn} is behind the checkpoint at LSN ${this.#state.checkpoint}, which cannot go back.`,
      );
    }
    await this.#subscriptions.cut(lsn, (before) => coordinator.truncateAfter(lsn, before));
  }

  /**
   * Opens a named, durable consumer, and makes it if it does not exist. One at a time of a name in one process.
   * See {@link Subscription}.
   */
  async subscribe(name: string, options?: SubscribeOptions): Promise<Subscription> {
    this.#writable();
    return this.#subscriptions.subscribe(name, options);
  }

  /** Forgets a subscription, so that clean-up no longer waits for it. Unknown: `ERR_WAL_NOT_FOUND`. */
  async unsubscribe(name: string): Promise<void> {
    this.#writable();
    await this.#subscriptions.unsubscribe(name);
  }

  /** Removes or recycles the segments wholly below the checkpoint. Joins the automatic one when that is under way. */
  async cleanup(): Promise<CleanupResult> {
    const coordinator = this.#writable();
    return this.#automaticCleanup ?? this.#cleanup(coordinator);
  }

  /**
   * Rewrites the sealed segments, so that of the key-value operations only those remain that still matter: the last one
   * of each key, and deletes that hide something. Opaque records stay, LSNs and times stay; an LSN that is gone reads as
   * `ERR_WAL_NOT_FOUND`, and readers go on with the next. A crash at any moment leaves the old segments or the new ones.
   *
   * Afterwards the log can be cut (`truncateAfter`) no further back than what was compacted. When nothing was ever
   * checkpointed, deletes go too, and the first checkpoint must not lie below them.
   *
   * While one is under way, others wait for it and share the next. Rejects with `ERR_WAL_CORRUPT` at damage and
   * `ERR_WAL_NO_SPACE` on a full disk: what was not rewritten by then is as it was. `close` ends it with `ERR_WAL_CLOSED`.
   */
  async compact(options: CompactOptions = {}): Promise<CompactionReport> {
    const coordinator = this.#writable();
    checkOptions(options);
    const { signal, onProgress } = options;
    if (signal !== undefined) checkSignal(signal);
    if (onProgress !== undefined && typeof onProgress !== 'function')
      throw invalidArgument('onProgress must be a function.');
    return coordinator.compact({ signal, onProgress });
  }

  /** A plain snapshot of what the log does. */
  stats(): WalStats {
    const { control, appender } = this.#writable();
    const records = control.get(Counter.records);
    const syncs = control.get(Counter.syncs);
    const growing = control.get(Counter.growing);
    const latency = (level: number): Latency => {
      const histogram = appender.latency[level];
      const ms = (ns: number) => (histogram.count === 0 ? 0 : ns / 1e6);
      const percentile = (p: number) => ms(histogram.percentile(p));
      return { p50: percentile(50), p90: percentile(90), p99: percentile(99), max: ms(histogram.max) };
    };
    return {
      watermarks: { memory: this.watermark('memory'), os: this.watermark('os'), disk: this.watermark('disk') },
      firstLsn: control.get(Counter.firstLsn),
      checkpoint: this.#state.checkpoint,
      segments: control.get(Counter.segments),
      bytes:
        control.get(Counter.fileBytes) + (growing === 0 ? 0 : Math.max(growing, control.get(Counter.segmentOffset))),
      records,
      commits: control.get(Counter.groups),
      syncs,
      recordsPerSync: syncs === 0 ? 0 : records / syncs,
      queueDepth: appender.queued,
      inFlight: appender.inFlight,
      ring: { bytes: appender.ring.dataBytes, used: appender.ringUse },
      subscriptions: this.#subscriptions.stats(),
      preparedTransactions: preparedIn(this.#state).length,
      latencyMs: { memory: latency(0), os: latency(1), disk: latency(2) },
    };
  }

  /**
   * Drains, syncs, seals, stops the threads. Idempotent. Afterwards everything rejects with `ERR_WAL_CLOSED`.
   * Rejects with `ERR_WAL_FAILED` when the end of the log could not be made durable; it is closed then too.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  protected override listenersChanged(): void {
    let levels = this.listenerCount('commit') > 0 ? 0b111 : 0;
    LEVEL_NAMES.forEach((name, level) => {
      if (this.listenerCount(`commit:${name}`) > 0) levels |= 1 << level;
    });
    this.#coordinator?.commits.setListened(levels);
  }

  async #close(): Promise<void> {
    try {
      // Called first: from here on, nothing is accepted any more.
      const closed = this.#coordinator?.close();
      await this.#subscriptions.close();
      await this.#source.close();
      await closed;
    } finally {
      this.emit('close');
    }
  }

  async #cleanup(coordinator: Coordinator): Promise<CleanupResult> {
    const { segments, bytes } = await coordinator.cleanup(() => this.#activeReads === 0);
    if (segments > 0) this.emit('cleanup', { segments, bytes });
    return { segments, bytes };
  }

  #reader(options: ReadOptions, decoder?: FrameDecoder): Reader {
    const { signal, ...request } = this.#checkRead(options);
    return new Reader((stop) => this.#read({ ...request, decoder, signal: stop }), signal, this.#source.catalog.cuts);
  }

  async *#readTransaction(place: TransactionPlace): AsyncGenerator<WalRecord[], void, undefined> {
    this.#activeReads++;
    try {
      yield* transactionRecords(this.#source, place);
    } catch (error) {
      throw openError(error, this.directory);
    } finally {
      this.#activeReads--;
    }
  }

  async *#read(request: ReadRequest): AsyncGenerator<WalRecord[], void, undefined> {
    this.#checkOpen();
    this.#activeReads++;
    try {
      yield* readLog(this.#source, request);
    } catch (error) {
      throw request.signal.aborted ? error : openError(error, this.directory);
    } finally {
      this.#activeReads--;
    }
  }

  async #lookUp(lsn: Lsn): Promise<WalRecord[] | undefined> {
    this.#activeReads++;
    const cursor = new LogCursor(this.#source, lsn, { chunkBytes: LOOKUP_BYTES, readAhead: false });
    try {
      for (;;) {
        const records = await cursor.read(lsn);
        if (records?.length !== 0) return records;
      }
    } finally {
      this.#activeReads--;
      await cursor.close();
    }
  }

  #checkRead(options: ReadOptions): Omit<ReadRequest, 'signal'> & { signal: AbortSignal | undefined } {
    checkOptions(options);
    this.#checkOpen();
    const { from, to = Number.MAX_SAFE_INTEGER, follow = false, level = 'disk', signal, onProgress } = options;
    if (from !== undefined) checkPlace(from, 'from', 1);
    checkPlace(to, 'to', 0);
    if (typeof follow !== 'boolean') throw invalidArgument(`follow must be true or false, not ${describe(follow)}.`);
    const number = Math.max(checkLevel(level), Level.Os);
    if (signal !== undefined) checkSignal(signal);
    if (onProgress !== undefined && typeof onProgress !== 'function')
      throw invalidArgument('onProgress must be a function.');
    return { from, to, follow: follow ? number : undefined, signal, onProgress };
  }

  get #state(): LogState {
    return this.#coordinator?.state ?? this.#recovered!.state;
  }

  #committed(event: CommitEvent): void {
    this.emit('commit', event);
    this.emit(`commit:${event.level}`, event);
  }

  #backpressure(waiting: boolean): void {
    if (waiting) this.emit('backpressure', { queueDepth: this.#coordinator!.appender.queued });
    else this.emit('drain');
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) throw closedError();
  }

  #cannotWrite(): WalError {
    return this.#closing === undefined ? readOnlyError() : closedError();
  }

  #writable(): Coordinator {
    if (this.#closing !== undefined || this.#coordinator === undefined) throw this.#cannotWrite();
    return this.#coordinator;
  }
}

function transactionsHost(coordinator: Coordinator, { level, maxTransactionBytes }: ResolvedOptions): TransactionsHost {
  const { appender, writer } = coordinator;
  const { maxRecordBytes, frameBytes: partBytes } = coordinator.sizes;
  return {
    limits: { maxRecordBytes, maxTransactionBytes, partBytes },
    mostFrameBytes: appender.mostGroupBytes,
    defaultLevel: level,
    checkOpen: () => writer.checkOpen(),
    write: (batch, how) => writer.write(batch, how),
    writePart: (batch) => writer.writePart(batch),
    note: (note) => coordinator.noteTransaction(note),
    sync: () => coordinator.syncTaken(),
    underWay: (work) => coordinator.underWay(work),
  };
}

/** An LSN or a time. */
function checkPlace(place: Lsn | Date, what: string, least: number): void {
  if (!(place instanceof Date)) checkLsn(place, what, least);
  else if (Number.isNaN(place.getTime())) throw invalidArgument(`${what} is an invalid Date.`);
}

/** Makes the directory if it may, durably; or says what is wrong with it. */
function prepareDirectory(directory: string, { createIfMissing, readOnly }: ResolvedOptions): void {
  const found = statDirectory(directory);
  if (found !== undefined && !found.isDirectory()) {
    throw invalidArgument(`${directory} is a file. A log needs a directory of its own.`);
  }
  if (readOnly || !createIfMissing) {
    const holdsLog =
      found && fs.readdirSync(directory).some((name) => name === LOCK_NAME || segmentIdOf(name) !== undefined);
    if (!holdsLog) throw new WalError('ERR_WAL_NOT_FOUND', `There is no log in ${directory}.`);
  }
  if (found !== undefined) return;
  const first = fs.mkdirSync(directory, { recursive: true });
  // Every directory entry that was made must be durable before the log relies on it.
  for (let made = directory; first !== undefined && made.length >= first.length; made = path.dirname(made)) {
    syncDirectory(path.dirname(made));
  }
}

function statDirectory(directory: string): fs.Stats | undefined {
  try {
    return fs.statSync(directory, { throwIfNoEntry: false });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOTDIR') throw error;
    throw invalidArgument(`${directory} lies below a file. A log needs a directory of its own.`);
  }
}
