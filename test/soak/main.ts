/**
 * Everything at once, for long: `npm run soak -- --minutes 10 [--seed 1] [--leak memory|handles|threads]`.
 * One process works on a log in every way, one follows it from beside, and this one kills writers of a second log over and over
 * and opens what they left. Memory, handles and threads of all three must stay flat.
 */
import { fork } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { verifyLog } from 'ringwal';
import { killRounds } from '../crash/kill-rounds.js';
import { judge, type Sample, table } from './judge.js';
import { sample } from './sampler.js';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    leak: { type: 'string', default: 'none' },
  },
});
const seconds = Number(values.minutes) * 60;
const everyMs = Math.max(500, Math.min(5000, seconds * 8));
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'ringwal-soak-'));
const log = path.join(directory, 'log');
/** How long after its time a process may take to end. */
const PATIENCE_MS = 60_000;

interface Ended {
  name: string;
  samples: Sample[];
  counts: Record<string, number>;
}

function run(name: string, program: string, args: unknown[]): Promise<Ended> {
  const file = fileURLToPath(new URL(`./${program}.js`, import.meta.url));
  const child = fork(file, args.map(String), { execArgv: ['--expose-gc'] });
  const ended: Ended = { name, samples: [], counts: {} };
  child.on('message', (message: { sample?: Sample; counts?: Record<string, number> }) => {
    if (message.sample !== undefined) ended.samples.push(message.sample);
    if (message.counts !== undefined) ended.counts = message.counts;
  });
  const deadline = setTimeout(() => child.kill('SIGKILL'), seconds * 1000 + PATIENCE_MS);
  return new Promise((resolve, reject) => {
    child.once('close', (code, signal) => {
      clearTimeout(deadline);
      if (code === 0) resolve(ended);
      else reject(new Error(`${name}: ended with ${signal ?? code}`));
    });
  });
}

/** Kills writers of another log until the time is over. */
async function kills(endsAt: number): Promise<Ended> {
  const ended: Ended = {
    name: 'killing and reopening',
    samples: [],
    counts: { kills: 0, acknowledged: 0, records: 0 },
  };
  const startedAt = performance.now();
  const sampling = setInterval(() => ended.samples.push(sample(startedAt)), everyMs);
  const killed = path.join(directory, 'killed');
  fs.mkdirSync(killed);
  const options = { directory: killed, rounds: Number.MAX_SAFE_INTEGER, seed: Number(values.seed) };
  for await (const { round, acknowledged, records } of killRounds({ ...options, longestLife: 400, roundsPerLog: 40 })) {
    ended.counts = { kills: round, acknowledged, records: ended.counts.records + records };
    if (round % 100 === 0) console.log(`${round} kills, ${acknowledged} records acknowledged by those that died`);
    if (performance.now() > endsAt) break;
  }
  clearInterval(sampling);
  return ended;
}

console.log(`${values.minutes} minutes, seed ${values.seed}, a sample every ${everyMs} ms, in ${directory}`);
try {
  const endsAt = performance.now() + seconds * 1000;
  const all = await Promise.all([
    run('writing', 'writing', [log, values.seed, seconds, everyMs, values.leak]),
    run('following from another process', 'beside', [log, seconds, everyMs]),
    kills(endsAt),
  ]);
  const { verdict, damage } = await verifyLog(log);
  if (verdict !== 'clean') throw new Error(`verify: ${verdict} ${JSON.stringify(damage)}`);
  for (const { name, samples, counts } of all) {
    console.log(`\n${table(name, samples)}`);
    console.log(
      `  ${Object.entries(counts)
        .map(([what, count]) => `${count} ${what}`)
        .join(', ')}`,
    );
  }
  const growing = all.flatMap(({ name, samples }) =>
    judge(samples)
      .filter(({ flat }) => !flat)
      .map(({ measure }) => `${measure} of '${name}'`),
  );
  if (growing.length > 0) throw new Error(`not flat: ${growing.join(', ')}`);
  console.log('\nEvery promise was kept, the log is sound, and everything stayed flat.');
  fs.rmSync(directory, { recursive: true, force: true });
} catch (error) {
  console.log(`\nThe soak failed (seed ${values.seed}, in ${directory}): ${(error as Error).stack}`);
  process.exit(1);
}
