/**
 * Kills a process that appends and consumes, with SIGKILL, many times on one log, and checks after each that the consumer
 * misses nothing and sees again only what it had not acknowledged.
 * By hand, after a build: node dist/test/long/consumer-kill.js [--rounds 50] [--seed 1] [--life 400]
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { consumerRounds } from '../consumer-rounds.js';
import { seeded } from '../kill9-rounds.js';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '50' },
    seed: { type: 'string', default: '1' },
    /** The longest that a consumer lives, in milliseconds. */
    life: { type: 'string', default: '400' },
  },
});

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'ringwal-consumer-kill-'));
try {
  let total = 0;
  let repeated = 0;
  const rounds = consumerRounds({
    directory,
    rounds: Number(values.rounds),
    random: seeded(Number(values.seed)),
    longestLife: Number(values.life),
  });
  for await (const { round, from, delivered, again, acknowledged } of rounds) {
    total += delivered;
    repeated += again;
    console.log(`round ${round}: from ${from}, ${delivered} delivered (${again} again), ${acknowledged} acknowledged`);
  }
  console.log(`${values.rounds} kills, ${total} deliveries, ${repeated} of them repeated: nothing was missed.`);
} finally {
  fs.rmSync(directory, { recursive: true, force: true });
}
