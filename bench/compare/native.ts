import path from 'node:path';
import type { Work } from '../../src/cli/bench/contenders.js';
import { type Measurement, QUANTILES } from '../../src/cli/bench/load.js';
import { output } from './task.js';

/** Programs of the system that are measured too, where it has them. */
export const ROCKSDB = 'RocksDB, db_bench';
export const NATIVE_INSTALL = 'apt-get install rocksdb-tools fio strace';

/** The version of a program, or undefined where there is none. */
export async function programVersion(program: string): Promise<string | undefined> {
  return output(program, ['--version']).then(
    (text) => /\d+(?:\.\d+)+/.exec(text)?.[0] ?? 'unknown',
    (error: NodeJS.ErrnoException) => (error.code === 'ENOENT' ? undefined : 'unknown'),
  );
}

/** As many threads as calls in flight, up to 64, each putting one thing after the other. */
export async function rocksdb(work: Work, directory: string, seconds: number): Promise<Measurement> {
  // fillseq is given a number and not a time: a short run tells how many fit.
  const { opsPerSecond } = parse(await fillseq(work, directory, 20 * work.recordsPerCall));
  const threads = Math.min(64, work.inFlight);
  const puts = Math.max(20 * work.recordsPerCall, Math.ceil((opsPerSecond * seconds) / threads));
  const { opsPerSecond: recordsPerSecond, latencies, syncs, records } = parse(await fillseq(work, directory, puts));
  return {
    records,
    recordsPerSecond,
    megabytesPerSecond: (recordsPerSecond * work.recordBytes) / 1e6,
    p50Ms: latencies.get('P50') ?? Number.NaN,
    p99Ms: latencies.get('P99') ?? Number.NaN,
    syncsPerRecord: syncs / Math.max(1, records),
    cpuMicrosPerRecord: Number.NaN,
    quantilesMs: QUANTILES.map((percent) => latencies.get(`P${percent}`) ?? Number.NaN),
  };
}

function fillseq(work: Work, directory: string, puts: number): Promise<string> {
  return output('db_bench', [
    '--benchmarks=fillseq',
    `--db=${path.join(directory, 'rocksdb')}`,
    `--num=${puts}`,
    `--threads=${Math.min(64, work.inFlight)}`,
    `--batch_size=${work.recordsPerCall}`,
    `--value_size=${work.recordBytes}`,
    '--key_size=16',
    `--sync=${work.level === 'disk' ? 1 : 0}`,
    '--compression_type=none',
    '--histogram=1',
    '--statistics=1',
  ]);
}

function parse(text: string) {
  const number = (pattern: RegExp): number => Number(pattern.exec(text)?.[1] ?? Number.NaN);
  const [, percentiles = ''] = /^Percentiles: (.*)$/m.exec(text) ?? [];
  const latencies = new Map<string, number>();
  for (const [, name, micros] of percentiles.matchAll(/(P[\d.]+): ([\d.]+)/g))
    latencies.set(name, Number(micros) / 1000);
  return {
    opsPerSecond: number(/^fillseq .* (\d+) ops\/sec/m),
    latencies,
    syncs: number(/^rocksdb\.wal\.synced COUNT : (\d+)/m),
    records: number(/^rocksdb\.number\.keys\.written COUNT : (\d+)/m),
  };
}

export interface Fio {
  /** 4 KiB writes, each followed by fdatasync. */
  writesPerSecond: number;
  syncP50Ms: number;
}

export async function fio(directory: string, seconds: number): Promise<Fio> {
  const args = `--rw=write --bs=4k --size=64m --ioengine=sync --fdatasync=1 --time_based --output-format=json`;
  const text = await output('fio', [
    '--name=disk',
    `--directory=${directory}`,
    `--runtime=${Math.ceil(seconds)}`,
    ...args.split(' '),
  ]);
  const [{ write, sync }] = (JSON.parse(text) as { jobs: FioJob[] }).jobs;
  return { writesPerSecond: write.iops, syncP50Ms: sync.lat_ns.percentile['50.000000'] / 1e6 };
}

interface FioJob {
  write: { iops: number };
  sync: { lat_ns: { percentile: Record<string, number> } };
}
