import { invalidArgument, WalError } from '../errors.js';
import type { WalRecord } from '../format/record.js';
import { checkLsn } from '../producer/arguments.js';
import type { Reader } from '../reader/reader.js';
import type { Durability, Lsn } from '../types.js';

export interface SubscribeOptions {
  /**
   * Where a new subscription begins: at an LSN, at the first record that there is, or behind the last. A subscription
   * that exists goes on where it was. Default: `start`.
   */
  from?: Lsn | 'start' | 'end';
  /** The level at which a new subscription is given records. Default: `disk`. */
  level?: Durability;
}

/** What a subscription needs of its log. */
export interface SubscriptionHost {
  /** Follows the log from an LSN on. */
  follow(from: Lsn, signal: AbortSignal): Reader;
  /** Resolves once the position survives the death of the process. */
  acknowledge(lsn: Lsn): Promise<void>;
  closed(): void;
}

/**
 * A named, durable consumer. Iterating it delivers every record from behind the last acknowledged one, in order, and
 * waits for more. Delivery is at least once: what was not acknowledged when a consumer ended is delivered again.
 * What it has not acknowledged, `cleanup` keeps.
 */
export class Subscription implements AsyncIterable<WalRecord> {
  readonly name: string;
  readonly #host: SubscriptionHost;
  readonly #controller = new AbortController();
  #acknowledged: Lsn;
  #delivered: Lsn;
  /** What the loop reads from, while there is one. */
  #reading: AsyncIterator<WalRecord> | undefined;
  #iterating = false;
  /** Counts the loops that are over. */
  #turn = 0;
  /** The log was cut: what was read ahead may be void. */
  #readAnew = false;
  /** Why it ended by itself. */
  #cut: WalError | undefined;

  /** @internal Use `WriteAheadLog.subscribe`. */
  constructor(name: string, acknowledged: Lsn, host: SubscriptionHost) {
    this.name = name;
    this.#host = host;
    this.#acknowledged = acknowledged;
    this.#delivered = acknowledged;
  }

  /** The LSN that was acknowledged last; the one before its first record, when none was. */
  get acknowledged(): Lsn {
    return this.#acknowledged;
  }

  /** The LSN that was delivered last. */
  get delivered(): Lsn {
    return this.#delivered;
  }

  /**
   * Everything up to `lsn` was dealt with. Resolves once that survives `kill -9`; after a power cut, what was
   * acknowledged last may be delivered again. Ahead of what was delivered, or back: `ERR_WAL_INVALID_ARGUMENT`.
   */
  async ack(lsn: Lsn): Promise<void> {
    checkLsn(lsn);
    this.#checkOpen();
    if (lsn > this.#delivered) {
      throw invalidArgument(`LSN ${lsn} was not delivered to '${this.name}' yet; the last one was ${this.#delivered}.`);
    }
    if (lsn < this.#acknowledged) {
      throw invalidArgument(
        `'${this.name}' acknowledged LSN ${this.#acknowledged} already; it cannot go back to ${lsn}.`,
      );
    }
    this.#acknowledged = lsn;
    await this.#host.acknowledge(lsn);
  }

  /** One iteration at a time. A new one begins behind what was acknowledged. */
  [Symbol.asyncIterator](): AsyncIterableIterator<WalRecord> {
    this.#checkOpen();
    if (this.#iterating) throw invalidArgument(`Subscription '${this.name}' is being iterated already.`);
    this.#iterating = true;
    this.#readAnew = false;
    this.#reading = this.#readFrom(this.#acknowledged + 1);
    let last = this.#acknowledged;
    const turn = this.#turn;
    const end = async (): Promise<IteratorReturnResult<undefined>> => {
      if (turn === this.#turn) {
        this.#turn++;
        await this.#letGo();
        this.#iterating = false;
      }
      return { done: true, value: undefined };
    };
    const next = async (): Promise<IteratorResult<WalRecord>> => {
      if (turn !== this.#turn) return end();
      try {
        const record = await this.#following(last, turn);
        if (record === undefined) return await end();
        last = record.lsn;
        this.#delivered = Math.max(this.#delivered, last);
        return { done: false, value: record };
      } catch (error) {
        await end();
        throw error;
      }
    };
    const iterator: AsyncIterableIterator<WalRecord> = { next, return: end, [Symbol.asyncIterator]: () => iterator };
    return iterator;
  }

  /** The record behind `last`; undefined when the loop is over. */
  async #following(last: Lsn, turn: number): Promise<WalRecord | undefined> {
    for (;;) {
      if (this.#readAnew) {
        this.#readAnew = false;
        await this.#letGo();
        if (this.#isOpen() && turn === this.#turn) this.#reading = this.#readFrom(last + 1);
      }
      const result = await this.#reading?.next().catch((error: unknown) => {
        // Closing the subscription ends its loop quietly, and a cut only what was read before it.
        if (this.#isOpen() && !this.#readAnew) throw error;
        return undefined;
      });
      if (this.#cut !== undefined) throw this.#cut;
      if (!this.#isOpen() || turn !== this.#turn) return undefined;
      if (!this.#readAnew) return result === undefined || result.done ? undefined : result.value;
    }
  }

  #readFrom(lsn: Lsn): AsyncIterator<WalRecord> {
    return this.#host.follow(lsn, this.#controller.signal)[Symbol.asyncIterator]();
  }

  async #letGo(): Promise<void> {
    const reading = this.#reading;
    this.#reading = undefined;
    await reading?.return?.();
  }

  #isOpen(): boolean {
    return !this.#controller.signal.aborted;
  }

  /** Ends its loop and lets somebody else open it. Its position stays. Idempotent. */
  async close(): Promise<void> {
    if (this.#controller.signal.aborted) return;
    this.#controller.abort();
    this.#host.closed();
    // Also when nobody asks its loop for more: a file is open.
    await this.#letGo();
  }

  /**
   * @internal The log is cut behind `lsn`, and its readers get nothing above it until that is done. What was delivered
   * above it is void, and must not be acknowledged; what was read ahead is read anew.
   */
  async cutAfter(lsn: Lsn): Promise<void> {
    if (this.#delivered <= lsn) {
      this.#readAnew = true;
      return;
    }
    this.#cut = new WalError(
      'ERR_WAL_TRUNCATED',
      `The log was cut behind LSN ${lsn}, and '${this.name}' had been given LSN ${this.#delivered}. Subscribe again.`,
      { lsn },
    );
    await this.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #checkOpen(): void {
    if (this.#cut !== undefined) throw this.#cut;
    if (!this.#isOpen()) {
      throw new WalError('ERR_WAL_CLOSED', `Subscription '${this.name}' is closed. Subscribe again to go on.`);
    }
  }
}
