import fs from 'node:fs';
import os from 'node:os';
import { parseArgs } from 'node:util';
import { inDirectory } from '../../src/cli/bench/load.js';
import { type ContenderName, ENTRANTS } from './contenders.js';
import { measureCrossing } from './crossing.js';
import { runEvent, type Settings } from './events.js';
import { fio, NATIVE_INSTALL, programVersion, ROCKSDB } from './native.js';
import { measureOpening } from './opening.js';
import { INSTALL, versionOf } from './peers.js';
import { measureReading } from './reading.js';
import type { Comparison, Row } from './results.js';
import { runTask } from './task.js';
import { EVENTS, type Runner } from './works.js';

/** `npm run bench:peers`: the log beside what people would take instead, on the same disk, in one run. */
const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '1' },
    only: { type: 'string' },
    peers: { type: 'string' },
    directory: { type: 'string' },
    json: { type: 'string', default: 'bench/results.json' },
    'open-mib': { type: 'string', default: '64,256,1024,4096,16384' },
    records: { type: 'string', default: '2000000' },
    quick: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

const USAGE = `npm run bench:peers -- [options]

  --rounds N         rounds of each work, contenders in turn (default 5)
  --seconds S        length of one measurement (default 1)
  --only TEXT        only work whose name contains TEXT ("64 in flight", "threads", "reading", "opening")
  --peers A,B        only these beside ringwal: ${Object.keys(ENTRANTS).join(', ')}, rocksdb
  --directory D      where to write (default: the system's temporary directory)
  --json FILE        where the result goes (default bench/results.json); npm run bench:report makes the report of it
  --open-mib A,B     sizes of the logs to open (default 64,256,1024,4096,16384: needs 17 GiB for a moment)
  --records N        records to read (default 2000000)
  --quick            one round of 0.2 s, 100,000 records, logs up to 256 MiB: to see that it works

${INSTALL} installs the Node peers, and '${NATIVE_INSTALL}' the others (on Debian). What is not there is skipped.
`;

interface Field {
  versions: Record<string, string>;
  skipped: string[];
  isThere(runner: Runner): boolean;
  strace: boolean;
  fio: boolean;
}

/** Who can take part, and what to do about the others. */
async function lookAround(): Promise<Field> {
  const versions: Record<string, string> = { node: process.version };
  const skipped: string[] = [];
  const absent = new Set<Runner>();
  for (const [name, { label, needs }] of Object.entries(ENTRANTS)) {
    const version = needs === undefined ? '' : versionOf(needs);
    if (version === undefined) {
      absent.add(name as ContenderName);
      skipped.push(`${label}: skipped, ${needs} is not installed. To install the peers: ${INSTALL}`);
    } else if (needs !== undefined) versions[needs] = version;
  }
  const [db_bench, fioVersion, strace] = await Promise.all(['db_bench', 'fio', 'strace'].map(programVersion));
  if (db_bench !== undefined) versions.RocksDB = db_bench;
  if (fioVersion !== undefined) versions.fio = fioVersion;
  const without = (what: string) => skipped.push(`${what}. To install it on Debian: ${NATIVE_INSTALL}`);
  if (db_bench === undefined) without(`${ROCKSDB}: skipped, there is no db_bench`);
  if (fioVersion === undefined) without('the disk as fio sees it: skipped');
  if (strace === undefined) without('syncs of peers: not counted, there is no strace');
  if (db_bench === undefined) absent.add(ROCKSDB);
  const wanted = options.peers?.split(',').map((name) => (name === 'rocksdb' ? ROCKSDB : name));
  const isThere = (runner: Runner) =>
    !absent.has(runner) && (wanted === undefined || runner === 'ringwal' || wanted.includes(runner));
  return { versions, skipped, isThere, strace: strace !== undefined, fio: fioVersion !== undefined };
}

function printRows(rows: Row[]): void {
  console.log(rows[0].event);
  for (const { label, median: m, ratio, runner, countedBy } of rows) {
    const line = [
      `  ${label.padEnd(26)}`,
      Math.round(m.recordsPerSecond).toLocaleString('en').padStart(11),
      m.megabytesPerSecond.toFixed(1).padStart(9),
      m.p50Ms.toFixed(3).padStart(9),
      m.p99Ms.toFixed(3).padStart(9),
      (countedBy === 'nobody' ? '?' : m.syncsPerRecord.toFixed(5)).padStart(12),
      (Number.isNaN(m.cpuMicrosPerRecord) ? '?' : m.cpuMicrosPerRecord.toFixed(2)).padStart(9),
      runner === 'ringwal' ? '' : `  ringwal does ${ratio.toFixed(2)} times that`,
    ];
    console.log(line.join(' '));
  }
}

const HEAD = `  ${'contender'.padEnd(26)} ${'records/s'.padStart(11)} ${'MB/s'.padStart(9)} ${'p50 ms'.padStart(9)} ${'p99 ms'.padStart(9)} ${'syncs/record'.padStart(12)} ${'CPU µs/r'.padStart(9)}`;

async function main(): Promise<void> {
  if (options.help) return console.log(USAGE);
  const field = await lookAround();
  for (const line of field.skipped) console.log(line);
  const settings: Settings = {
    rounds: options.quick ? 1 : Number(options.rounds),
    seconds: options.quick ? 0.2 : Number(options.seconds),
    directory: options.directory,
    strace: field.strace,
    onTrouble: (message) => {
      console.error(message);
      field.skipped.push(message.split('\n')[0]);
    },
  };
  const result: Comparison = {
    date: new Date().toISOString().slice(0, 10),
    node: process.version,
    cores: os.availableParallelism(),
    load: os.loadavg()[0],
    rounds: settings.rounds,
    seconds: settings.seconds,
    versions: field.versions,
    skipped: field.skipped,
    rows: [],
    reading: [],
    opening: [],
  };
  const save = () => fs.writeFileSync(options.json, `${JSON.stringify(result, null, 1)}\n`);
  const wanted = (name: string) => options.only === undefined || name.includes(options.only);
  result.disk = await inDirectory(options.directory, (directory) => runTask({ op: 'disk', directory, seconds: 0.5 }));
  if (field.fio) result.fio = await inDirectory(options.directory, (directory) => fio(directory, settings.seconds));
  console.log('the disk', result.disk, result.fio ?? '');
  console.log(HEAD);
  result.crossings = [];
  for (const event of EVENTS.filter(({ name }) => wanted(name))) {
    if (result.cores > 1) result.crossings.push(await measureCrossing());
    const rows = await runEvent(event, event.runners.filter(field.isThere), settings);
    printRows(rows);
    result.rows.push(...rows);
    save();
  }
  if (wanted('reading')) {
    const records = options.quick ? 100_000 : Number(options.records);
    result.reading = await measureReading(options.directory, records, settings.rounds, field.isThere);
    console.table(result.reading);
    save();
  }
  if (wanted('opening')) {
    const sizes = options.quick ? [64, 256] : options['open-mib'].split(',').map(Number);
    result.opening = await measureOpening(options.directory, sizes, settings.rounds, field.isThere);
    console.table(result.opening);
  }
  save();
  console.log(`written to ${options.json}; npm run bench:report makes the report of it`);
}

await main();
