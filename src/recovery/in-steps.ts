import { setImmediate as breathe } from 'node:timers/promises';

/** Runs a generator to its end, letting others have the thread between its steps. */
export async function inSteps<P, T>(
  steps: Generator<P, T, undefined>,
  onStep?: (progress: P) => void,
  signal?: AbortSignal,
): Promise<T> {
  let step = steps.next();
  while (!step.done) {
    onStep?.(step.value);
    await breathe();
    if (signal?.aborted) {
      steps.return(undefined as T);
      throw signal.reason;
    }
    step = steps.next();
  }
  return step.value;
}
