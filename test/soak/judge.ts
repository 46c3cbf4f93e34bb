/** What a process uses at one moment. */
export interface Sample {
  /** Seconds since the process began to work. */
  at: number;
  rss: number;
  heap: number;
  external: number;
  arrayBuffers: number;
  /** 0 where the system does not tell. */
  handles: number;
  threads: number;
}

export type Measure = Exclude<keyof Sample, 'at'>;

const MIB = 1024 * 1024;

/** Growth that is no leak: what allocators, caches and thread pools do in their own time. */
const SLACK: Record<Measure, number> = {
  rss: 24 * MIB,
  heap: 4 * MIB,
  external: 8 * MIB,
  arrayBuffers: 8 * MIB,
  handles: 4,
  threads: 3,
};
/** Of the level that it grows from. */
const SHARE = 0.08;
/** The first part of a run is left out: pools fill, code is compiled. */
const WARM_UP = 0.25;

export const MEASURES = Object.keys(SLACK) as Measure[];

export interface Judgement {
  measure: Measure;
  first: number;
  last: number;
  highest: number;
  /** Per hour, as a straight line through all that follows the warm-up would have it. */
  slope: number;
  flat: boolean;
}

/** Whether each measure stays flat: what is used in the last third is not more than in the first, give or take a slack. */
export function judge(samples: readonly Sample[]): Judgement[] {
  const steady = samples.slice(Math.floor(samples.length * WARM_UP));
  const third = Math.max(1, Math.floor(steady.length / 3));
  return MEASURES.map((measure) => {
    const values = steady.map((sample) => sample[measure]);
    const first = median(values.slice(0, third));
    const last = median(values.slice(-third));
    return {
      measure,
      first,
      last,
      highest: Math.max(...samples.map((sample) => sample[measure])),
      slope: slopeOf(steady, measure) * 3600,
      flat: last - first <= Math.max(SLACK[measure], first * SHARE),
    };
  });
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

/** Least squares, per second. */
function slopeOf(samples: readonly Sample[], measure: Measure): number {
  const meanAt = samples.reduce((sum, { at }) => sum + at, 0) / samples.length;
  const mean = samples.reduce((sum, sample) => sum + sample[measure], 0) / samples.length;
  let above = 0;
  let below = 0;
  for (const sample of samples) {
    above += (sample.at - meanAt) * (sample[measure] - mean);
    below += (sample.at - meanAt) ** 2;
  }
  return below === 0 ? 0 : above / below;
}

const BARS = '▁▂▃▄▅▆▇█';
const COLUMNS = 48;

/** A line of bars, from nothing to the highest. */
export function graph(samples: readonly Sample[], measure: Measure): string {
  const highest = Math.max(1, ...samples.map((sample) => sample[measure]));
  const columns = Math.min(COLUMNS, samples.length);
  return Array.from({ length: columns }, (_, i) => {
    const from = Math.floor((i * samples.length) / columns);
    const to = Math.max(from + 1, Math.floor(((i + 1) * samples.length) / columns));
    const value = median(samples.slice(from, to).map((sample) => sample[measure]));
    return BARS[Math.min(BARS.length - 1, Math.floor((value / highest) * BARS.length))];
  }).join('');
}

export function table(name: string, samples: readonly Sample[]): string {
  const inBytes = (measure: Measure) => measure !== 'handles' && measure !== 'threads';
  const show = (measure: Measure, value: number) =>
    inBytes(measure) ? `${(value / MIB).toFixed(1)} MiB` : value.toFixed(0);
  const lines = judge(samples).map(({ measure, first, last, highest, slope, flat }) =>
    [
      `  ${measure.padEnd(12)}`,
      show(measure, first).padStart(10),
      show(measure, last).padStart(10),
      show(measure, highest).padStart(10),
      `${slope >= 0 ? '+' : '-'}${show(measure, Math.abs(slope))}/h`.padStart(14),
      flat ? 'flat  ' : 'GROWS ',
      graph(samples, measure),
    ].join(' '),
  );
  const head = `  ${''.padEnd(12)} ${'first'.padStart(10)} ${'last'.padStart(10)} ${'highest'.padStart(10)} ${'slope'.padStart(14)}`;
  return `${name}, ${samples.length} samples\n${head}\n${lines.join('\n')}`;
}
