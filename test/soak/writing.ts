// The process that must stay flat: `writing DIRECTORY SEED SECONDS EVERY_MS LEAK`. Works on one log in every way at once,
// closes it and opens it again now and then, and sends samples of what it uses. With LEAK it leaks on purpose.
import fs from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { WalError, WriteAheadLog } from 'ringwal';
import { identify, labelOf, payloadOf } from '../crash/records.js';
import { Random } from '../simulation/random.js';
import { sendSamples } from './sampler.js';
import type { SoakProducerTask } from './soak-producer.js';

const [directory, seed, seconds, everyMs, leak] = process.argv.slice(2);
const random = new Random(Number(seed));
const endsAt = performance.now() + Number(seconds) * 1000;
const PRODUCERS = 3;
/** How long a log stays open, and a producer thread connected. */
const LIFE_MS = 15_000;
const THREAD_MS = 4_000;
const counts = {
  lives: 0,
  records: 0,
  threads: 0,
  terminated: 0,
  delivered: 0,
  followed: 0,
  cuts: 0,
  cleanups: 0,
  rotations: 0,
};

const hasCode = (error: unknown, ...codes: string[]) => error instanceof WalError && codes.includes(error.code);
/** What the end of the log, or a cut, does to whoever is at it. */
const expected = (error: unknown) => {
  if (!hasCode(error, 'ERR_WAL_CLOSED', 'ERR_WAL_TRUNCATED')) throw error;
};

class Life {
  readonly #wal: WriteAheadLog;
  readonly #over: () => boolean;
  #checkpoint: number;

  constructor(wal: WriteAheadLog, over: () => boolean) {
    this.#wal = wal;
    this.#over = over;
    this.#checkpoint = wal.recovery.checkpoint;
  }

  async produce(thread: number): Promise<void> {
    while (!this.#over()) {
      const task: SoakProducerTask = { handle: this.#wal.producer(), name: `s${counts.threads++}t${thread}` };
      const worker = new Worker(new URL('./soak-producer.js', import.meta.url), { workerData: task });
      const ended = new Promise<void>((resolve, reject) => {
        worker.once('exit', () => resolve());
        worker.once('error', reject);
      });
      await Promise.race([delay(THREAD_MS / 2 + random.below(THREAD_MS)), ended]);
      if (random.oneIn(3)) {
        counts.terminated++;
        await worker.terminate();
      } else worker.postMessage('end');
      await ended;
    }
  }

  /** This thread's own appends, large ones among them. */
  async append(): Promise<void> {
    for (let number = 0; !this.#over(); ) {
      const name = `s${counts.lives}own`;
      const wave = Array.from({ length: 10 }, () => {
        return { name, number: number++, size: 1, place: 0, kind: 'data' } as const;
      });
      await Promise.all(
        wave.map((identity, i) => this.#wal.append(payloadOf(identity), { durability: i % 2 === 0 ? 'disk' : 'os' })),
      );
      await delay(10);
    }
  }

  async upkeep(): Promise<void> {
    while (!this.#over()) {
      await delay(50 + random.below(100));
      const last = this.#wal.watermark('os');
      if (random.oneIn(8)) {
        await this.#wal.rotate();
        counts.rotations++;
      } else if (random.oneIn(12)) {
        await this.#wal.truncateAfter(Math.max(this.#checkpoint, last - random.below(30)));
        counts.cuts++;
      } else if (last - 3000 > this.#checkpoint) {
        this.#checkpoint = last - 3000;
        await this.#wal.checkpoint(this.#checkpoint);
        counts.cleanups++;
      }
    }
  }

  async follow(): Promise<void> {
    while (!this.#over()) {
      const stop = new AbortController();
      const timer = setTimeout(() => stop.abort(), 500 + random.below(3000));
      try {
        const from = Math.max(this.#wal.stats().firstLsn, this.#wal.watermark('os') - 100);
        for await (const record of this.#wal.read({ from, follow: true, level: 'os', signal: stop.signal })) {
          identify(record);
          counts.followed++;
          // One that leaves in the middle must leave nothing behind.
          if (random.oneIn(2000)) break;
        }
      } catch (error) {
        if (!stop.signal.aborted) expected(error);
      }
      clearTimeout(timer);
    }
  }

  async consume(): Promise<void> {
    while (!this.#over()) {
      try {
        const subscription = await this.#wal.subscribe('consumer', { level: 'os' });
        let next = subscription.acknowledged + 1;
        for await (const record of subscription) {
          if (record.lsn !== next++) throw new Error(`LSN ${record.lsn} was delivered in the place of ${next - 1}.`);
          identify(record);
          counts.delivered++;
          if (record.lsn % 64 === 0) await subscription.ack(record.lsn);
          if (this.#over() || random.oneIn(20_000)) break;
        }
        await subscription.close();
      } catch (error) {
        expected(error);
      }
    }
  }

  async lookUp(): Promise<void> {
    while (!this.#over()) {
      const lsn = this.#wal.watermark('os') - random.below(2000);
      await delay(20);
      const found = await this.#wal.get(Math.max(1, lsn)).catch((error) => {
        if (!hasCode(error, 'ERR_WAL_NOT_FOUND')) expected(error);
      });
      if (found !== undefined) labelOf(identify(found));
    }
  }
}

async function live(): Promise<void> {
  counts.lives++;
  const wal = await WriteAheadLog.open(directory, {
    segmentBytes: 1024 * 1024,
    ringBytes: 4 * 1024 * 1024,
    flushIntervalMs: 100,
  });
  wal.on('commit', () => {});
  const until = Math.min(endsAt, performance.now() + LIFE_MS);
  const life = new Life(wal, () => performance.now() > until);
  const work = [life.append(), life.upkeep(), life.follow(), life.lookUp()];
  for (let thread = 0; thread < PRODUCERS; thread++) work.push(life.produce(thread));
  const consumer = life.consume();
  await Promise.all(work);
  counts.records += wal.stats().records;
  // Ends the loop of the consumer, which may be waiting.
  await wal.close();
  await consumer;
}

const leaked: unknown[] = [];

function leakOnPurpose(): void {
  if (leak === 'memory') leaked.push(Buffer.alloc(256 * 1024, 1));
  else if (leak === 'handles') leaked.push(fs.openSync(process.execPath, 'r'));
  else if (leak === 'threads') leaked.push(new Worker('setInterval(() => {}, 1000)', { eval: true }));
}

sendSamples(Number(everyMs));
if (leak !== 'none') setInterval(leakOnPurpose, 1000);
while (performance.now() < endsAt) await live();
process.send?.({ counts }, () => process.exit());
