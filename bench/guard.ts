import fs from 'node:fs';
import os from 'node:os';
import { parseArgs } from 'node:util';
import { workOf } from '../src/cli/bench/contenders.js';
import { inDirectory } from '../src/cli/bench/load.js';
import { runEvent, type Settings } from './compare/events.js';
import { measureReading } from './compare/reading.js';
import type { Row } from './compare/results.js';
import { type Event, ISOLATION, type Runner, threadEvent } from './compare/works.js';
import { type Baseline, isBad, judge, type Ratios } from './guard-verdict.js';

/** `npm run bench:guard`: whether ringwal got slower since the baseline was recorded, measured in ratios alone. */
const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '0.5' },
    baseline: { type: 'string', default: 'bench/baseline.json' },
    directory: { type: 'string' },
    record: { type: 'boolean', default: false },
    'handicap-us': { type: 'string', default: '0' },
    quick: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

const USAGE = `npm run bench:guard -- [options]

  --rounds N        rounds, contenders in turn (default 5)
  --seconds S       length of one measurement (default 0.5)
  --baseline FILE   what to compare with (default bench/baseline.json)
  --record          record a new baseline there, and compare with nothing
  --directory D     where to write (default: a filesystem in memory, if there is one with 4 GiB)
  --handicap-us N   make ringwal's syncs N microseconds slower than the others', to see the guard fail
  --quick           3 rounds of 0.2 s: to see that it works

Exit code 0: no ratio fell by more than the baseline's tolerance. 1: one did, twice. 2: it could not be carried out.
`;

const TOLERANCE = 0.3;
const SYNC_MICROS = 300;
const MEMORY = '/dev/shm';
/** What a measurement may need there for a moment. */
const ROOM = 4 * 2 ** 30;

/** The filesystem in memory, if there is one with room; containers often have a small one. */
function inMemory(): string | undefined {
  if (!fs.existsSync(MEMORY)) return undefined;
  const { bavail, bsize } = fs.statfsSync(MEMORY);
  return bavail * bsize >= ROOM ? MEMORY : undefined;
}

/** One ratio, or two that are measured together. */
interface Check {
  name: string;
  measure(settings: Settings): Promise<number>;
}

function against(runner: Runner, work: Event['work']): Check {
  const name = `${work.name}, to ${runner}`;
  const event: Event = { name, work, runners: ['ringwal', runner] };
  return {
    name,
    measure: async (settings) =>
      (await runEvent(event, event.runners, settings)).find((row) => row.runner === runner)?.ratio ?? Number.NaN,
  };
}

/** ringwal beside itself: one figure of the second event to the same of the first. */
function within(name: string, first: Event, second: Event, of: (row: Row) => number): Check {
  return {
    name,
    async measure(settings) {
      const [[before], [after]] = [
        await runEvent(first, ['ringwal'], settings),
        await runEvent(second, ['ringwal'], settings),
      ];
      return of(after) / of(before);
    },
  };
}

const CHECKS: Check[] = [
  against('raw', workOf(1, 100, 'disk')),
  against('raw', workOf(64, 100, 'disk')),
  against('raw', workOf(1000, 100, 'disk')),
  against('promises', workOf(10_000, 100, 'disk')),
  against('raw', workOf(4, 100, 'disk', 1000)),
  against('raw', workOf(16, 65_536, 'disk')),
  against('raw', workOf(1000, 100, 'os')),
  within('2 threads to 1', threadEvent(1), threadEvent(2), (row) => row.median.recordsPerSecond),
  within('os beside disk, rate at p50 to that alone', ...ISOLATION, (row) => 1 / row.median.p50Ms),
];

async function measureReads(settings: Settings): Promise<Ratios> {
  const records = options.quick ? 200_000 : 1_000_000;
  const rows = await measureReading(settings.directory, records, settings.rounds, (runner) => runner === 'ringwal');
  // The second of each kind is the bare loop.
  return Object.fromEntries(
    rows.filter(({ ratio }) => ratio !== 1).map(({ what, label, ratio }) => [`${what}, to ${label}`, ratio]),
  );
}

async function measureAll(settings: Settings): Promise<Ratios> {
  const ratios: Ratios = {};
  for (const { name, measure } of CHECKS) {
    ratios[name] = await measure(settings);
    console.log(`${ratios[name].toFixed(3).padStart(8)}  ${name}`);
  }
  const reads = await measureReads(settings);
  for (const [name, ratio] of Object.entries(reads)) console.log(`${ratio.toFixed(3).padStart(8)}  ${name}`);
  return { ...ratios, ...reads };
}

/** What fell is measured again, in more rounds; of the two, the better one counts: what is slower is so twice. */
async function again(names: string[], settings: Settings): Promise<Ratios> {
  const careful = { ...settings, rounds: settings.rounds * 2 };
  const ratios: Ratios = {};
  for (const { name, measure } of CHECKS) if (names.includes(name)) ratios[name] = await measure(careful);
  const reads = names.some((name) => !CHECKS.some((check) => check.name === name)) ? await measureReads(careful) : {};
  return { ...ratios, ...reads };
}

async function guard(settings: Settings, baseline: Baseline): Promise<number> {
  const first = await measureAll(settings);
  const suspects = judge(first, baseline).filter(isBad);
  const measured = { ...first };
  if (suspects.length > 0) {
    console.log(`\n${suspects.length} fell; measured once more:`);
    for (const [name, ratio] of Object.entries(
      await again(
        suspects.map(({ name }) => name),
        settings,
      ),
    )) {
      if (!(first[name] >= ratio)) measured[name] = ratio;
    }
  }
  const verdicts = judge(measured, baseline);
  console.log(`\n      was       is  (a fall of more than ${(baseline.tolerance * 100).toFixed(0)} % counts)`);
  for (const { name, was, is, state } of verdicts) {
    console.log(
      `${(was?.toFixed(3) ?? '–').padStart(9)} ${(is?.toFixed(3) ?? '–').padStart(8)}  ${state.padEnd(12)} ${name}`,
    );
  }
  const bad = verdicts.filter(isBad).length;
  console.log(bad === 0 ? '\nNothing fell.' : `\n${bad} fell.`);
  return bad === 0 ? 0 : 1;
}

async function main(): Promise<number> {
  if (options.help) {
    console.log(USAGE);
    return 0;
  }
  const base = options.directory ?? inMemory();
  return inDirectory(base, async (directory) => {
    const settings: Settings = {
      rounds: options.quick ? 3 : Number(options.rounds),
      seconds: options.quick ? 0.2 : Number(options.seconds),
      directory,
      strace: false,
      syncMicros: SYNC_MICROS,
      handicapMicros: Number(options['handicap-us']),
    };
    const [load] = os.loadavg();
    if (load > os.availableParallelism()) {
      console.log(
        `This machine is busy (load ${load.toFixed(1)}): threads that wait for a core hit ringwal and not a bare loop.\n`,
      );
    }
    if (!options.record) {
      if (!fs.existsSync(options.baseline)) {
        throw new Error(`there is no ${options.baseline}; npm run bench:guard -- --record makes one`);
      }
      const baseline = JSON.parse(fs.readFileSync(options.baseline, 'utf8')) as Baseline;
      return guard({ ...settings, syncMicros: baseline.syncMicros }, baseline);
    }
    const baseline: Baseline = {
      tolerance: TOLERANCE,
      syncMicros: SYNC_MICROS,
      recorded: {
        date: new Date().toISOString().slice(0, 10),
        node: process.version,
        cores: os.availableParallelism(),
      },
      ratios: await measureAll(settings),
    };
    fs.writeFileSync(options.baseline, `${JSON.stringify(baseline, null, 2)}\n`);
    console.log(`recorded in ${options.baseline}`);
    return 0;
  });
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 2;
}
