import { QUANTILES } from '../../src/cli/bench/load.js';
import { peerModule } from '../compare/peers.js';
import type { Comparison } from '../compare/results.js';

/** A picture: what it shows, and how Vega-Lite is to draw it. */
export interface Figure {
  name: string;
  title: string;
  spec: object;
}

/** Threads with a loop each. */
const LOOPS = 'gathering loop, a file each';

/** The same colour for the same contender everywhere; ringwal stands out. */
const COLOURS: [label: string, colour: string][] = [
  ['ringwal', '#d1242f'],
  ['gathering loop', '#24292f'],
  [LOOPS, '#24292f'],
  ['lmdb, put then flushed', '#0969da'],
  ['lmdb, overlappingSync off', '#54aeff'],
  ['classic-level, put', '#bf8700'],
  ['classic-level, batch', '#e0a83c'],
  ['better-sqlite3, WAL', '#1a7f37'],
  ['RocksDB, db_bench', '#8250df'],
  ['promises only', '#afb8c1'],
];
const OPEN_COLOURS: typeof COLOURS = [
  ['ringwal', '#d1242f'],
  ['ringwal, of that the log', '#ff8182'],
  ['ringwal, after kill -9', '#8c1d26'],
  ['lmdb', '#0969da'],
  ['classic-level', '#bf8700'],
  ['better-sqlite3', '#1a7f37'],
];

const SIZES = ['100 B', '1 KiB', '64 KiB'];

export function figuresOf(result: Comparison): Figure[] {
  return [throughput(result), latency(result), threads(result), opening(result)].filter(({ spec }) => hasValues(spec));
}

function hasValues(spec: object): boolean {
  return (spec as { data: { values: unknown[] } }).data.values.length > 0;
}

interface Point {
  who: string;
}

function colour(colours: typeof COLOURS, values: Point[]): object {
  const shown = colours.filter(([label]) => values.some(({ who }) => who === label));
  return {
    field: 'who',
    type: 'nominal',
    title: null,
    sort: null,
    scale: { domain: shown.map(([label]) => label), range: shown.map(([, value]) => value) },
    legend: { symbolType: 'stroke', symbolStrokeWidth: 3, labelLimit: 260, columns: 3, orient: 'bottom' },
  };
}

/** Lines with points; that of ringwal is thicker. */
function lines(values: Point[], x: object, y: object, colours: typeof COLOURS, more: object = {}): object {
  const isOurs = "datum.who === 'ringwal'";
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    background: 'white',
    data: { values },
    width: 250,
    height: 260,
    mark: { type: 'line', point: { filled: true, size: 36 }, clip: true },
    encoding: {
      x,
      y,
      color: colour(colours, values),
      strokeWidth: { condition: { test: isOurs, value: 3 }, value: 1.5 },
      ...more,
    },
    config: {
      aria: false,
      font: 'Helvetica, Arial, sans-serif',
      axis: { labelFontSize: 11, titleFontSize: 12, gridColor: '#eaeef2' },
      legend: { labelFontSize: 12 },
      header: { labelFontSize: 13, labelFontWeight: 'bold', titleFontSize: 12 },
      view: { stroke: '#d0d7de' },
    },
  };
}

/** Grid lines at powers of ten alone. */
const DECADES = Array.from({ length: 13 }, (_, i) => 10 ** (i - 4));

const perSecond = {
  type: 'quantitative',
  title: 'records per second',
  scale: { type: 'log' },
  axis: { format: '~s', values: DECADES },
};

function throughput({ rows }: Comparison): Figure {
  const values = rows
    .filter(({ work, threads: count }) => count === 0 && work.level === 'disk' && work.recordsPerCall === 1)
    .filter(({ work, runner }) => work.checkpoints !== true && !runner.startsWith('hand-over'))
    .map(({ work, label, median }) => ({
      size: work.name.split(', ').find((part) => SIZES.includes(part)),
      inFlight: work.inFlight,
      rate: median.recordsPerSecond,
      who: label,
    }));
  const x = {
    field: 'inFlight',
    type: 'quantitative',
    title: 'appends in flight',
    scale: { type: 'log', domain: [0.7, 16_000], nice: false },
    axis: { values: [1, 16, 64, 1000, 10_000], format: ',d', labelOverlap: false, labelFlush: false },
  };
  const spec = lines(values, x, { ...perSecond, field: 'rate' }, COLOURS, {
    column: { field: 'size', type: 'nominal', sort: SIZES, title: null },
  });
  return { name: 'throughput', title: 'Durable appends per second, by appends in flight', spec };
}

function latency({ rows }: Comparison): Figure {
  const shown = ['1', '64', '1,000'].map((inFlight) => `${inFlight} in flight, 100 B, disk`);
  const values = rows
    .filter(({ event, runner }) => shown.includes(event) && runner !== 'promises' && !runner.startsWith('hand-over'))
    .flatMap(({ event, label, median }) =>
      QUANTILES.map((percent, i) => ({
        inFlight: event.replace(', 100 B, disk', ''),
        percent: percent === 100 ? 'max' : String(percent),
        ms: median.quantilesMs[i],
        who: label,
      })).filter(({ ms }) => Number.isFinite(ms)),
    );
  const order = QUANTILES.map((percent) => (percent === 100 ? 'max' : String(percent)));
  const x = {
    field: 'percent',
    type: 'ordinal',
    sort: order,
    title: 'percentile',
    axis: { labelAngle: 0, labelOverlap: false, labelFontSize: 9 },
  };
  const y = {
    field: 'ms',
    type: 'quantitative',
    title: 'latency, ms',
    scale: { type: 'log' },
    axis: { format: '~g', values: DECADES },
  };
  const spec = lines(values, x, y, COLOURS, {
    column: {
      field: 'inFlight',
      type: 'nominal',
      sort: ['1 in flight', '64 in flight', '1,000 in flight'],
      title: null,
    },
  });
  return { name: 'latency', title: 'Latency of a durable append of 100 bytes', spec };
}

function threads({ rows }: Comparison): Figure {
  const values = rows
    .filter(({ event }) => /^\d+ thread/.test(event))
    .map(({ threads: count, runner, label, median }) => ({
      threads: count,
      rate: median.recordsPerSecond,
      who: runner === 'raw' ? LOOPS : label,
    }));
  const x = {
    field: 'threads',
    type: 'ordinal',
    title: 'producer threads, 1,000 appends in flight each',
    axis: { labelAngle: 0 },
  };
  const spec = { ...lines(values, x, { ...perSecond, field: 'rate' }, COLOURS), width: 520 };
  return { name: 'threads', title: 'Durable appends per second, by producer threads', spec };
}

function opening({ opening: rows }: Comparison): Figure {
  const values = rows.flatMap(({ label, bytes, totalMs, logMs }) => {
    const size = bytes / 2 ** 20;
    const points = [{ who: label, size, ms: totalMs }];
    if (label === 'ringwal' && logMs !== undefined) points.push({ who: 'ringwal, of that the log', size, ms: logMs });
    return points;
  });
  const sizes = [...new Set(values.map(({ size }) => size))].sort((a, b) => a - b);
  const x = {
    field: 'size',
    type: 'quantitative',
    title: 'size of the log',
    scale: { type: 'log', base: 2, domain: [sizes[0] / 1.5, sizes[sizes.length - 1] * 1.5], nice: false },
    axis: {
      values: sizes,
      labelOverlap: false,
      labelFlush: false,
      labelExpr: "datum.value < 1024 ? datum.value + ' MiB' : datum.value / 1024 + ' GiB'",
    },
  };
  const y = {
    field: 'ms',
    type: 'quantitative',
    title: 'time to open, ms',
    scale: { type: 'log' },
    axis: { format: '~g', values: DECADES },
  };
  return {
    name: 'opening',
    title: 'Time to open, by size',
    spec: { ...lines(values, x, y, OPEN_COLOURS), width: 520 },
  };
}

interface VegaLite {
  compile(spec: object): { spec: object };
}

interface Vega {
  parse(spec: object): object;
  View: new (runtime: object, options: object) => { toSVG(): Promise<string>; finalize(): void };
}

export async function drawn({ spec: untitled, title: text }: Figure): Promise<string> {
  const spec = { ...untitled, title: { text, anchor: 'start', fontSize: 15, offset: 12 } };
  const [vega, vegaLite] = [await peerModule<Vega>('vega'), await peerModule<VegaLite>('vega-lite')];
  const view = new vega.View(vega.parse(vegaLite.compile(spec).spec), { renderer: 'none' });
  const svg = await view.toSVG();
  view.finalize();
  return `${svg}\n`;
}
