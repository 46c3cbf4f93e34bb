import { parseArgs } from 'node:util';
import { Random } from '../simulation/random.js';
import { allProperties } from './all.js';

/**
 * `npm run fuzz -- --minutes M [--seed S] [--only TEXT]`: the properties of hostile.test.ts, over and over, each round
 * with another seed that follows from S. Ends with code 1 at the first that does not hold, with what is needed to see it
 * again: seed, path, and the smallest input that fast-check found.
 */
const { values } = parseArgs({
  options: { minutes: { type: 'string' }, seed: { type: 'string' }, only: { type: 'string' } },
});
const minutes = Number(values.minutes ?? 1);
const first = Number(values.seed ?? Date.now() % 2 ** 31);
if (!(minutes > 0) || !Number.isSafeInteger(first)) {
  console.error('npm run fuzz -- --minutes M [--seed S] [--only TEXT]');
  process.exit(2);
}

const properties = Object.values(await allProperties())
  .flat()
  .filter(({ name }) => name.includes(values.only ?? ''));
if (properties.length === 0) throw new Error(`There is no property with '${values.only}' in its name.`);

const random = new Random(first);
const end = Date.now() + minutes * 60_000;
let rounds = 0;
let runs = 0;
console.log(`${properties.length} properties, seed ${first}`);
while (Date.now() < end) {
  for (const one of properties) {
    const seed = random.next() | 0;
    try {
      await one.check(seed, one.runs);
    } catch (error) {
      console.error(
        `${one.name}\n(round ${rounds + 1}, seed ${seed})\n${(error as Error).message}\n${((error as Error).cause as Error | undefined)?.stack}`,
      );
      process.exit(1);
    }
    runs += one.runs;
    if (Date.now() >= end) break;
  }
  rounds++;
}
console.log(`${runs} inputs in ${rounds} rounds, seed ${first}: all properties held`);
