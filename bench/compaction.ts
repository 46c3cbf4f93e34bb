/**
 * What compaction does to a log of many puts over few keys, and to those who append meanwhile.
 * `node dist/bench/compaction.js [PUTS] [KEYS]`, 10,000,000 and 100,000 unless said otherwise.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { WriteAheadLog } from 'ringwal';

const [puts = 10_000_000, keys = 100_000] = process.argv.slice(2).map(Number);
const VALUE = Buffer.alloc(100, 'v');
const WINDOW_MS = 2000;
const ROUNDS = 5;

function rss(): number {
  return process.memoryUsage().rss / 1024 / 1024;
}

async function fill(log: WriteAheadLog): Promise<void> {
  const key = (i: number) => `key ${String((i * 2_654_435_761) % keys).padStart(10, '0')}`;
  for (let i = 0; i < puts; ) {
    const appends: Promise<unknown>[] = [];
    for (const end = Math.min(puts, i + 20_000); i < end; i++) {
      appends.push(log.put(key(i), VALUE, { durability: 'os' }));
    }
    await Promise.all(appends);
  }
  await log.rotate();
}

/** Durable appends a second, of 1,000 in flight. */
async function appendsPerSecond(log: WriteAheadLog): Promise<number> {
  const until = performance.now() + WINDOW_MS;
  let appended = 0;
  const producer = async () => {
    while (performance.now() < until) {
      await log.append(VALUE);
      appended++;
    }
  };
  await Promise.all(Array.from({ length: 1000 }, producer));
  return appended / (WINDOW_MS / 1000);
}

function median(values: number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}

/** In turns, so that what else the machine does hits both alike. Each compaction is stopped before it changes anything. */
async function besideCompaction(log: WriteAheadLog): Promise<void> {
  const alone: number[] = [];
  const beside: number[] = [];
  let unfinished = 0;
  await appendsPerSecond(log);
  for (let round = 0; round < ROUNDS; round++) {
    alone.push(await appendsPerSecond(log));
    const controller = new AbortController();
    const compacting = log.compact({ signal: controller.signal }).then(
      () => undefined,
      () => unfinished++,
    );
    beside.push(await appendsPerSecond(log));
    controller.abort();
    await compacting;
  }
  const [before, during] = [median(alone), median(beside)];
  console.log(`appends of 100 bytes, 1,000 in flight, median of ${ROUNDS}:`);
  console.log(`  alone                ${Math.round(before).toLocaleString('en')}/s`);
  console.log(`  beside a compaction  ${Math.round(during).toLocaleString('en')}/s, ${percent(during / before)} of it`);
  if (unfinished < ROUNDS) console.log(`  (only ${unfinished} compactions lasted as long as the appends)`);
}

function percent(part: number): string {
  return `${(part * 100).toFixed(1)} %`;
}

async function measure(log: WriteAheadLog): Promise<void> {
  const idle = rss();
  let most = idle;
  const timer = setInterval(() => {
    most = Math.max(most, rss());
  }, 20);
  const { records, bytesBefore, bytesAfter, durationMs } = await log.compact();
  clearInterval(timer);
  console.log(`${puts.toLocaleString('en')} puts over ${keys.toLocaleString('en')} keys:`);
  console.log(`  size     ${percent(bytesAfter / bytesBefore)} of ${(bytesBefore / 1e6).toFixed(0)} MB`);
  console.log(`  speed    ${Math.round(records / (durationMs / 1000)).toLocaleString('en')} records/s`);
  console.log(`  memory   ${(most - idle).toFixed(0)} MiB above idle`);
}

for (const work of [measure, besideCompaction]) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'ringwal-bench-'));
  const log = await WriteAheadLog.open(directory, { flushIntervalMs: 0 });
  try {
    await fill(log);
    await work(log);
  } finally {
    await log.close();
    fs.rmSync(directory, { recursive: true, force: true });
  }
}
