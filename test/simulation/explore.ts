import { Violation } from './model.js';
import { Simulation } from './simulation.js';
import type { Tally } from './tally.js';

export const STEPS = 60;

export interface Failure {
  seed: number;
  error: unknown;
  steps: number[];
}

export function allSteps(count = STEPS): number[] {
  return Array.from({ length: count }, (_, i) => i + 1);
}

/** Runs one seed; adds what it did to `tally`; returns how it failed, if it did. */
export async function runSeed(
  seed: number,
  steps: number[],
  tally?: Tally,
  trace?: (line: string) => void,
): Promise<Failure | undefined> {
  const simulation = new Simulation({ seed, trace });
  try {
    await simulation.run(steps);
    return undefined;
  } catch (error) {
    return { seed, error, steps };
  } finally {
    tally?.add(simulation.tally);
  }
}

/** The fewest steps, found by leaving out ever smaller stretches of them, with which the seed still fails. */
export async function shrink(failure: Failure): Promise<Failure> {
  let smallest = failure;
  for (let size = Math.ceil(failure.steps.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < smallest.steps.length; ) {
      const fewer = smallest.steps.filter((_, i) => i < from || i >= from + size);
      const again = await runSeed(failure.seed, fewer);
      if (again === undefined || kindOf(again.error) !== kindOf(failure.error)) from += size;
      else smallest = again;
    }
  }
  return smallest;
}

/** Another fault that shows up on the way is not the one that is looked for. */
export function kindOf(error: unknown): string {
  if (error instanceof Violation) return error.invariant;
  return `${(error as NodeJS.ErrnoException).code ?? (error as Error).name}`;
}

/** What happened in a failing run, the end of it. */
export async function traceOf(failure: Failure, lines = 120): Promise<string[]> {
  const trace: string[] = [];
  await runSeed(failure.seed, failure.steps, undefined, (line) => trace.push(line));
  return trace.slice(-lines);
}
