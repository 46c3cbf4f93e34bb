import { ROCKSDB } from '../compare/native.js';
import type { Comparison, Row } from '../compare/results.js';
import { sizeOf } from './sizes.js';

/** What was aimed at, and what came out. */
export interface Goal {
  what: string;
  asked: string;
  measured: number | undefined;
  reached: boolean | undefined;
}

const NOT_PEERS = ['ringwal', 'raw', 'hand-over', 'hand-over-again', 'promises', ROCKSDB];

export function goalsOf(result: Comparison): Goal[] {
  const row = (event: string, runner = 'ringwal') =>
    result.rows.find((one) => one.event === event && one.runner === runner);
  const ratio = (event: string, runner: string) => row(event, runner)?.ratio;
  const bestPeer = (event: string) => {
    const peers = result.rows.filter((one) => one.event === event && !NOT_PEERS.includes(one.runner));
    return peers.reduce<Row | undefined>(
      (best, one) => (best === undefined || one.ratio < best.ratio ? one : best),
      undefined,
    )?.ratio;
  };
  const reading = (what: string) => result.reading.filter((one) => one.what.startsWith(what))[1]?.ratio;
  const largest = result.opening.filter(({ label }) => label === 'ringwal').sort((a, b) => b.bytes - a.bytes)[0];
  const onSmall = (inFlight: string) => `${inFlight} in flight, 100 B, disk`;
  const oneThread = '1 thread, each 1,000 in flight, 100 B, disk';
  const twoThreads = '2 threads, each 1,000 in flight, 100 B, disk';
  const batches = 'appendMany of 1,000, 4 in flight, 100 B, disk';
  const large = '16 in flight, 64 KiB, disk';
  return [
    atMost(
      '1 in flight, 100 B, `disk`: p50 to that of the gathering loop',
      1.25,
      divide(row(onSmall('1'))?.median.p50Ms, row(onSmall('1'), 'raw')?.median.p50Ms),
    ),
    atLeast('64 in flight, to the gathering loop', 1.4, ratio(onSmall('64'), 'raw')),
    atLeast('64 in flight, to the best Node peer', 1.4, bestPeer(onSmall('64'))),
    atLeast('64 in flight, to RocksDB with 64 threads', 8, ratio(onSmall('64'), ROCKSDB)),
    atLeast('1,000 in flight, to the gathering loop', 1.7, ratio(onSmall('1,000'), 'raw')),
    atLeast('1,000 in flight, to the best Node peer', 4, bestPeer(onSmall('1,000'))),
    atLeast('10,000 in flight, to promises only', 0.9, ratio(onSmall('10,000'), 'promises')),
    atLeast('`appendMany` of 1,000, 4 in flight, to one sync per 1,000', 1.5, ratio(batches, 'raw')),
    atLeast('64 KiB, 16 in flight, to the gathering loop', 1.3, ratio(large, 'raw')),
    atLeast(
      '64 KiB, 16 in flight, MB/s to those of 1 MiB write + fdatasync',
      0.6,
      divide(row(large)?.median.megabytesPerSecond, result.disk?.mebibyteMBps),
    ),
    atLeast(
      'two producer threads to one',
      1.3,
      divide(row(twoThreads)?.median.recordsPerSecond, row(oneThread)?.median.recordsPerSecond),
    ),
    atMost(
      'p99 of `os` beside a thread at `disk`, to p99 alone',
      3,
      divide(row('os beside disk')?.median.p99Ms, row('os alone')?.median.p99Ms),
    ),
    atLeast('`verify`, to reading in 1 MiB pieces and `zlib.crc32`', 0.8, reading('verify')),
    atLeast('`.batches()`, to the bare loop in memory', 0.7, reading('every record')),
    atMost(`open, the part that depends on the log, ${sizeOf(largest?.bytes ?? 0)}, ms`, 30, largest?.logMs),
    atMost(
      'processor time for a durable record, 1,000 in flight, µs',
      1.5,
      row(onSmall('1,000'))?.median.cpuMicrosPerRecord,
    ),
  ];
}

function divide(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? undefined : a / b;
}

function atLeast(what: string, asked: number, measured: number | undefined): Goal {
  return { what, asked: `>= ${asked}`, measured, reached: measured === undefined ? undefined : measured >= asked };
}

function atMost(what: string, asked: number, measured: number | undefined): Goal {
  return { what, asked: `<= ${asked}`, measured, reached: measured === undefined ? undefined : measured <= asked };
}
