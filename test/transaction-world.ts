import { setImmediate as nextTurn } from 'node:timers/promises';
import { fromPlainError, toPlainError } from '../src/errors.js';
import { Level } from '../src/format/levels.js';
import { replayed } from '../src/kv/replay.js';
import type { Transaction } from '../src/kv/transaction.js';
import { listPrepared, Transactions } from '../src/kv/transactions.js';
import { Appender } from '../src/producer/appender.js';
import { RecordWriter } from '../src/producer/producer.js';
import { Catalog } from '../src/reader/catalog.js';
import { decodeForReplay } from '../src/reader/decode-frame.js';
import type { LogSource } from '../src/reader/log-source.js';
import { readLog } from '../src/reader/read-log.js';
import { type TransactionPlace, transactionRecords } from '../src/reader/transaction-records.js';
import { Ring } from '../src/ring/ring.js';
import { Member } from '../src/sequencer/member.js';
import { readableFiles } from './simulation/simulated-disk.js';
import type { LogOptions } from './simulation/simulated-log.js';
import { SimulatedLog } from './simulation/simulated-log.js';
import { type Found, type Seen, see } from './transaction-fates.js';

const RING_BYTES = 64 * 1024;
const PART_BYTES = 4096;

/**
 * The package's own transactions over the engine on a simulated disk: its appender on one side of a ring, and the
 * sequencer on the other, in one thread.
 */
export class TransactionWorld extends SimulatedLog {
  readonly transactions: Transactions;
  readonly #appender: Appender;

  constructor(options: LogOptions = {}) {
    super(options);
    const ring = Ring.allocate(RING_BYTES);
    const sizes = { frameBytes: PART_BYTES, maxRecordBytes: RING_BYTES / 4, encodeBytes: Number.POSITIVE_INFINITY };
    const nothing = () => undefined;
    const appender = new Appender(ring, this.control, sizes, { hold: nothing, backpressure: nothing });
    const writer = new RecordWriter(appender, this.control, Level.Disk);
    this.#appender = appender;
    this.sequencer.addMember(new Member(99, ring, nothing));
    this.transactions = new Transactions({
      limits: { maxRecordBytes: sizes.maxRecordBytes, maxTransactionBytes: 1024 * 1024, partBytes: PART_BYTES },
      mostFrameBytes: appender.mostGroupBytes,
      defaultLevel: Level.Disk,
      checkOpen: () => writer.checkOpen(),
      write: (batch, how) => this.#pumped(writer.write(batch, how)),
      writePart: (batch) => this.#pumped(writer.writePart(batch)),
      note: (note) => this.#asked(() => this.sequencer.noteTransaction(note).lsn),
      sync: () => this.#asked(() => this.sequencer.sync()),
      underWay: (work) => work,
    });
  }

  begin(name: string, operations: number, valueBytes = 40): Transaction {
    const tx = this.transactions.begin();
    for (let i = 0; i < operations; i++) void tx.put(`${name}:${i}`, 'v'.repeat(valueBytes));
    return tx;
  }

  /** What a replay shows of transactions, by the name in their keys. */
  async replay(from = this.sequencer.state.checkpoint + 1): Promise<Map<string, Seen>> {
    const seen = new Map<string, Seen>();
    const source = this.source();
    const signal = new AbortController().signal;
    const request = { from, to: Number.MAX_SAFE_INTEGER, follow: undefined, signal, decoder: decodeForReplay };
    for await (const { lsn, op } of replayed(readLog(source, request), (place) => transactionRecords(source, place))) {
      const key = op.type === 'clear' ? '' : Buffer.from(op.key).toString();
      // Plain records of the simulation have binary keys.
      if (/^[a-z0-9]+:/.test(key)) see(seen, key, lsn);
    }
    return seen;
  }

  async look(): Promise<Found> {
    const { checkpoint } = this.sequencer.state;
    return { replay: await this.replay(), inDoubt: await this.inDoubt(), checkpoint };
  }

  /** The keys of those in doubt, by id. */
  async inDoubt(): Promise<Map<string, string[]>> {
    const read = (place: TransactionPlace) => transactionRecords(this.source(), place);
    const list = await listPrepared(() => this.sequencer.state, read);
    return new Map(list.map(({ id, operations }) => [id, operations.map(({ key }) => Buffer.from(key).toString())]));
  }

  source(): LogSource {
    const to = this.watermark(Level.Os);
    return {
      catalog: new Catalog(readableFiles(this.disk)),
      low: () => this.sequencer.state.low,
      promised: () => to,
      readable: () => Promise.resolve(to),
      liveEnd: () => undefined,
      liveIndex: () => Promise.resolve(undefined),
      watermark: () => to,
      reached: () => Promise.resolve(false),
    };
  }

  /** Lets the sequencer work until the append is settled. */
  async #pumped<T>(work: Promise<T>): Promise<T> {
    let settled = false;
    const over = () => {
      settled = true;
    };
    work.then(over, over);
    while (!settled) {
      this.#appender.publish();
      while (this.sequencer.step());
      this.#appender.wake();
      await nextTurn();
    }
    return work;
  }

  /** As over the line to the actor's thread: whatever it throws arrives as a WalError. */
  async #asked<T>(work: () => T): Promise<T> {
    try {
      return work();
    } catch (error) {
      throw fromPlainError(toPlainError(error));
    }
  }
}
