import { setImmediate as breathe } from 'node:timers/promises';

/** Runs a generator to its end, letting others have the thread between its steps. */
export async function inSteps<P, T>(
  steps: Generator<P, T, undefined>,
  onStep?: (progress: P) => void,
  signal?: AbortSignal,
): Promise<T> {
  for (let step = steps.next(); ; step = steps.next()) {
    if (step.done) return step.value;
    onStep?.(step.value);
    await breathe();
    if (!signal?.aborted) continue;
    steps.return(undefined as T);
    throw signal.reason;
  }
}
