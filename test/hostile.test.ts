import t from 'tap';
import { allProperties } from './hostile/all.js';

/**
 * Hostile bytes: properties of everything that decodes something, tried on random and mutated input. The seed is always
 * the same; HOSTILE_SEED=n tries another one, HOSTILE_RUNS=n that many times the inputs. `npm run fuzz` goes on for as
 * long as it is told to.
 */
const seed = Number(process.env.HOSTILE_SEED ?? 20260101);
const factor = Number(process.env.HOSTILE_RUNS ?? 1);

t.comment(`seed ${seed}`);

for (const [about, properties] of Object.entries(await allProperties())) {
  t.test(about, async (t) => {
    for (const { name, runs, check } of properties) {
      try {
        await check(seed, Math.ceil(runs * factor));
        t.pass(name);
      } catch (error) {
        const { message, cause } = error as Error;
        t.fail(`${name}: ${message}`, { found: (cause as Error | undefined)?.stack });
      }
    }
  });
}
