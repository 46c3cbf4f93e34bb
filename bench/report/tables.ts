import { median } from '../../src/cli/bench/load.js';
import type { Comparison, Row } from '../compare/results.js';
import { goalsOf } from './goals.js';
import { sizeOf } from './sizes.js';

/** The generated parts of docs/BENCHMARKS.md, by the name of their markers. */
export function tablesOf(result: Comparison): Record<string, string> {
  return {
    machine: machine(result),
    goals: goals(result),
    bounds: bounds(result),
    losses: losses(result),
    appends: eventTables(result, ({ work, threads }) => threads === 0 && work.level === 'disk'),
    levels: eventTables(result, ({ work, threads }) => threads === 0 && work.level !== 'disk'),
    threads: eventTables(result, ({ event }) => /^\d+ thread/.test(event)),
    isolation: isolation(result),
    reading: reading(result),
    opening: opening(result),
  };
}

/** `count` figures after the comma only where they say something. */
export function figure(value: number | undefined, digits = 3): string {
  if (value === undefined || !Number.isFinite(value)) return '–';
  if (value === 0) return '0';
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value))));
  return Number(value.toFixed(Math.min(6, places))).toLocaleString('en', { maximumFractionDigits: 6 });
}

function whole(value: number): string {
  // Three figures are what such a measurement is good for.
  return Number(value.toPrecision(3)).toLocaleString('en', { maximumFractionDigits: 0 });
}

function table(head: string[], rows: string[][], leftColumns = 1): string {
  const rule = head.map((_, i) => (i < leftColumns ? '---' : '---:'));
  return [head, rule, ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** Figures of a glance, or of a machine with other things to do, must not be taken for more. */
function doubt({ rounds, seconds, load = 0, cores }: Comparison): string[] {
  if (load > cores) return [`**The machine was busy (load ${figure(load)}): not figures to rely on.**`];
  return rounds < 3 || seconds < 0.5 ? ['**A short run, to see that it works: not figures to rely on.**'] : [];
}

function machine(result: Comparison): string {
  const { date, node, cores, rounds, seconds, versions, disk, crossings, fio, skipped } = result;
  const lines = [
    `Measured on ${date}: ${cores} cores, Node ${node}; ${rounds} ${rounds === 1 ? 'round' : 'rounds'} of ${seconds} s, each contender in a process of its own.`,
  ];
  const others = Object.entries(versions).filter(([name]) => name !== 'node');
  if (others.length > 0) lines.push(`Versions: ${others.map((other) => other.join(' ')).join(', ')}.`);
  if (disk !== undefined) {
    lines.push(
      `The disk: ${figure(disk.extendMs * 1000)} µs for 100 bytes written at the end of a file and fdatasync, ` +
        `${figure(disk.overwriteMs * 1000)} µs over blocks already written; 1 MiB and fdatasync: ${whole(disk.mebibyteMBps)} MB/s.`,
    );
  }
  if (crossings !== undefined && crossings.length > 0) {
    lines.push(
      `From one processor to the other and back, by way of a word in memory: ${figure(median(crossings))} ns, ` +
        `${figure(Math.min(...crossings))} to ${figure(Math.max(...crossings))} (once before each kind of work).`,
    );
  }
  if (fio !== undefined) {
    lines.push(
      `fio, 4 KiB writes with fdatasync each: ${whole(fio.writesPerSecond)}/s, fdatasync p50 ${figure(fio.syncP50Ms * 1000)} µs.`,
    );
  }
  return [...doubt(result), ...lines, ...skipped].map((line) => `- ${line}`).join('\n');
}

function goals(result: Comparison): string {
  const rows = goalsOf(result).map(({ what, asked, measured, reached }) => [
    what,
    asked,
    figure(measured),
    reached === undefined ? 'not measured' : reached ? 'yes' : '**no**',
  ]);
  return table(['work', 'goal', 'measured', 'reached'], rows);
}

/** Contenders that keep nothing: the least that something can cost. */
const BOUNDS: Row['runner'][] = ['promises', 'hand-over', 'hand-over-again'];

/** How many times as quick as the gathering loop: the hand-over to another thread by itself, and the log. */
function bounds({ rows }: Comparison): string {
  const events = rows.filter(({ runner }) => runner === 'hand-over-again').map(({ event }) => event);
  const of = (event: string, runner: string) =>
    rows.find((row) => row.event === event && row.runner === runner)?.rounds ?? [];
  const ratio = (event: string, one: string, other: string) => {
    const others = of(event, other);
    return figure(median(of(event, one).map((rate, i) => rate / others[i])));
  };
  const lines = events.map((event) => [
    event,
    ratio(event, 'hand-over', 'raw'),
    ratio(event, 'hand-over-again', 'raw'),
    ratio(event, 'ringwal', 'raw'),
  ]);
  return table(['work', 'hand-over only', 'the same over old blocks', 'ringwal'], lines);
}

/** Every work at which somebody was quicker. */
function losses({ rows, reading: read }: Comparison): string {
  const lost = rows
    .filter(({ runner, ratio }) => !BOUNDS.includes(runner) && ratio < 1)
    .map(({ event, label, ratio }) => [event, label, figure(1 / ratio)]);
  const slower = read
    .filter(({ ratio }) => ratio < 1)
    .map(({ what, label, ratio }) => [what, label, figure(1 / ratio)]);
  const all = [...lost, ...slower];
  if (all.length === 0) return 'Nowhere in this run.';
  return table(['work', 'quicker', 'times ringwal'], all, 2);
}

const COUNTED: Record<Row['countedBy'], string> = {
  itself: '',
  strace: ' ᵃ',
  'its statistics': ' ᵇ',
  nobody: '',
};

function eventTables({ rows }: Comparison, wanted: (row: Row) => boolean): string {
  const events = [...new Set(rows.filter(wanted).map(({ event }) => event))];
  const head = ['contender', 'records/s', 'MB/s', 'p50 ms', 'p99 ms', 'syncs/record', 'CPU µs/record', 'ringwal is'];
  return events
    .map((event) => {
      const lines = rows
        .filter((row) => row.event === event)
        .map(({ label, median, countedBy, runner, ratio }) => [
          runner === 'ringwal' ? `**${label}**` : label,
          whole(median.recordsPerSecond),
          figure(median.megabytesPerSecond),
          figure(median.p50Ms),
          figure(median.p99Ms),
          countedBy === 'nobody' ? 'not counted' : `${figure(median.syncsPerRecord)}${COUNTED[countedBy]}`,
          figure(median.cpuMicrosPerRecord),
          runner === 'ringwal' ? '' : `${figure(ratio)} ×`,
        ]);
      return `**${event}**\n\n${table(head, lines)}`;
    })
    .join('\n\n');
}

function isolation({ rows }: Comparison): string {
  const of = rows.filter(({ event }) => event.startsWith('os '));
  return table(
    ['`os` commits, 1 in flight', 'contender', 'p50 ms', 'p99 ms'],
    of.map(({ event, label, median }) => [event, label, figure(median.p50Ms), figure(median.p99Ms)]),
    2,
  );
}

function reading({ reading: rows }: Comparison): string {
  return table(
    ['work', 'contender', 'records/s', 'ringwal is'],
    rows.map(({ what, label, recordsPerSecond, ratio }, i) => [
      what,
      label,
      whole(recordsPerSecond),
      i === 0 || rows[i - 1].what !== what ? '' : `${figure(ratio)} ×`,
    ]),
    2,
  );
}

function opening({ opening: rows }: Comparison): string {
  return table(
    ['contender', 'size', 'open, ms', 'of that, the log, ms'],
    rows.map(({ label, bytes, totalMs, logMs }) => [label, sizeOf(bytes), figure(totalMs), figure(logMs)]),
  );
}

/** Puts each table between its markers; what is outside of markers stays as it is. */
export function fillIn(page: string, tables: Record<string, string>): string {
  let filled = page;
  for (const [name, text] of Object.entries(tables)) {
    const begin = `<!-- figures: ${name} -->`;
    const end = '<!-- end -->';
    const from = filled.indexOf(begin);
    const to = filled.indexOf(end, from);
    if (from < 0 || to < 0) throw new Error(`the page has no place for '${name}': ${begin} ... ${end}`);
    filled = `${filled.slice(0, from + begin.length)}\n\n${text}\n\n${filled.slice(to)}`;
  }
  return filled;
}
