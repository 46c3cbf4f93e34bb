/**
 * Kills `ringwal ingest` with SIGKILL many times on one growing log, and checks after each that nothing acknowledged is
 * missing. By hand, after a build: node dist/test/long/kill9.js [--rounds 50] [--seed 1] [--life 400] [FILE...]
 * The lines of the files (or generated ones) are fed over and over.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { killRounds, seeded } from '../kill9-rounds.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '50' },
    seed: { type: 'string', default: '1' },
    /** The longest that an ingest lives, in milliseconds. */
    life: { type: 'string', default: '400' },
    'segment-bytes': { type: 'string', default: '4194304' },
  },
});

function input(): Buffer {
  if (positionals.length > 0) return Buffer.concat(positionals.map((file) => fs.readFileSync(file)));
  return Buffer.from(Array.from({ length: 20_000 }, (_, i) => `generated line ${i}\n`).join(''));
}

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'ringwal-kill9-'));
try {
  const rounds = killRounds({
    directory: path.join(directory, 'log'),
    acks: path.join(directory, 'acks'),
    input: input(),
    rounds: Number(values.rounds),
    random: seeded(Number(values.seed)),
    longestLife: Number(values.life),
    ingestArguments: ['--segment-bytes', values['segment-bytes']],
  });
  for await (const { round, acknowledged, records, verdict } of rounds) {
    console.log(`round ${round}: ${verdict}, ${records} records, all ${acknowledged} acknowledged ones among them`);
  }
  console.log(`${values.rounds} kills: nothing acknowledged was lost.`);
} finally {
  fs.rmSync(directory, { recursive: true, force: true });
}
