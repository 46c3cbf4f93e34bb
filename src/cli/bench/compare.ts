import { raw, ringwal, type Work } from './contenders.js';
import { type Contender, inDirectory, load, type Measurement, median, medianOf } from './load.js';

/** The log beside the raw loop. */
export interface Comparison {
  ringwal: Measurement;
  raw: Measurement;
  /** Median of the rounds' ratios of records per second: above 1, the log is quicker. */
  ratio: number;
}

/** Both in turn, several rounds, each on a fresh directory below `base`. */
export async function compare(
  work: Work,
  { rounds, seconds, base, signal }: { rounds: number; seconds: number; base?: string; signal?: AbortSignal },
): Promise<Comparison> {
  const ours: Measurement[] = [];
  const theirs: Measurement[] = [];
  const one = (make: typeof ringwal) =>
    inDirectory(base, async (directory) => measure(await make(work, directory), work, seconds, signal));
  for (let round = 0; round < rounds && signal?.aborted !== true; round++) {
    // Each goes first every other time.
    if (round % 2 === 0) theirs.push(await one(raw));
    ours.push(await one(ringwal));
    if (round % 2 === 1) theirs.push(await one(raw));
  }
  signal?.throwIfAborted();
  const ratio = median(ours.map((mine, i) => mine.recordsPerSecond / theirs[i].recordsPerSecond));
  return { ringwal: medianOf(ours), raw: medianOf(theirs), ratio };
}

/**
 * After so many seconds a fresh process has settled: the optimising compiler has several threads to look at on our side, and
 * takes the processors from them meanwhile. With 64 in flight the second half of the first second is a third slower.
 */
const SETTLED_SECONDS = 1.5;
/** Where the same process did the same before, as here. */
const WARM_UP_SECONDS = 0.7;

/** How long to warm up in a fresh process or thread, before a measurement of so many seconds. */
export function freshWarmUp(seconds: number): number {
  return Math.max(seconds / 5, Math.min(3 * seconds, SETTLED_SECONDS));
}

/** A short run first; the contender is closed in the end. */
export async function measure(
  contender: Contender,
  work: Work,
  seconds: number,
  signal?: AbortSignal,
  warmUpSeconds = Math.max(seconds / 5, Math.min(seconds, WARM_UP_SECONDS)),
): Promise<Measurement & { allRecords: number }> {
  try {
    const warmUp = await load(contender, work, warmUpSeconds, signal);
    const measured = await load(contender, work, seconds, signal);
    return { ...measured, allRecords: warmUp.records + measured.records };
  } finally {
    await contender.close();
  }
}
