// A process that does everything a log can do at once, from three threads, until it is killed. Started by kill-rounds.ts:
// it loads, says 'warm', waits for its task, says 'opening' and 'running', and closes the log when it is told to.
// What must be remembered it notes in files; see notes.ts.
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { type Subscription, WalError, WriteAheadLog } from 'ringwal';
import { Random } from '../simulation/random.js';
import { NoteBook } from './notes.js';
import { Producing } from './producing.js';
import { produceInThread } from './producing-thread.js';
import { identify } from './records.js';
import { PRODUCERS, type WriterTask } from './writer-task.js';

function hasCode(error: unknown, ...codes: string[]): boolean {
  return error instanceof WalError && codes.includes(error.code);
}

/** Everything but appends, in the opening thread. */
class Upkeep {
  readonly #wal: WriteAheadLog;
  readonly #book: NoteBook;
  readonly #random: Random;
  readonly #era: Int32Array;
  #checkpoint: number;
  #over = false;

  constructor(wal: WriteAheadLog, task: WriterTask, era: Int32Array) {
    this.#wal = wal;
    this.#book = new NoteBook(`${task.notes}.${PRODUCERS}`);
    this.#random = Random.of(task.seed, task.round, PRODUCERS);
    this.#era = era;
    this.#checkpoint = wal.recovery.checkpoint;
  }

  async run(): Promise<void> {
    while (!this.#over) {
      await delay(this.#random.between(0, 3));
      if (!this.#over) await this.#one();
    }
  }

  async #one(): Promise<void> {
    switch (this.#random.below(10)) {
      case 0:
        return this.#wal.rotate();
      case 1:
      case 4:
      case 5:
        return this.#cut();
      case 2:
        await this.#wal.sync();
        return undefined;
      case 3:
        await this.#wal.cleanup();
        return undefined;
      default:
        return this.#check();
    }
  }

  async #check(): Promise<void> {
    const lsn = this.#wal.watermark('memory') - this.#random.between(50, 500);
    if (lsn <= this.#checkpoint) return;
    this.#book.event('checkpointing', lsn);
    await this.#wal.checkpoint(lsn);
    this.#checkpoint = lsn;
    this.#book.event('checkpointed', lsn);
  }

  async #cut(): Promise<void> {
    const lsn = Math.max(this.#checkpoint, this.#wal.watermark('os') - this.#random.below(50));
    if (lsn <= 0) return;
    Atomics.add(this.#era, 0, 1);
    this.#book.event('cutting', lsn);
    await this.#wal.truncateAfter(lsn);
    this.#book.event('cut', lsn);
    Atomics.add(this.#era, 0, 1);
  }

  async subscribe(): Promise<Subscription> {
    const subscription = await this.#wal.subscribe('consumer', { level: 'os' });
    this.#book.event('subscribed', subscription.acknowledged);
    return subscription;
  }

  async consume(first: Subscription): Promise<void> {
    for (let subscription = first; !this.#over; subscription = await this.subscribe()) {
      try {
        await this.#deliver(subscription);
      } catch (error) {
        // It had been given what was cut off; what it has not acknowledged comes again.
        if (!hasCode(error, 'ERR_WAL_TRUNCATED', 'ERR_WAL_CLOSED')) throw error;
      }
      await subscription.close();
    }
  }

  async #deliver(subscription: Subscription): Promise<void> {
    let expected = subscription.acknowledged + 1;
    for await (const record of subscription) {
      if (record.lsn !== expected++)
        throw new Error(`LSN ${record.lsn} was delivered in the place of ${expected - 1}.`);
      identify(record);
      if (this.#over) return;
      if (record.lsn % 16 !== 0) continue;
      const era = Atomics.load(this.#era, 0);
      this.#book.event('asked', record.lsn);
      await subscription.ack(record.lsn);
      if (Atomics.load(this.#era, 0) === era) this.#book.event('acknowledged', record.lsn);
    }
  }

  async close(): Promise<void> {
    this.#over = true;
    await this.#wal.close();
    this.#book.event('closed', this.#wal.watermark('disk'));
  }
}

async function main(): Promise<void> {
  process.send?.('warm');
  const [task] = (await once(process, 'message')) as [WriterTask];
  const random = Random.of(task.seed, task.round, 99);
  process.send?.('opening');
  const wal = await WriteAheadLog.open(task.directory, {
    segmentBytes: random.pick([64, 64, 256, 1024]) * 1024,
    ringBytes: 2 * 1024 * 1024,
    syncMethod: random.pick(['fdatasync', 'fdatasync', 'dsync']),
    flushIntervalMs: random.pick([0, 5, 1000]),
  });
  const era = new SharedArrayBuffer(4);
  const upkeep = new Upkeep(wal, task, new Int32Array(era));
  const { notes, seed, round } = task;
  const produced: Promise<unknown>[] = [];
  for (let thread = 1; thread < PRODUCERS; thread++) {
    const producing = produceInThread({ notes, seed, round, thread, era }, wal.producer());
    produced.push(producing.ended.then(expectClosed));
  }
  // Before anything is cleaned up, so that the subscription holds clean-up off from the start.
  const subscription = await upkeep.subscribe();
  process.send?.('running');
  process.once('message', () => void upkeep.close().then(() => process.disconnect()));
  const work = [
    new Producing(wal, { notes, seed, round, thread: 0, era }).run().then(expectClosed),
    upkeep.run().catch(unlessClosed),
    upkeep.consume(subscription).catch(unlessClosed),
  ];
  await Promise.all([...work, ...produced]);
}

function expectClosed(codes: string[]): void {
  const other = codes.find((code) => code !== 'ERR_WAL_CLOSED');
  if (other !== undefined) throw new Error(`An append failed with ${other}.`);
}

function unlessClosed(error: unknown): void {
  if (!hasCode(error, 'ERR_WAL_CLOSED')) throw error;
}

function fail(error: unknown): void {
  process.stderr.write(`${(error as Error).stack}\n`);
  process.exit(3);
}

process.on('unhandledRejection', fail);
await main().catch(fail);
