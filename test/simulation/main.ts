import { parseArgs } from 'node:util';
import { allSteps, runSeed, STEPS, shrink, traceOf } from './explore.js';
import { Tally } from './tally.js';

const HELP = `Runs the log on a simulated disk, through crashes, faults and damage, one life per seed.

  --seeds N   how many seeds to run (default 1000)
  --seed S    the first seed (default 1)
  --steps N   steps of each life (default ${STEPS})
  --trace     print what happens (for a single seed)
  --points    list the crash points that were covered
  --no-shrink do not look for the smallest run that still fails`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seeds: { type: 'string' },
      seed: { type: 'string' },
      steps: { type: 'string' },
      trace: { type: 'boolean' },
      points: { type: 'boolean' },
      'no-shrink': { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) return console.log(HELP);
  const first = Number(values.seed ?? 1);
  const seeds = Number(values.seeds ?? (values.seed === undefined ? 1000 : 1));
  const steps = allSteps(Number(values.steps ?? STEPS));
  const tally = new Tally();
  const startedAt = performance.now();
  for (let seed = first; seed < first + seeds; seed++) {
    const failure = await runSeed(seed, steps, tally, values.trace ? console.log : undefined);
    if (failure === undefined) continue;
    console.log(`Seed ${seed} fails: ${describe(failure.error)}`);
    process.exitCode = 1;
    if (values['no-shrink']) return;
    const smallest = await shrink(failure);
    console.log((await traceOf(smallest)).join('\n'));
    console.log(`\nThe smallest run that fails: seed ${seed}, steps ${smallest.steps.join(' ')}`);
    console.log(describe(smallest.error));
    return;
  }
  const seconds = (performance.now() - startedAt) / 1000;
  console.log(
    `${seeds} seeds (${first} to ${first + seeds - 1}), no broken invariant\n${tally.lines().join('\n')}\n` +
      `${(seeds / seconds).toFixed(1)} seeds/s, ${(tally.crashes / seconds).toFixed(0)} crashes/s, ${seconds.toFixed(1)} s\n\n` +
      `What the disk did:\n${tally.faults.lines().join('\n')}\n\nWhat was done to the log:\n${operations(tally)}`,
  );
  if (values.points) console.log([...tally.points].sort().join('\n'));
}

function operations({ operations }: Tally): string {
  return [...operations].map(([name, count]) => `${String(count).padStart(10)}  ${name}`).join('\n');
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

await main();
