import t from 'tap';
import { consumerRounds } from './consumer-rounds.js';
import { temporaryDirectory } from './helpers.js';
import { seeded } from './kill9-rounds.js';

t.test('a consumer killed at random misses nothing, and sees again only what it had not acknowledged', async (t) => {
  const rounds = consumerRounds({
    directory: temporaryDirectory(t),
    rounds: 6,
    random: seeded(3),
    longestLife: 250,
  });
  let position = 0;
  for await (const { round, from, delivered, again, acknowledged } of rounds) {
    t.ok(from >= position, `round ${round} began at ${from}: ${delivered} records, ${again} of them again`);
    position = acknowledged;
  }
  t.ok(position > 0, `${position} records were acknowledged`);
});
