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
  #iterating = false;
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
    const records = this.#host.follow(this.#acknowledged + 1, this.#controller.signal)[Symbol.asyncIterator]();
    const ended = <T>(result: T): T => {
      this.#iterating = false;
      return result;
    };
    const next = async (): Promise<IteratorResult<WalRecord>> => {
      try {
        const result = await records.next();
        if (result.done) return ended(result);
        this.#delivered = Math.max(this.#delivered, result.value.lsn);
        return result;
      } catch (error) {
        ended(undefined);
        if (this.#cut !== undefined) throw this.#cut;
        // Closing the subscription ends its loop quietly.
        if (this.#controller.signal.aborted) return { done: true, value: undefined };
        throw error;
      }
    };
    const iterator: AsyncIterableIterator<WalRecord> = {
      next,
      return: async () => {
        await records.return?.();
        return ended({ done: true, value: undefined });
      },
      [Symbol.asyncIterator]: () => iterator,
    };
    return iterator;
  }

  /** Ends its loop and lets somebody else open it. Its position stays. Idempotent. */
  async close(): Promise<void> {
    if (this.#controller.signal.aborted) return;
    this.#controller.abort();
    this.#host.closed();
  }

  /** @internal The log is cut behind `lsn`: what was delivered above it is void, and must not be acknowledged. */
  async cutAfter(lsn: Lsn): Promise<void> {
    if (this.#delivered <= lsn) return;
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
    if (this.#controller.signal.aborted) {
      throw new WalError('ERR_WAL_CLOSED', `Subscription '${this.name}' is closed. Subscribe again to go on.`);
    }
  }
}
