import path from 'node:path';
import t from 'tap';
import { temporaryDirectory } from './helpers.js';
import { killRounds, seeded } from './kill9-rounds.js';

t.test('Durable: what ingest acknowledged at disk survives kill -9, again and again on one log', async (t) => {
  const directory = temporaryDirectory(t);
  const lines = Array.from({ length: 2000 }, (_, i) => `line ${i} ${'.'.repeat(i % 90)}\n`);
  const rounds = killRounds({
    directory: path.join(directory, 'log'),
    acks: path.join(directory, 'acks'),
    input: Buffer.from(lines.join('')),
    rounds: 6,
    random: seeded(20),
    longestLife: 300,
    ingestArguments: ['--segment-bytes', '262144'],
  });
  let last = 0;
  for await (const { round, acknowledged, records, verdict } of rounds) {
    t.ok(acknowledged >= last && records >= acknowledged, `round ${round}: ${acknowledged} of ${records}, ${verdict}`);
    last = acknowledged;
  }
  t.ok(last > 0, 'something was acknowledged');
});
