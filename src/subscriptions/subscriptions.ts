import { invalidArgument, WalError } from '../errors.js';
import { LEVEL_NAMES } from '../format/levels.js';
import type { LogState, Positions, SubscriptionState } from '../format/state.js';
import { checkLevel, checkLsn, checkOptions, describe } from '../producer/arguments.js';
import type { Reader } from '../reader/reader.js';
import type { Durability, Lsn } from '../types.js';
import { checkName } from './names.js';
import { PositionBook } from './position-book.js';
import { type SubscribeOptions, Subscription } from './subscription.js';

/** What the subscriptions need of their log. */
export interface SubscriptionsHost {
  state(): LogState;
  /** The first LSN that can be read, and the last that is committed at a level. */
  first(): Lsn;
  last(level: Durability): Lsn;
  follow(from: Lsn, level: Durability, signal: AbortSignal): Reader;
  /** Writes changes of positions; resolves once they survive the death of the process. */
  write(positions: Positions): Promise<void>;
  /** Makes what was noted durable. */
  sync(): Promise<unknown>;
}

export interface SubscriptionStats {
  name: string;
  acknowledged: Lsn;
  /** Records committed at `os` that it has not acknowledged. */
  lag: number;
}

/** The named consumers of one open log. */
export class Subscriptions {
  readonly #host: SubscriptionsHost;
  readonly #book: PositionBook;
  readonly #open = new Map<string, Subscription | 'busy'>();
  /** Those that are being opened. */
  readonly #starting = new Set<Promise<unknown>>();
  /** Settles when the cuts that were called for are over. */
  #cuts: Promise<unknown> = Promise.resolve();

  constructor(host: SubscriptionsHost) {
    this.#host = host;
    this.#book = new PositionBook((positions) => host.write(positions));
  }

  async subscribe(name: string, options: SubscribeOptions = {}): Promise<Subscription> {
    checkName(name);
    checkOptions(options);
    if (this.#open.has(name)) {
      throw invalidArgument(`Subscription '${name}' is open already. Close it first, or use another name.`);
    }
    this.#open.set(name, 'busy');
    try {
      await this.#cutsOver();
      const starting = this.#start(name, options);
      this.#starting.add(starting);
      return await starting.finally(() => this.#starting.delete(starting));
    } catch (error) {
      this.#open.delete(name);
      throw error;
    }
  }

  /** Forgets a subscription: clean-up no longer waits for it. */
  async unsubscribe(name: string): Promise<void> {
    checkName(name);
    if (this.#known(name) === undefined) {
      throw new WalError('ERR_WAL_NOT_FOUND', `There is no subscription '${name}'.`);
    }
    const open = this.#open.get(name);
    if (open === 'busy')
      throw invalidArgument(`Subscription '${name}' is being opened or forgotten. Await that first.`);
    const closed = open?.close();
    // Nobody may open it meanwhile: it would acknowledge to a subscription that is not there.
    this.#open.set(name, 'busy');
    try {
      await closed;
      await this.#book.note(name, null);
      await this.#host.sync();
    } finally {
      this.#open.delete(name);
    }
  }

  stats(): SubscriptionStats[] {
    const last = this.#host.last('os');
    return Object.entries(this.#host.state().subscriptions).map(([name, { acknowledged }]) => ({
      name,
      acknowledged,
      lag: Math.max(0, last - acknowledged),
    }));
  }

  /**
   * Has the log cut behind `lsn` by `make`, which calls `before` when it is about to. Whoever subscribes meanwhile waits
   * until that is over: it would begin at a position above the cut, and leave out what is appended in the place of the old.
   */
  async cut(lsn: Lsn, make: (before: () => Promise<void>) => Promise<void>): Promise<void> {
    const cut = make(() => this.#cutAfter(lsn));
    this.#cuts = Promise.allSettled([this.#cuts, cut]);
    await cut;
  }

  async #cutAfter(lsn: Lsn): Promise<void> {
    // Those that were called for before the cut; later ones wait for it.
    await Promise.allSettled(this.#starting);
    for (const subscription of [...this.#open.values()]) {
      if (subscription instanceof Subscription) await subscription.cutAfter(lsn);
    }
    // What was acknowledged before the cut must not be noted behind it.
    await this.#book.settled();
  }

  async #cutsOver(): Promise<void> {
    for (let cuts: unknown; cuts !== this.#cuts; ) {
      cuts = this.#cuts;
      await cuts;
    }
  }

  async close(): Promise<void> {
    for (const subscription of [...this.#open.values()]) {
      if (subscription instanceof Subscription) await subscription.close();
    }
  }

  async #start(name: string, options: SubscribeOptions): Promise<Subscription> {
    const fresh = this.#newState(options);
    const known = this.#known(name);
    if (known === undefined) {
      // On disk before anybody relies on clean-up waiting for it.
      await this.#book.note(name, fresh);
      await this.#host.sync();
    }
    const { acknowledged, level } = known ?? fresh;
    const subscription = new Subscription(name, acknowledged, {
      follow: (from, signal) => this.#host.follow(from, level, signal),
      acknowledge: (lsn) => this.#book.note(name, lsn),
      closed: () => this.#open.delete(name),
    });
    this.#open.set(name, subscription);
    return subscription;
  }

  #known(name: string): SubscriptionState | undefined {
    const { subscriptions } = this.#host.state();
    return Object.hasOwn(subscriptions, name) ? subscriptions[name] : undefined;
  }

  /** Where a subscription begins that does not exist yet. */
  #newState({ from = 'start', level = 'disk' }: SubscribeOptions): SubscriptionState {
    const name = LEVEL_NAMES[checkLevel(level)];
    const first = this.#host.first();
    if (from === 'start') return { acknowledged: first - 1, level: name };
    if (from === 'end') return { acknowledged: this.#host.last('os'), level: name };
    if (typeof from === 'string')
      throw invalidArgument(`from must be an LSN, 'start' or 'end', not ${describe(from)}.`);
    checkLsn(from, 'from');
    if (from < first) {
      throw new WalError('ERR_WAL_TRUNCATED', `LSN ${from} was cleaned up; the log begins at LSN ${first} now.`, {
        lsn: from,
      });
    }
    const last = this.#host.last('os');
    if (from > last + 1) throw invalidArgument(`LSN ${from} is ahead of the log, which ends at LSN ${last}.`);
    return { acknowledged: from - 1, level: name };
  }
}
