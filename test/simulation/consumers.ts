import { Level, type LevelName, levelNumber } from '../../src/format/levels.js';
import type { WalRecord } from '../../src/format/record.js';
import { Catalog } from '../../src/reader/catalog.js';
import type { LogSource } from '../../src/reader/log-source.js';
import { readLog } from '../../src/reader/read-log.js';
import { Reader } from '../../src/reader/reader.js';
import { Counter } from '../../src/ring/control.js';
import type { Subscription } from '../../src/subscriptions/subscription.js';
import { Subscriptions } from '../../src/subscriptions/subscriptions.js';
import type { Life } from './life.js';
import { hold } from './model.js';
import { readableFiles } from './simulated-disk.js';

export const CONSUMER_NAMES = ['a', 'b', 'a longer name'] as const;
/** A read that waits for what is there already would do so for ever. */
const MOST_WAITS = 1000;

interface Consumer {
  name: string;
  level: LevelName;
  subscription: Subscription;
  records: AsyncIterator<WalRecord> | undefined;
  /** The last LSN that this loop was given; before its first record, where it begins. */
  last: number;
}

/** The named consumers of a log that is open: the package's own subscriptions and reader, on the simulated disk. */
export class Consumers {
  readonly #life: Life;
  readonly #catalog: Catalog;
  readonly #subscriptions: Subscriptions;
  readonly #open = new Map<string, Consumer>();

  constructor(life: Life) {
    this.#life = life;
    this.#catalog = new Catalog(readableFiles(life.disk));
    this.#subscriptions = new Subscriptions({
      state: () => life.sequencer.state,
      first: () => Math.max(life.sequencer.state.low, life.control.get(Counter.firstLsn)),
      last: (level) => life.watermark(levelNumber(level)),
      follow: (from, level, signal) => this.#follow(from, levelNumber(level), signal),
      write: async (positions) => life.notePositions(positions),
      sync: async () => {
        life.sequencer.sync();
        life.collect();
      },
    });
  }

  /** Loops that are being read: each of them may have a file open. */
  get reading(): number {
    return [...this.#open.values()].filter(({ records }) => records !== undefined).length;
  }

  isOpen(name: string): boolean {
    return this.#open.has(name);
  }

  /** Opens a consumer, and makes it if it does not exist. */
  async open(name: string): Promise<void> {
    if (this.#open.has(name)) return;
    const { random, sequencer } = this.#life;
    const first = Math.max(sequencer.state.low, this.#life.control.get(Counter.firstLsn));
    const from = random.pick(['start', 'end', random.between(first, this.#life.watermark(Level.Os) + 1)] as const);
    const level = random.pick(['os', 'disk'] as const);
    const subscription = await this.#subscriptions.subscribe(name, { from, level });
    const known = sequencer.state.subscriptions[name];
    hold(subscription.acknowledged === known.acknowledged, 'Durable', () => {
      return `'${name}' begins at ${subscription.acknowledged}, it acknowledged ${known.acknowledged}`;
    });
    this.#open.set(name, { name, level: known.level, subscription, records: undefined, last: 0 });
  }

  /** Gives a consumer up to `count` records, and judges each of them. */
  async take(name: string, count: number): Promise<void> {
    const { model, tally } = this.#life;
    const consumer = this.#open.get(name)!;
    const level = levelNumber(consumer.level);
    for (let i = 0; i < count; i++) {
      if (consumer.records === undefined) {
        consumer.last = consumer.subscription.acknowledged;
        consumer.records = consumer.subscription[Symbol.asyncIterator]();
      }
      const next = model.after(consumer.last);
      const last = this.#life.watermark(level);
      if (next > last) return;
      const record = await this.#next(consumer);
      // What compaction took out it may have read before.
      const end = record?.lsn ?? last + 1;
      for (let lsn = consumer.last + 1; lsn < end; lsn++) {
        hold(
          model.mayBeAbsent(lsn),
          'Prefix',
          () => `'${name}' waits for LSN ${lsn}, or is given LSN ${end} before it`,
        );
      }
      if (record === undefined) return;
      hold(record.lsn > consumer.last && !model.isGap(end), 'Prefix', () => `'${name}' is given LSN ${end} once more`);
      model.checkRecord(record);
      consumer.last = record.lsn;
      tally.delivered++;
    }
  }

  /** A consumer acknowledges some of what it was given. */
  async acknowledge(name: string): Promise<void> {
    const { subscription } = this.#open.get(name)!;
    const lsn = this.#life.random.between(subscription.acknowledged, subscription.delivered);
    if (lsn > 0) await subscription.ack(lsn);
  }

  async forget(name: string): Promise<void> {
    if (this.#life.sequencer.state.subscriptions[name] === undefined) return;
    this.#open.delete(name);
    await this.#subscriptions.unsubscribe(name);
  }

  async leave(name: string): Promise<void> {
    const consumer = this.#open.get(name);
    this.#open.delete(name);
    await consumer?.subscription.close();
  }

  /** Before the log is cut behind `lsn`. */
  async cutAfter(lsn: number): Promise<void> {
    await this.#subscriptions.cut(lsn, (before) => before());
    for (const [name, { subscription }] of [...this.#open]) {
      if (subscription.delivered <= lsn) continue;
      const error = await subscription.ack(Math.max(lsn, 1)).catch((reason: unknown) => reason);
      hold((error as { code?: string } | undefined)?.code === 'ERR_WAL_TRUNCATED', 'Buried', () => {
        return `'${name}' was given LSN ${subscription.delivered}, and does not hear of a cut behind ${lsn}`;
      });
      this.#open.delete(name);
    }
  }

  /** When the log was cut, as the coordinator does it: a look that fails is made up for by the next read. */
  async refresh(): Promise<void> {
    await this.#catalog.refresh().catch(() => undefined);
  }

  async close(): Promise<void> {
    this.#open.clear();
    await this.#subscriptions.close();
  }

  async #next(consumer: Consumer): Promise<WalRecord | undefined> {
    const { records } = consumer;
    // Until it comes back with a record, the loop is over: a read that fails ends it, and the next one begins anew.
    consumer.records = undefined;
    const result = await records!.next();
    if (result.done) return undefined;
    consumer.records = records;
    return result.value;
  }

  #follow(from: number, level: number, signal: AbortSignal): Reader {
    const read = (stop: AbortSignal) =>
      readLog(this.#source(), { from, to: Number.MAX_SAFE_INTEGER, follow: level, signal: stop });
    return new Reader(read, signal, this.#catalog.cuts);
  }

  #source(): LogSource {
    const { control } = this.#life;
    const watermark = (level: number) => this.#life.watermark(level);
    let waits = 0;
    return {
      catalog: this.#catalog,
      keys: this.#life.keys.ring,
      low: () => this.#life.sequencer.state.low,
      promised: () => watermark(Level.Os),
      readable: async () => watermark(Level.Os),
      liveEnd: (id) => (control.get(Counter.segmentId) === id ? control.get(Counter.segmentOffset) : undefined),
      liveIndex: async (id) => this.#life.sequencer.liveIndex(id),
      watermark,
      // Nothing moves while it is waited for: what is not there is the end.
      reached: async (level, lsn) => watermark(level) >= lsn && ++waits < MOST_WAITS,
    };
  }
}
