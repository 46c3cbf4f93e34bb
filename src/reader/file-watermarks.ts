import { type FSWatcher, watch } from 'node:fs';
import { WalError } from '../errors.js';
import { FrameType } from '../format/frame.js';
import { Level } from '../format/levels.js';
import type { Lsn } from '../types.js';
import { LogCursor } from './log-cursor.js';
import type { LogSource } from './log-source.js';

/** A lost or unsupported file notification costs this long and not forever. */
const LOOK_AGAIN_MS = 1000;
/** A writer that cleans up, or cuts, faster than this is one that we cannot follow. */
const MOST_TRIES = 10;

interface Waiter {
  level: number;
  lsn: Lsn;
  resolve: () => void;
  reject: (error: unknown) => void;
}

/**
 * How far a log is that another process writes, read from its files: every valid frame is at least in the kernel, and
 * the stamps in later frames, a seal, or a later segment say what of it is on disk. Looks when the files change.
 */
export class FileWatermarks {
  readonly #directory: string;
  readonly #source: LogSource;
  #scout: LogCursor;
  #os: Lsn;
  #disk: Lsn;
  #watcher: FSWatcher | undefined;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #changed = false;
  /** Where the log was cut, until those who wait have been told. */
  #cutBehind: Lsn | undefined;
  #closed = false;
  readonly #waiters = new Set<Waiter>();

  /** `from`: the first LSN of the last segment; everything before it is on disk. */
  constructor(directory: string, source: LogSource, from: Lsn) {
    this.#directory = directory;
    this.#source = source;
    this.#scout = this.#scoutFrom(from);
    this.#os = from - 1;
    this.#disk = from - 1;
  }

  watermark(level: number): Lsn {
    return level === Level.Disk ? this.#disk : this.#os;
  }

  /** The last LSN in the files by now. */
  async latest(): Promise<Lsn> {
    await this.#look();
    return this.#os;
  }

  reached(level: number, lsn: Lsn, signal?: AbortSignal): Promise<boolean> {
    if (this.#closed) return Promise.resolve(false);
    return new Promise((resolve, reject) => {
      const leave = () => {
        signal?.removeEventListener('abort', abort);
        this.#waiters.delete(waiter);
        if (this.#waiters.size === 0) this.#rest();
      };
      const abort = () => {
        leave();
        reject(signal!.reason);
      };
      const waiter: Waiter = {
        level,
        lsn,
        resolve: () => {
          leave();
          resolve(!this.#closed);
        },
        reject: (error) => {
          leave();
          reject(error);
        },
      };
      signal?.addEventListener('abort', abort, { once: true });
      this.#waiters.add(waiter);
      this.#watch();
      this.#lookForWaiters();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const waiter of [...this.#waiters]) waiter.resolve();
    this.#rest();
    if (this.#looking === undefined) await this.#scout.close();
  }

  #watch(): void {
    this.#timer ??= setInterval(this.#lookForWaiters, LOOK_AGAIN_MS);
    try {
      this.#watcher ??= watch(this.#directory, this.#lookForWaiters).on('error', () => {});
    } catch {
      // No notifications here (too many watches, a network filesystem): the timer is what is left.
    }
  }

  /** Nobody waits: nothing keeps the process alive. */
  #rest(): void {
    this.#watcher?.close();
    clearInterval(this.#timer);
    this.#watcher = undefined;
    this.#timer = undefined;
  }

  /** Somebody waits, and is told if this fails. */
  readonly #lookForWaiters = (): void => {
    this.#look().catch(() => {});
  };

  /** One look at a time; a change while looking means another. */
  #look(): Promise<void> {
    this.#changed = true;
    this.#looking ??= this.#lookAgain();
    return this.#looking;
  }

  async #lookAgain(): Promise<void> {
    try {
      while (this.#changed && !this.#closed) {
        this.#changed = false;
        await this.#scan();
        this.#settle();
      }
    } catch (error) {
      for (const waiter of [...this.#waiters]) waiter.reject(error);
      throw error;
    } finally {
      this.#looking = undefined;
      if (this.#closed) await this.#scout.close();
    }
  }

  #settle(): void {
    const cut = this.#cutBehind;
    this.#cutBehind = undefined;
    for (const waiter of [...this.#waiters]) {
      if (this.watermark(waiter.level) >= waiter.lsn) waiter.resolve();
      else if (cut !== undefined && waiter.lsn > cut + 1) {
        const message = `The log was cut behind LSN ${cut}, and this reader had gone as far as LSN ${waiter.lsn - 1}.`;
        waiter.reject(new WalError('ERR_WAL_TRUNCATED', message, { lsn: waiter.lsn }));
      }
    }
  }

  #scoutFrom(lsn: Lsn): LogCursor {
    return new LogCursor(this.#source, lsn, { chunkBytes: 64 * 1024, readAhead: false });
  }

  async #scan(): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#scanOn();
      } catch (error) {
        if (!(error instanceof WalError) || error.code !== 'ERR_WAL_TRUNCATED' || tries === MOST_TRIES) throw error;
        await this.#beginAnew();
      }
    }
  }

  /**
   * The log was cleaned up further than anybody here had looked, or cut. Whoever reads there finds out for itself; how
   * far the log is, its last segment says.
   */
  async #beginAnew(): Promise<void> {
    const last = (await this.#source.catalog.refresh()).at(-1);
    const before = (last?.header.firstLsn ?? 1) - 1;
    if (before < this.#os) this.#cutBehind = Math.min(before, this.#cutBehind ?? before);
    this.#os = before;
    this.#disk = before;
    await this.#scout.close();
    this.#scout = this.#scoutFrom(before + 1);
  }

  #scanOn(): Promise<void> {
    return this.#scout.scan((frame, _bytes, _at, _offset, lastHere) => {
      // A cut may have gone through the middle of this frame.
      const last = Math.min(frame.firstLsn + frame.records - 1, lastHere);
      this.#os = Math.max(this.#os, last);
      // A seal is written when everything before it is on disk.
      const durable = frame.type === FrameType.Seal ? last : Math.min(frame.durableLsn, lastHere);
      // Never above what was read: whoever waits for a record would be told of it, and not find it, for ever.
      this.#disk = Math.max(this.#disk, Math.min(durable, this.#os));
      return true;
    }, Number.MAX_SAFE_INTEGER);
  }
}
