import { randomBytes } from 'node:crypto';
import { CompactionSignals } from '../compaction/pace.js';
import { fromPlainError, type PlainError, WalError } from '../errors.js';
import type { LogState } from '../format/state.js';
import { closedError } from '../producer/arguments.js';
import { onAbort } from '../producer/on-abort.js';
import { compactingName } from '../segments/names.js';
import type { SegmentInfo } from '../segments/segment-info.js';
import type { Lsn } from '../types.js';
import type {
  ActorRequest,
  CompactionTask,
  GarbageFound,
  Run,
  Sealed,
  Swapped,
  TaskEncryption,
  Unless,
} from './messages.js';

/** What a compaction won. */
export interface CompactionReport {
  /** Files that the sealed segments took, before and after. */
  segmentsBefore: number;
  segmentsAfter: number;
  /** And their bytes. */
  bytesBefore: number;
  bytesAfter: number;
  /** Records in them, and how many of these were garbage and are gone. */
  records: number;
  removed: number;
  durationMs: number;
}

export interface CompactionProgress {
  /** Read so far, of about so many; the log is read at least twice where it holds garbage. */
  bytes: number;
  totalBytes: number;
  records: number;
}

export interface CompactOptions {
  /** Ends the work; what was compacted by then stays so. It rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Called some times a second. */
  onProgress?: (progress: CompactionProgress) => void;
}

/** What it needs of the coordinator. */
export interface CompactorHost {
  readonly directory: string;
  readonly segmentBytes: number;
  readonly control: SharedArrayBuffer;
  /** Undefined: the log is not encrypted. */
  encryption(): Promise<TaskEncryption | undefined>;
  request<T>(request: ActorRequest): Promise<T>;
  run<T>(task: CompactionTask): Promise<T>;
  /** One at a time with everything that begins, renames or removes segments. */
  exclusively<T>(work: () => Promise<T>): Promise<T>;
  /** Takes over a state that the actor wrote. */
  setState(state: LogState): void;
  /** A compaction ended well. */
  done(report: CompactionReport): void;
  /** Removes files that are no part of the log any more. Called exclusively. */
  retire(names: string[]): Promise<void>;
}

/** How often a compaction begins anew because the log was cut or cleaned up under it. */
const MOST_TRIES = 10;
const PROGRESS_MS = 100;

/**
 * Compacts the sealed segments, in a thread of the pool.
 *
 * Who may change segment files when: the actor alone makes new ones and writes the last; sealed files are renamed,
 * replaced and removed by tasks of the pool, and only within the queue of slow work (`exclusively`), where clean-up, cut,
 * rotation and checkpoint stand too. Compaction reads and writes its own temporary files outside that queue, so that it
 * holds nobody up, and enters it for each swap: there it looks whether the segments that it read are still the log's
 * (a cut or a clean-up may have come first), has the actor note durably what must hold from then on, renames, and tells
 * the actor. What comes later in the queue finds the new segment.
 */
export class Compactor {
  readonly #host: CompactorHost;
  #running: Promise<CompactionReport> | undefined;
  /** Those who came while one was under way share the next: what was sealed meanwhile is compacted then. */
  #next: Promise<CompactionReport> | undefined;
  #signals: CompactionSignals | undefined;
  #closed = false;
  /** Up to here the last compaction of this process looked. */
  #examined: Lsn = 0;
  /** Which part of what had been sealed since the one before was garbage, by bytes. */
  #garbageShare = 1;

  constructor(host: CompactorHost) {
    this.#host = host;
  }

  compact(options: CompactOptions = {}): Promise<CompactionReport> {
    if (this.#running === undefined) return this.#start(options);
    this.#next ??= this.#running
      .catch(() => undefined)
      .then(() => {
        this.#next = undefined;
        return this.#start(options);
      });
    return this.#next;
  }

  /** Somebody reads sealed segments: none of their files may be written over. */
  get busy(): boolean {
    return this.#running !== undefined;
  }

  /**
   * Compacts when `ratio` of the sealed segments' bytes is likely to be garbage. How much is, only a compaction finds out;
   * what was sealed since the last one is taken to hold as much of it as that one found, and all of it before the
   * first. An estimate that falls short is tried again when the log has doubled.
   */
  async compactIfWorthIt(ratio: number): Promise<void> {
    if (this.#running !== undefined || this.#closed) return;
    const { segments, state } = await this.#host.request<Sealed>({ op: 'sealed' });
    if (this.#running !== undefined || this.#closed) return;
    const examined = Math.max(this.#examined, state.compacted ?? 0);
    const fresh = bytesOf(segments.filter(({ lastLsn }) => lastLsn > examined));
    const share = Math.max(this.#garbageShare, Math.min(1, ratio * 2));
    if (fresh > 0 && fresh * share >= ratio * bytesOf(segments)) await this.compact();
  }

  /** Ends what is under way, soon; resolves when it has ended. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#signals?.stop();
    await this.#next?.catch(() => undefined);
    await this.#running?.catch(() => undefined);
  }

  #start(options: CompactOptions): Promise<CompactionReport> {
    const running = this.#compact(options).finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }

  async #compact({ signal, onProgress }: CompactOptions): Promise<CompactionReport> {
    if (this.#closed) throw closedError();
    signal?.throwIfAborted();
    const signals = new CompactionSignals();
    this.#signals = signals;
    const settled = signal && onAbort(signal, () => signals.stop());
    const timer = onProgress && setInterval(() => onProgress(signals.progress), PROGRESS_MS);
    try {
      const compaction = new Compaction(this.#host, signals, this.#examined);
      const report = await compaction.run();
      this.#examined = compaction.examined;
      if (compaction.freshBytes > 0) {
        const won = Math.max(0, report.bytesBefore - report.bytesAfter);
        this.#garbageShare = Math.min(1, won / compaction.freshBytes);
      }
      this.#host.done(report);
      return report;
    } catch (error) {
      if (error instanceof StoppedError) throw signal?.aborted ? signal.reason : closedError();
      throw error;
    } finally {
      settled?.();
      clearInterval(timer);
      this.#signals = undefined;
    }
  }
}

/** It was told to stop. */
class StoppedError extends Error {}

/** The log is not what it was when the garbage was looked for. */
class ChangedError extends Error {}

class Compaction {
  readonly #host: CompactorHost;
  readonly #signals: CompactionSignals;
  readonly #startedAt = performance.now();
  #records = 0;
  #removed = 0;
  /** The last LSN that it looks at. */
  examined: Lsn;
  /** Bytes of the segments that none before it had looked at. */
  freshBytes = 0;

  constructor(host: CompactorHost, signals: CompactionSignals, examined: Lsn) {
    this.#host = host;
    this.#signals = signals;
    this.examined = examined;
  }

  async run(): Promise<CompactionReport> {
    const before = await this.#sealed();
    const last = before.segments.at(-1)?.lastLsn ?? 0;
    const known = Math.max(this.examined, before.state.compacted ?? 0);
    this.freshBytes = bytesOf(before.segments.filter(({ lastLsn }) => lastLsn > known));
    this.examined = last;
    for (let tries = 1; ; tries++) {
      try {
        await this.#try();
        break;
      } catch (error) {
        if (!(error instanceof ChangedError)) throw error;
        if (tries === MOST_TRIES) break;
      }
    }
    const after = (await this.#sealed()).segments.filter(({ firstLsn }) => firstLsn <= last);
    return {
      segmentsBefore: before.segments.length,
      segmentsAfter: after.length,
      bytesBefore: bytesOf(before.segments),
      bytesAfter: bytesOf(after),
      records: this.#records,
      removed: this.#removed,
      durationMs: performance.now() - this.#startedAt,
    };
  }

  async #try(): Promise<void> {
    const { segments, state } = await this.#sealed();
    if (segments.length === 0) return;
    const marksName = temporaryName();
    const { segmentBytes } = this.#host;
    try {
      const { checkpoint, low } = state;
      const whole = low === 1 && checkpoint === 0;
      // The same for finding and rewriting: what one of them can look into, the other must.
      const encryption = await this.#host.encryption();
      const found = await this.#task<GarbageFound>({
        ...this.#shared(),
        op: 'findGarbage',
        segments,
        checkpoint,
        whole,
        segmentBytes,
        marksName,
        encryption,
      });
      this.#records = found.records + this.#removed;
      // The oldest first: a delete goes only when what it hides is gone for sure, and any mix of old and new segments
      // replays to the same state.
      for (const run of found.runs) {
        await this.#compactRun(run, segments, found.deletesGone, marksName, encryption);
      }
    } finally {
      await this.#discard(marksName);
    }
  }

  async #compactRun(
    run: Run,
    segments: readonly SegmentInfo[],
    deletesGone: Lsn,
    marksName: string,
    encryption: TaskEncryption | undefined,
  ): Promise<void> {
    const target = temporaryName();
    try {
      const how = { run, marksName, target, encryption };
      const info = await this.#task<SegmentInfo>({ ...this.#shared(), op: 'rewrite', ...how });
      if (this.#signals.stopped) throw new StoppedError();
      await this.#host.exclusively(() => this.#swap(run, info, target, segments.at(-1)!, deletesGone));
      this.#removed += run.reduce((sum, { dead }) => sum + dead, 0);
    } finally {
      await this.#discard(target);
    }
  }

  /** Within the queue of slow work. */
  async #swap(run: Run, info: SegmentInfo, target: string, newest: SegmentInfo, deletesGone: Lsn): Promise<void> {
    const { segments, state } = await this.#sealed();
    const ids = run.map(({ info: { id } }) => id);
    const at = segments.findIndex(({ id }) => id === ids[0]);
    const there = at >= 0 && run.every((old, i) => isSame(segments[at + i], old.info));
    // A cut takes the newest records first: as long as the newest segment stands, so does what killed the garbage.
    if (!there || !segments.some((segment) => isSame(segment, newest))) throw new ChangedError();
    // A first checkpoint came, and the state outside is older than some of the deletes.
    if (deletesGone > 0 && state.checkpoint > 0 && state.checkpoint < deletesGone) throw new ChangedError();
    const compacted = newest.lastLsn;
    // Durable before the first old file goes: from then on nobody may cut the log, or set its first checkpoint, below.
    this.#host.setState(await this.#host.request<LogState>({ op: 'noteCompaction', compacted, deletesGone }));
    const { directory } = this.#host;
    const swapped = await this.#host.run<Swapped>({ op: 'swapIn', directory, target, name: info.name });
    await this.#host.request({ op: 'replaceSealed', ids, info });
    // Whether the new name is durable is not known: either is the log, and the next recovery finds out which.
    if (swapped.unsynced !== undefined) throw failedSync(swapped.unsynced);
    await this.#host.retire(run.slice(0, -1).map((old) => old.info.name));
  }

  #sealed(): Promise<Sealed> {
    return this.#host.request<Sealed>({ op: 'sealed' });
  }

  async #task<T>(task: CompactionTask): Promise<T> {
    if (this.#signals.stopped) throw new StoppedError();
    const { unless, value } = await this.#host.run<Unless<T>>(task);
    if (unless === 'stopped') throw new StoppedError();
    if (unless === 'changed') throw new ChangedError();
    return value as T;
  }

  async #discard(name: string): Promise<void> {
    await this.#host.run({ op: 'discard', directory: this.#host.directory, names: [name] });
  }

  #shared() {
    const { directory, control } = this.#host;
    return { directory, control, signals: this.#signals.memory };
  }
}

function temporaryName(): string {
  return compactingName(randomBytes(6).toString('hex'));
}

function isSame(now: SegmentInfo | undefined, then: SegmentInfo): boolean {
  return now?.id === then.id && now.headerCrc === then.headerCrc && now.lastLsn === then.lastLsn;
}

function bytesOf(segments: readonly SegmentInfo[]): number {
  return segments.reduce((sum, { fileBytes }) => sum + fileBytes, 0);
}

function failedSync(plain: PlainError): WalError {
  const cause = fromPlainError(plain);
  return new WalError(
    'ERR_WAL_FAILED',
    `A compacted segment took its place, and whether that is durable is not known: ${cause.message}. Nothing is lost ` +
      'either way; the next open of the log settles it.',
    { cause },
  );
}
