import fs from 'node:fs';
import os from 'node:os';
import { parseArgs } from 'node:util';
import { type Comparison, compare } from '../src/cli/bench/compare.js';
import { type Work, workOf } from '../src/cli/bench/contenders.js';
import type { Measurement } from '../src/cli/bench/load.js';
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

/** Work with what is asked of the ratio, if anything. */
type Asked = Work & { goal?: number };

const WORKS: Asked[] = (['disk', 'os'] as const).flatMap((level) => {
  const work = (inFlight: number, recordBytes: number, goal?: number, recordsPerCall?: number): Asked => ({
    ...workOf(inFlight, recordBytes, level, recordsPerCall),
    goal: level === 'disk' ? goal : undefined,
  });
  return [
    work(1, 100, 0.7),
    work(64, 100, 1.1),
    work(1000, 100, 1.4),
    work(10000, 100),
    work(64, 1024),
    work(16, 65536, 1.0),
    work(4, 100, 1.2, 1000),
  ];
});

interface Row extends Comparison {
  work: string;
  goal?: number;
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
    const compared = await compare(what, { rounds, seconds, base: options.directory });
    const row: Row = { work: what.name, ...compared, goal: what.goal };
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
