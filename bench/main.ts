import fs from 'node:fs';
import os from 'node:os';
import { parseArgs } from 'node:util';
import { raw, ringwal, type Work } from './contenders.js';
import { inDirectory, load, type Measurement, median, medianOf } from './load.js';
import { measureMemory } from './memory.js';
import { measureOpening } from './opening.js';
import { slowDown } from './slow-disk.js';

/**
 * `npm run bench`: the log beside the raw loop on the same disk, in turn, several rounds; medians, and the median of the
 * rounds' ratios. Absolute figures are the machine's; the ratios are the project's.
 */
const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '1' },
    only: { type: 'string' },
    directory: { type: 'string' },
    json: { type: 'string' },
    'sync-us': { type: 'string' },
    quick: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

const USAGE = `npm run bench -- [options]

  --rounds N      rounds of each work, contenders in turn (default 5)
  --seconds S     length of one measurement (default 1)
  --only TEXT     only work whose name contains TEXT ("disk", "64 in flight", "opening", "memory")
  --directory D   where to write (default: the system's temporary directory)
  --json FILE     the result as JSON in a file too (it is always the last thing on stdout)
  --sync-us N     make every fdatasync take at least N microseconds, for both, to see a slower disk than this one
  --quick         3 rounds of 0.3 s, and without the work on gigabytes
`;

const WORKS: Work[] = [
  ...(['disk', 'os'] as const).flatMap((level) => [
    work(1, 100, level, level === 'disk' ? 0.7 : undefined),
    work(64, 100, level, level === 'disk' ? 1.1 : undefined),
    work(1000, 100, level, level === 'disk' ? 1.4 : undefined),
    work(10000, 100, level),
    work(64, 1024, level),
    work(16, 65536, level, level === 'disk' ? 1.0 : undefined),
    {
      ...work(4, 100, level, level === 'disk' ? 1.2 : undefined),
      recordsPerCall: 1000,
      name: `appendMany of 1,000, 4 in flight, 100 B, ${level}`,
    },
  ]),
];

function work(inFlight: number, recordBytes: number, level: 'os' | 'disk', goal?: number): Work {
  const size = recordBytes < 1024 ? `${recordBytes} B` : `${recordBytes / 1024} KiB`;
  const name = `${inFlight.toLocaleString('en')} in flight, ${size}, ${level}`;
  return { name, inFlight, recordBytes, recordsPerCall: 1, level, goal };
}

interface Row {
  work: string;
  ringwal: Measurement;
  raw: Measurement;
  /** Median of the rounds' ratios of records per second. */
  ratio: number;
  goal?: number;
}

async function measure(what: Work, rounds: number, seconds: number): Promise<Row> {
  const ours: Measurement[] = [];
  const theirs: Measurement[] = [];
  for (let round = 0; round < rounds; round++) {
    const one = async (make: typeof ringwal) =>
      inDirectory(options.directory, async (directory) => {
        const contender = await make(what, directory);
        // A short run first, for the optimising compiler.
        await load(contender, what.inFlight, seconds / 5, what.recordsPerCall, what.recordBytes);
        const result = await load(contender, what.inFlight, seconds, what.recordsPerCall, what.recordBytes);
        await contender.close();
        return result;
      });
    // Each goes first every other time.
    if (round % 2 === 0) theirs.push(await one(raw));
    ours.push(await one(ringwal));
    if (round % 2 === 1) theirs.push(await one(raw));
  }
  const ratio = median(ours.map((mine, i) => mine.recordsPerSecond / theirs[i].recordsPerSecond));
  return { work: what.name, ringwal: medianOf(ours), raw: medianOf(theirs), ratio, goal: what.goal };
}

function printRow({ work: name, ringwal: ours, raw: theirs, ratio, goal }: Row): void {
  const line = (who: string, m: Measurement) =>
    [
      who.padEnd(9),
      Math.round(m.recordsPerSecond).toLocaleString('en').padStart(11),
      m.megabytesPerSecond.toFixed(1).padStart(9),
      m.p50Ms.toFixed(3).padStart(9),
      m.p99Ms.toFixed(3).padStart(9),
      m.syncsPerRecord.toFixed(5).padStart(12),
    ].join(' ');
  console.log(name);
  console.log(`  ${line('raw loop', theirs)}`);
  const verdict = goal === undefined ? '' : ` (goal ${goal}: ${ratio >= goal ? 'reached' : 'not reached'})`;
  console.log(`  ${line('ringwal', ours)}   ratio ${ratio.toFixed(2)}${verdict}`);
}

async function main(): Promise<void> {
  if (options.help) return console.log(USAGE);
  if (options['sync-us'] !== undefined) slowDown(Number(options['sync-us']));
  const rounds = options.quick ? 3 : Number(options.rounds);
  const seconds = options.quick ? 0.3 : Number(options.seconds);
  const wanted = (name: string) => options.only === undefined || name.includes(options.only);
  console.log(
    `${os.cpus()[0]?.model ?? 'unknown processor'}, ${os.availableParallelism()} cores, Node ${process.version}, ${rounds} rounds`,
  );
  console.log(
    `  ${'contender'.padEnd(9)} ${'records/s'.padStart(11)} ${'MB/s'.padStart(9)} ${'p50 ms'.padStart(9)} ${'p99 ms'.padStart(9)} ${'syncs/record'.padStart(12)}`,
  );
  const rows: Row[] = [];
  for (const what of WORKS.filter(({ name }) => wanted(name))) {
    const row = await measure(what, rounds, seconds);
    rows.push(row);
    printRow(row);
  }
  const result: Record<string, unknown> = {
    node: process.version,
    cpu: os.cpus()[0]?.model,
    cores: os.availableParallelism(),
    rounds,
    seconds,
    syncMicroseconds: options['sync-us'] === undefined ? undefined : Number(options['sync-us']),
    rows,
  };
  if (!options.quick && wanted('opening')) result.opening = await measureOpening(options.directory, rounds);
  if (!options.quick && wanted('memory')) result.memory = await measureMemory(options.directory);
  const json = JSON.stringify(result, null, 2);
  if (options.json !== undefined) fs.writeFileSync(options.json, json);
  console.log(json);
}

await main();
