/**
 * Real crashes, many of them: `npm run crash -- --rounds 500 [--seed 1] [--life 250] [--threads]`.
 * Kills processes with SIGKILL, or with `--threads` single threads of a log, and checks every promise after each.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { killRounds } from './kill-rounds.js';
import { threadDeaths } from './thread-deaths.js';

const HELP = `Kills a process that works on a log, with SIGKILL at random, and checks after each death that every promise was kept.

  --rounds N         how many deaths (default 100)
  --seed S           what the writers do follows from it (default: by the clock; it is printed)
  --life MS          the longest life of a writer once it runs (default 250)
  --rounds-per-log N begin another log after so many (default 50)
  --threads          instead of processes, kill threads: the I/O actor, an encoder, a producer, the opening thread
  --verbose          a line for each round`;

interface Settings {
  rounds: number;
  seed: number;
  life: number;
  roundsPerLog: number;
  verbose: boolean;
}

async function processes(directory: string, { rounds, seed, life, roundsPerLog, verbose }: Settings): Promise<string> {
  const moments = new Map<string, number>();
  const verdicts = new Map<string, number>();
  const count = (counts: Map<string, number>, name: string) => counts.set(name, (counts.get(name) ?? 0) + 1);
  let records = 0;
  let acknowledged = 0;
  let cuts = 0;
  const startedAt = performance.now();
  for await (const round of killRounds({ directory, rounds, seed, longestLife: life, roundsPerLog })) {
    count(moments, round.moment);
    count(verdicts, round.verdict);
    records += round.records;
    ({ acknowledged, cuts } = round);
    if (verbose || round.round % 50 === 0 || round.round === rounds) {
      const seconds = ((performance.now() - startedAt) / 1000).toFixed(0);
      console.log(
        `round ${round.round} of ${rounds}, ${seconds} s: killed ${round.moment}, ${round.verdict}, ${round.records} records; ` +
          `${acknowledged} acknowledged and ${cuts} cuts so far, ${round.milliseconds.toFixed(0)} ms`,
      );
    }
  }
  const listed = (counts: Map<string, number>) => [...counts].map(([name, times]) => `${times} ${name}`).join(', ');
  const seconds = (performance.now() - startedAt) / 1000;
  return (
    `${rounds} rounds in ${seconds.toFixed(0)} s (${((seconds / rounds) * 1000).toFixed(0)} ms each), seed ${seed}\n` +
    `killed: ${listed(moments)}\nfound: ${listed(verdicts)}\n` +
    `${acknowledged} records acknowledged, ${records} read back, ${cuts} cuts: every promise was kept.`
  );
}

async function threads(directory: string, { rounds, seed, life, roundsPerLog, verbose }: Settings): Promise<string> {
  const deathsOf = new Map<string, number>();
  let acknowledged = 0;
  const startedAt = performance.now();
  for await (const round of threadDeaths({ directory, rounds, seed, longestLife: life, roundsPerLog })) {
    const { victim, deaths, records, milliseconds } = round;
    acknowledged = round.acknowledged;
    deathsOf.set(victim, (deathsOf.get(victim) ?? 0) + deaths);
    if (verbose || round.round % 50 === 0 || round.round === rounds) {
      console.log(
        `round ${round.round} of ${rounds}: ${deaths} of ${victim}, ${records} records; ` +
          `${acknowledged} acknowledged so far, ${milliseconds.toFixed(0)} ms`,
      );
    }
  }
  const seconds = (performance.now() - startedAt) / 1000;
  return (
    `${rounds} rounds in ${seconds.toFixed(0)} s, seed ${seed}\nterminated: ` +
    `${[...deathsOf].map(([victim, deaths]) => `${deaths} ${victim}`).join(', ')}\n` +
    `${acknowledged} records acknowledged: every promise was kept.`
  );
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '100' },
      seed: { type: 'string', default: String(Date.now() % 1_000_000) },
      life: { type: 'string', default: '250' },
      'rounds-per-log': { type: 'string', default: '50' },
      threads: { type: 'boolean', default: false },
      verbose: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) return console.log(HELP);
  const settings = {
    rounds: Number(values.rounds),
    seed: Number(values.seed),
    life: Number(values.life),
    roundsPerLog: Number(values['rounds-per-log']),
    verbose: values.verbose,
  };
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'ringwal-crash-'));
  console.log(`seed ${settings.seed}, in ${directory}`);
  try {
    console.log(await (values.threads ? threads : processes)(directory, settings));
    fs.rmSync(directory, { recursive: true, force: true });
  } catch (error) {
    console.log(`A promise was broken (seed ${settings.seed}); the log is kept in ${directory}`);
    console.log((error as Error).stack);
    process.exitCode = 1;
  }
}

await main();
