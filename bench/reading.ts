import { parseArgs } from 'node:util';
import { verifyLog, WriteAheadLog } from 'ringwal';
import { inDirectory, median } from '../src/cli/bench/load.js';
import { bytesToWalk, readAndChecksum, walkInMemory } from './bare-loops.js';

/**
 * `npm run bench:read`: the read side, beside bare loops over the same bytes in the same run. Medians of the rounds.
 */
const { values: options } = parseArgs({
  options: {
    mib: { type: 'string', default: '512' },
    rounds: { type: 'string', default: '5' },
    directory: { type: 'string' },
  },
});
const MIB = 1024 * 1024;
const rounds = Number(options.rounds);
const records = Math.floor((Number(options.mib) * MIB) / 103);

async function seconds(work: () => Promise<unknown> | unknown): Promise<number> {
  const before = performance.now();
  await work();
  return (performance.now() - before) / 1000;
}

/** Contenders in turn, round by round; the median of the ratios of their times. */
async function compare(name: string, goal: string, bare: () => unknown, ours: () => Promise<unknown>): Promise<void> {
  const times: [number, number][] = [];
  await bare();
  await ours();
  for (let i = 0; i < rounds; i++) times.push([await seconds(bare), await seconds(ours)]);
  const rate = (at: 0 | 1) => records / median(times.map((pair) => pair[at])) / 1e6;
  const ratio = median(times.map(([theirs, mine]) => theirs / mine));
  console.log(
    `${name}: bare ${rate(0).toFixed(1)} million records/s, ringwal ${rate(1).toFixed(1)}, ratio ${ratio.toFixed(2)} (goal ${goal})`,
  );
}

async function lookUps(log: WriteAheadLog): Promise<void> {
  const times: number[] = [];
  const last = log.watermark('os');
  for (let i = 0; i < 3000; i++) {
    const lsn = 1 + Math.floor(Math.random() * last);
    const before = performance.now();
    await log.get(lsn);
    if (i >= 1000) times.push(performance.now() - before);
  }
  console.log(`get of a random LSN: p50 ${median(times).toFixed(3)} ms (goal: under 1 ms)`);
}

async function followers(base: string | undefined): Promise<void> {
  await inDirectory(base, async (directory) => {
    const log = await WriteAheadLog.open(directory);
    const delays: number[] = [];
    const committed = new Map<number, number>();
    log.on('commit:disk', ({ lsn }) => committed.set(lsn, performance.now()));
    const following = (async () => {
      for await (const batch of log.read({ follow: true }).batches()) {
        const { lsn } = batch[batch.length - 1];
        const at = committed.get(lsn);
        if (at !== undefined) delays.push(performance.now() - at);
        committed.delete(lsn);
      }
    })();
    await appendFor(log, 1000, 2);
    await log.close();
    await following;
    console.log(
      `from commit to delivery, 1,000 appends in flight: p50 ${median(delays).toFixed(3)} ms of ${delays.length} (goal: under 1 ms)`,
    );
  });
}

async function appendFor(log: WriteAheadLog, inFlight: number, forSeconds: number): Promise<number> {
  const payload = Buffer.alloc(100, 'x');
  let over = false;
  let appended = 0;
  setTimeout(() => {
    over = true;
  }, forSeconds * 1000);
  const before = performance.now();
  await Promise.all(
    Array.from({ length: inFlight }, async () => {
      while (!over) {
        await log.append(payload);
        appended++;
      }
    }),
  );
  return (appended * 1000) / (performance.now() - before);
}

/** Writers beside 16 subscriptions that wait for records of which they take one in each ten milliseconds. */
async function subscriptions(base: string | undefined): Promise<void> {
  const ratios: number[] = [];
  for (let round = 0; round < rounds; round++) {
    await inDirectory(base, async (directory) => {
      const log = await WriteAheadLog.open(directory);
      const alone = await appendFor(log, 1000, 1);
      let over = false;
      const open = await Promise.all(Array.from({ length: 16 }, (_, i) => log.subscribe(`consumer ${i}`)));
      const consuming = open.map(async (subscription) => {
        for await (const { lsn } of subscription) {
          await subscription.ack(lsn);
          await new Promise((resolve) => setTimeout(resolve, 10));
          if (over) break;
        }
      });
      const beside = await appendFor(log, 1000, 1);
      over = true;
      await Promise.all(consuming);
      await log.close();
      ratios.push(beside / alone);
    });
  }
  console.log(`16 subscriptions: writers keep ${(median(ratios) * 100).toFixed(0)} % (goal: 85 %)`);
}

await inDirectory(options.directory, async (directory) => {
  const log = await WriteAheadLog.open(directory, { durability: 'os' });
  const payloads = new Array<Buffer>(1000).fill(Buffer.alloc(100, 'x'));
  const puts = payloads.map((value, i) => ({ type: 'put', key: `key ${i}`, value }) as const);
  for (let i = 0; i < records; i += 4000) await Promise.all([0, 1, 2, 3].map(() => log.appendMany(payloads)));
  await log.close();
  console.log(`${records.toLocaleString('en')} records of 100 bytes, ${options.mib} MiB`);
  await compare(
    'verify',
    '0.7',
    () => readAndChecksum(directory),
    () => verifyLog(directory),
  );
  const again = await WriteAheadLog.open(directory, { readOnly: true });
  const bytes = bytesToWalk();
  await compare(
    '.batches()',
    '0.5',
    () => walkInMemory(bytes, records),
    async () => {
      for await (const _ of again.read().batches());
    },
  );
  await lookUps(again);
  await again.close();
  await inDirectory(options.directory, async (other) => {
    const kv = await WriteAheadLog.open(other, { durability: 'os' });
    for (let i = 0; i < records / 4; i += 4000) await Promise.all([0, 1, 2, 3].map(() => kv.batch([...puts])));
    const count = kv.watermark('os');
    const times: number[] = [];
    for (let i = 0; i < rounds; i++) times.push(await seconds(() => kv.replay(() => {})));
    console.log(
      `replay: ${(count / median(times) / 1e6).toFixed(1)} million records/s (goal: 3, where a bare loop does 6)`,
    );
    await kv.close();
  });
});
await followers(options.directory);
await subscriptions(options.directory);
