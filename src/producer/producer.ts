import { invalidArgument, WalError } from '../errors.js';
import { Level } from '../format/levels.js';
import { RecordKind } from '../format/record.js';
import { type Control, Counter, LogPhase } from '../ring/control.js';
import type { Bytes, Lsn } from '../types.js';
import type { Appender, Waiting } from './appender.js';
import {
  type AppendOptions,
  type BatchOperation,
  checkBytes,
  checkLevel,
  checkOperations,
  checkOptions,
  checkSignal,
  closedError,
  copyBytes,
  isBytes,
} from './arguments.js';
import { onAbort } from './on-abort.js';
import { type Entry, EntryBatch, PayloadBatch, type RecordBatch } from './records.js';

/** The LSNs of a batch. An empty batch writes nothing; its `last` is then `first - 1`. */
export interface LsnRange {
  first: Lsn;
  last: Lsn;
}

/** Checks what callers hand in, and turns it into records for the thread's appender. */
export class RecordWriter {
  readonly #appender: Appender;
  readonly #control: Control;
  readonly #defaultLevel: number;
  /** Why nothing can be appended any more. */
  #refusal: WalError | undefined;

  constructor(appender: Appender, control: Control, defaultLevel: number) {
    this.#appender = appender;
    this.#control = control;
    this.#defaultLevel = defaultLevel;
  }

  refuse(error: WalError): void {
    this.#refusal = error;
  }

  append(payload: Bytes, options?: AppendOptions): Promise<Lsn> {
    // The way of millions a second, without an object for the record. Whatever is unusual takes the other.
    if (options === undefined && payload instanceof Uint8Array && this.#isOpen) {
      return this.#appender.appendBytes(payload, this.#defaultLevel);
    }
    return this.#one(RecordKind.Data, undefined, payload, 'The payload', options);
  }

  put(key: Bytes, value: Bytes, options?: AppendOptions): Promise<Lsn> {
    return this.#one(RecordKind.Put, key, value, 'The value', options);
  }

  delete(key: Bytes, options?: AppendOptions): Promise<Lsn> {
    return this.#one(RecordKind.Delete, key, undefined, '', options);
  }

  clear(options?: AppendOptions): Promise<Lsn> {
    return this.#one(RecordKind.Clear, undefined, undefined, '', options);
  }

  appendMany(payloads: Iterable<Bytes>, options?: AppendOptions): Promise<LsnRange> {
    return this.#group(() => {
      if (typeof payloads === 'string' || typeof payloads?.[Symbol.iterator] !== 'function') {
        throw invalidArgument('appendMany takes an iterable of strings or Uint8Arrays.');
      }
      if (!Array.isArray(payloads)) return new PayloadBatch(Array.from(payloads, copied));
      for (let i = 0; i < payloads.length; i++) if (!isBytes(payloads[i])) checkBytes(payloads[i], `Payload ${i}`);
      return new PayloadBatch(payloads);
    }, options);
  }

  batch(operations: BatchOperation[], options?: AppendOptions): Promise<LsnRange> {
    return this.#group(() => {
      checkOperations(operations);
      const entries = operations.map((operation) =>
        operation.type === 'put'
          ? { kind: RecordKind.Put, key: operation.key, value: operation.value }
          : { kind: RecordKind.Delete, key: operation.key, value: undefined },
      );
      return new EntryBatch(entries);
    }, options);
  }

  /** A part of what was begun before the log was closed: it is still taken. Resolves at `memory`, to its first LSN. */
  async writePart(batch: RecordBatch): Promise<Lsn> {
    this.#checkRunning();
    return new Promise((resolve, reject) => {
      this.#appender.appendGroup(batch, Level.Memory, resolve, reject);
    });
  }

  /** Records that were put together already, as `batch`. */
  write(batch: RecordBatch, options?: AppendOptions): Promise<LsnRange> {
    return this.#group(() => batch, options);
  }

  #one(
    kind: number,
    key: Bytes | undefined,
    value: Bytes | undefined,
    what: string,
    options: AppendOptions | undefined,
  ): Promise<Lsn> {
    let level = this.#defaultLevel;
    try {
      if (kind === RecordKind.Put || kind === RecordKind.Delete) checkBytes(key, 'The key');
      if (what !== '') checkBytes(value, what);
      if (options !== undefined) {
        checkOptions(options);
        if (options.durability !== undefined) level = checkLevel(options.durability);
        if (options.signal !== undefined) return this.#abortable({ kind, key, value }, level, options.signal, single);
      }
      this.checkOpen();
    } catch (error) {
      return Promise.reject(error);
    }
    return this.#appender.appendOne({ kind, key, value }, level);
  }

  #group(collect: () => RecordBatch, options: AppendOptions | undefined): Promise<LsnRange> {
    let level = this.#defaultLevel;
    let batch: RecordBatch;
    try {
      if (options !== undefined) {
        checkOptions(options);
        if (options.durability !== undefined) level = checkLevel(options.durability);
      }
      batch = collect();
      if (options?.signal !== undefined) return this.#abortable(batch, level, options.signal, range(batch.count));
      this.checkOpen();
      if (batch.count === 0) return Promise.resolve(this.#emptyRange());
    } catch (error) {
      return Promise.reject(error);
    }
    return new Promise((resolve, reject) => {
      const toRange = range(batch.count);
      this.#appender.appendGroup(batch, level, (first) => resolve(toRange(first)), reject);
    });
  }

  /** The rare case: somebody may want this append back. */
  #abortable<T>(
    records: Entry | RecordBatch,
    level: number,
    signal: AbortSignal,
    result: (first: Lsn) => T,
  ): Promise<T> {
    checkSignal(signal);
    if (signal.aborted) return Promise.reject(signal.reason);
    this.checkOpen();
    if ('count' in records && records.count === 0) return Promise.resolve(this.#emptyRange() as T);
    return new Promise<T>((resolve, reject) => {
      let waiting: Waiting | undefined;
      // In the ring already, it is the log's; its fate is then told by recovery and not by this promise.
      const abort = () => {
        this.#appender.abandon(waiting);
        reject(signal.reason);
      };
      const settled = onAbort(signal, abort);
      const onResolve = (first: Lsn) => {
        settled();
        resolve(result(first));
      };
      const onReject = (error: unknown) => {
        settled();
        reject(error);
      };
      waiting =
        'count' in records
          ? this.#appender.appendGroup(records, level, onResolve, onReject)
          : this.#appender.append(records, level, onResolve, onReject);
    });
  }

  #emptyRange(): LsnRange {
    const last = this.#control.get(Counter.watermark);
    return { first: last + 1, last };
  }

  get #isOpen(): boolean {
    return this.#refusal === undefined && this.#control.running;
  }

  /** Throws what keeps the log from being written, if anything does. */
  checkOpen(): void {
    if (this.#refusal !== undefined) throw this.#refusal;
    this.#checkRunning();
  }

  #checkRunning(): void {
    if (this.#control.phase === LogPhase.Failed) {
      throw new WalError('ERR_WAL_FAILED', `The log failed and must be reopened: ${this.#control.failure()}`);
    }
    if (this.#control.phase === LogPhase.Closed) throw closedError();
  }
}

function single(first: Lsn): Lsn {
  return first;
}

function range(count: number): (first: Lsn) => LsnRange {
  return (first) => ({ first, last: first + count - 1 });
}

/** A generator may yield one buffer over and over; the items of an array stay what they are. */
function copied(payload: unknown, i: number): Bytes {
  checkBytes(payload, `Payload ${i}`);
  return copyBytes(payload);
}
