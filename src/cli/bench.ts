import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type Comparison, compare } from './bench/compare.js';
import { type Work, workOf } from './bench/contenders.js';
import { inDirectory, type Measurement } from './bench/load.js';
import { type Command, oneOf, UsageError, wholeNumber } from './command.js';
import { count } from './figures.js';
import { listenForSignals } from './signals.js';

const LEVELS = ['os', 'disk'] as const;
const ROUNDS = 3;
/** Each round measures both contenders, and warms each up for a fifth of the time. */
const PARTS = 2 * 1.2;

interface Result {
  node: string;
  cores: number;
  durability: (typeof LEVELS)[number];
  rounds: number;
  /** Of one measurement. */
  seconds: number;
  works: (Work & Comparison)[];
}

export const bench: Command = {
  name: 'bench',
  synopsis: 'DIR',
  summary: "Measures how fast this machine's log is, beside a raw loop of write and fdatasync.",
  details:
    'Works in a fresh directory below DIR and removes it in the end; whatever else is in DIR is left alone.\n' +
    'The raw loop is one thread that gathers what is pending, writes it, syncs it and resolves the promises: no format,\n' +
    'no checksums, no recovery. The two take turns; figures are medians, and the ratio is the log to the raw loop.\n' +
    'Needs some GiB of free space for a moment, in proportion to --seconds.',
  options: {
    durability: { type: 'string', value: 'LEVEL', help: 'os or disk (default: disk)' },
    seconds: { type: 'string', value: 'N', help: 'about how long all of it may take, 1 to 120 (default: 12)' },
  },
  positionals: { least: 1, most: 1 },
  async run({ positionals: [directory], values, out }) {
    const durability = oneOf(values, 'durability', LEVELS, 'disk');
    const works = worksAt(durability);
    const seconds = (wholeNumber(values, 'seconds', 1, 120) ?? 12) / (works.length * ROUNDS * PARTS);
    const interruption = listenForSignals();
    const { signal } = interruption;
    const json = values.json === true;
    try {
      const result = await inFreshDirectory(directory, async (base) => {
        const machine = { node: process.version, cores: os.availableParallelism() };
        const measured: Result = { ...machine, durability, rounds: ROUNDS, seconds, works: [] };
        if (!json) await out.write(head(measured));
        for (const work of works) {
          const compared = await compare(work, { rounds: ROUNDS, seconds, base, signal });
          measured.works.push({ ...work, ...compared });
          if (!json) await out.write(describe(work, compared));
        }
        return measured;
      });
      if (json) await out.write(`${JSON.stringify(result)}\n`);
    } catch (error) {
      // Ctrl-C: what was made is gone by now.
      if (!signal.aborted || error !== signal.reason) throw error;
    } finally {
      interruption.stop();
    }
    return interruption.exitCode();
  },
};

function worksAt(level: (typeof LEVELS)[number]): Work[] {
  return [
    workOf(1, 100, level),
    workOf(64, 100, level),
    workOf(1000, 100, level),
    workOf(4, 100, level, 1000),
    workOf(16, 65536, level),
  ];
}

/** Makes `directory` if there is none, and a fresh one in it; what was made is removed when `use` is over. */
async function inFreshDirectory<T>(directory: string, use: (base: string) => Promise<T>): Promise<T> {
  const wanted = path.resolve(directory);
  let made: string | undefined;
  try {
    made = fs.mkdirSync(wanted, { recursive: true });
  } catch (error) {
    throw new UsageError(`ringwal: ${directory} is not a directory and cannot be made: ${(error as Error).message}`);
  }
  try {
    return await inDirectory(wanted, use);
  } finally {
    if (made !== undefined) removeEmpty(wanted, made);
  }
}

/** Removes the directories from `last` up to `first`; one that somebody put something into stays. */
function removeEmpty(last: string, first: string): void {
  try {
    for (let at = last; at.length >= first.length; at = path.dirname(at)) fs.rmdirSync(at);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST' && code !== 'ENOENT') throw error;
  }
}

const COLUMNS = ['records/s', 'MB/s', 'p50 ms', 'p99 ms', 'syncs/record'];
const WIDTHS = [12, 9, 9, 9, 13];

function cells(first: string, rest: string[]): string {
  return `  ${first.padEnd(9)}${rest.map((cell, i) => cell.padStart(WIDTHS[i])).join('')}`;
}

function head({ node, cores, seconds }: Result): string {
  return `Node ${node}, ${cores} cores, ${ROUNDS} rounds of ${seconds.toFixed(2)} s\n${cells('', COLUMNS)}\n`;
}

function row(who: string, figures: Measurement): string {
  return cells(who, [
    count(Math.round(figures.recordsPerSecond)),
    figures.megabytesPerSecond.toFixed(1),
    figures.p50Ms.toFixed(3),
    figures.p99Ms.toFixed(3),
    figures.syncsPerRecord.toFixed(5),
  ]);
}

function describe({ name }: Work, { raw, ringwal, ratio }: Comparison): string {
  return `${name}\n${row('raw loop', raw)}\n${row('ringwal', ringwal)}   ratio ${ratio.toFixed(2)}\n`;
}
