import t from 'tap';
import { killRounds, type Moment } from './crash/kill-rounds.js';
import { temporaryDirectory } from './helpers.js';

/** `npm run crash -- --rounds 1000` does many more. */
const ROUNDS = 14;

t.test('every promise is kept through kill -9 of a process that does everything at once', async (t) => {
  const directory = temporaryDirectory(t);
  const moments = new Set<Moment>();
  let acknowledged = 0;
  const options = { directory, rounds: ROUNDS, seed: 3, longestLife: 200, roundsPerLog: 10 };
  // Throws when one was broken.
  for await (const round of killRounds(options)) {
    moments.add(round.moment);
    acknowledged = round.acknowledged;
  }
  t.ok(acknowledged > 100, `${acknowledged} records were acknowledged`);
  t.same([...moments].sort(), ['closing', 'not at all', 'opening', 'running'], 'killed at every kind of moment');
});
