import t from 'tap';
import { Random } from './simulation/random.js';
import { judge, MEASURES, type Measure, type Sample, table } from './soak/judge.js';

const MIB = 1024 * 1024;
const LEVEL: Omit<Sample, 'at'> = {
  rss: 200 * MIB,
  heap: 10 * MIB,
  external: 5 * MIB,
  arrayBuffers: 30 * MIB,
  handles: 50,
  threads: 17,
};

/** A run of ten minutes: a warm-up, then a level with noise, and what `growth` adds by the time. */
function run(growth: Partial<Record<Measure, (share: number) => number>> = {}): Sample[] {
  const random = new Random(1);
  return Array.from({ length: 120 }, (_, i) => {
    const share = i / 119;
    const warm = Math.min(1, 0.4 + share * 4);
    const noisy = (measure: Measure) => LEVEL[measure] * warm * (0.9 + random.below(200) / 1000);
    const of = (measure: Measure) => noisy(measure) + (growth[measure]?.(share) ?? 0);
    return { at: i * 5, ...Object.fromEntries(MEASURES.map((measure) => [measure, of(measure)])) } as Sample;
  });
}

const growing = (samples: Sample[]) => judge(samples).flatMap(({ measure, flat }) => (flat ? [] : [measure]));

t.test('a warm-up and noise are flat', async (t) => {
  t.same(growing(run()), []);
});

t.test('a leak is found, in each measure by itself', async (t) => {
  const leaks: Record<Measure, number> = {
    rss: 100 * MIB,
    heap: 20 * MIB,
    external: 30 * MIB,
    arrayBuffers: 40 * MIB,
    handles: 30,
    threads: 10,
  };
  for (const measure of MEASURES) {
    t.same(growing(run({ [measure]: (share: number) => share * leaks[measure] })), [measure]);
  }
});

t.test('one large moment is no leak, and a level that rises and stays is one', async (t) => {
  t.same(growing(run({ rss: (share) => (Math.abs(share - 0.9) < 0.02 ? 300 * MIB : 0) })), []);
  t.same(growing(run({ handles: (share) => (share > 0.6 ? 40 : 0) })), ['handles']);
});

t.test('the table names what grows', async (t) => {
  const lines = table('writing', run({ threads: (share) => share * 20 })).split('\n');
  t.match(
    lines.find((line) => line.includes('threads')),
    /GROWS/,
  );
  t.match(
    lines.find((line) => line.includes('rss')),
    /flat/,
  );
});
