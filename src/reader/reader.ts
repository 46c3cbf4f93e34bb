import { WalError } from '../errors.js';
import type { WalRecord } from '../format/record.js';
import type { Cuts } from './cuts.js';

/** Reads arrays of records until the signal says stop; its reason is thrown, except for {@link STOP}. */
export type BatchSource = (signal: AbortSignal) => AsyncGenerator<WalRecord[], void, undefined>;

/** The reason of a signal that means "the caller has enough". */
const STOP = Symbol('stop');

/**
 * A read of the log: an async iterable of records, or, quicker, of arrays of them. Each iteration reads anew.
 * Leaving a loop ends its read at once, also while it waits for records that have not been written yet.
 */
export class Reader implements AsyncIterable<WalRecord> {
  readonly #read: BatchSource;
  readonly #signal: AbortSignal | undefined;
  readonly #cuts: Cuts;

  /** @internal */
  constructor(read: BatchSource, signal: AbortSignal | undefined, cuts: Cuts) {
    this.#read = read;
    this.#signal = signal;
    this.#cuts = cuts;
  }

  /** The same records, an array at a time: as many as one read of the file brought. */
  batches(): AsyncIterableIterator<WalRecord[]> {
    return new BatchIterator(this.#read, this.#signal);
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<WalRecord> {
    return new RecordIterator(this.batches(), this.#cuts);
  }
}

class BatchIterator implements AsyncIterableIterator<WalRecord[]> {
  readonly #batches: AsyncGenerator<WalRecord[], void, undefined>;
  readonly #controller = new AbortController();
  readonly #signal: AbortSignal | undefined;
  readonly #abort = () => this.#controller.abort(this.#signal!.reason);

  constructor(read: BatchSource, signal: AbortSignal | undefined) {
    this.#signal = signal;
    if (signal?.aborted) this.#abort();
    else signal?.addEventListener('abort', this.#abort, { once: true });
    this.#batches = read(this.#controller.signal);
  }

  async next(): Promise<IteratorResult<WalRecord[]>> {
    try {
      const result = await this.#batches.next();
      if (result.done) this.#letGo();
      return result;
    } catch (error) {
      this.#letGo();
      if (error === STOP) return { done: true, value: undefined };
      throw error;
    }
  }

  /** A generator that waits would answer only when it is done waiting; the signal wakes it. */
  async return(): Promise<IteratorResult<WalRecord[]>> {
    this.#letGo();
    this.#controller.abort(STOP);
    await this.#batches.return().catch((error) => {
      if (error !== STOP) throw error;
    });
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #letGo(): void {
    this.#signal?.removeEventListener('abort', this.#abort);
  }
}

/** Records one by one. Within a batch each is at hand, and costs no more than its promise. */
class RecordIterator implements AsyncIterableIterator<WalRecord> {
  readonly #batches: AsyncIterableIterator<WalRecord[]>;
  #batch: WalRecord[] = [];
  #at = 0;
  readonly #cuts: Cuts;
  /** Cuts that were known when the batch came. */
  #known = 0;

  constructor(batches: AsyncIterableIterator<WalRecord[]>, cuts: Cuts) {
    this.#batches = batches;
    this.#cuts = cuts;
  }

  next(): Promise<IteratorResult<WalRecord>> {
    if (this.#at >= this.#batch.length) return this.#refill();
    const record = this.#batch[this.#at++];
    if (this.#known !== this.#cuts.count && record.lsn > this.#cuts.keptSince(this.#known)) return this.#void(record);
    return Promise.resolve({ done: false, value: record });
  }

  /** It was read before the log was cut, and is no part of it any more. */
  async #void({ lsn }: WalRecord): Promise<never> {
    await this.return();
    throw new WalError('ERR_WAL_TRUNCATED', `LSN ${lsn} was cut off while it was read.`, { lsn });
  }

  async return(): Promise<IteratorResult<WalRecord>> {
    this.#batch = [];
    this.#at = 0;
    await this.#batches.return?.();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async #refill(): Promise<IteratorResult<WalRecord>> {
    const result = await this.#batches.next();
    if (result.done) return { done: true, value: undefined };
    this.#batch = result.value;
    this.#known = this.#cuts.count;
    this.#at = 1;
    return { done: false, value: result.value[0] };
  }
}
