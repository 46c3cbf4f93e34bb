import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createHistogram } from 'node:perf_hooks';

/** The points of the latency distribution that are kept, in percent. */
export const QUANTILES = [1, 10, 25, 50, 75, 90, 95, 99, 99.9, 100] as const;

/** What one contender did in one round of one kind of work. */
export interface Measurement {
  /** How many there were. */
  records: number;
  recordsPerSecond: number;
  megabytesPerSecond: number;
  p50Ms: number;
  p99Ms: number;
  syncsPerRecord: number;
  /** Processor time of the whole process, all threads and the load itself included. */
  cpuMicrosPerRecord: number;
  /** Latencies in milliseconds at {@link QUANTILES}. */
  quantilesMs: number[];
}

/** Something that can be appended to; a round makes it, loads it and throws it away. */
export interface Contender {
  /** One call of the work, resolved when it is as durable as the work asks. */
  append(): Promise<unknown>;
  /** fdatasyncs so far, if it can tell. */
  syncs(): number;
  close(): Promise<void>;
}

/** How much is asked of a contender at once. */
export interface Shape {
  /** Calls that wait for their promise at any moment. */
  inFlight: number;
  recordBytes: number;
  /** 1: one record a call. More: atomic batches of so many. */
  recordsPerCall: number;
}

/** Keeps `inFlight` calls going for `seconds`, or until `signal` fires. Latency is from the call to its promise. */
export async function load(
  contender: Contender,
  { inFlight, recordBytes, recordsPerCall }: Shape,
  seconds: number,
  signal?: AbortSignal,
): Promise<Measurement> {
  // Latencies of one caller only: measuring all would cost as much as what is measured.
  const latency = createHistogram();
  let calls = 0;
  let over = signal?.aborted === true;
  const end = () => {
    over = true;
  };
  const measured = async () => {
    while (!over) {
      const before = performance.now();
      await contender.append();
      latency.record(Math.max(1, Math.round((performance.now() - before) * 1e6)));
      calls++;
    }
  };
  const plain = async () => {
    while (!over) {
      await contender.append();
      calls++;
    }
  };
  const timer = setTimeout(end, seconds * 1000);
  signal?.addEventListener('abort', end);
  const syncsBefore = contender.syncs();
  const cpuBefore = process.cpuUsage();
  const before = performance.now();
  try {
    await Promise.all([measured(), ...Array.from({ length: inFlight - 1 }, plain)]);
  } finally {
    end();
    clearTimeout(timer);
    signal?.removeEventListener('abort', end);
  }
  const elapsed = (performance.now() - before) / 1000;
  const cpu = process.cpuUsage(cpuBefore);
  const records = calls * recordsPerCall;
  return {
    records,
    recordsPerSecond: records / elapsed,
    megabytesPerSecond: (records * recordBytes) / elapsed / 1e6,
    p50Ms: latency.percentile(50) / 1e6,
    p99Ms: latency.percentile(99) / 1e6,
    syncsPerRecord: (contender.syncs() - syncsBefore) / Math.max(1, records),
    cpuMicrosPerRecord: (cpu.user + cpu.system) / Math.max(1, records),
    quantilesMs: QUANTILES.map((percent) => latency.percentile(percent) / 1e6),
  };
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

/** The median of each figure by itself. */
export function medianOf(rounds: Measurement[]): Measurement {
  const of = (figure: (round: Measurement) => number) => median(rounds.map(figure));
  return {
    records: of((round) => round.records),
    recordsPerSecond: of((round) => round.recordsPerSecond),
    megabytesPerSecond: of((round) => round.megabytesPerSecond),
    p50Ms: of((round) => round.p50Ms),
    p99Ms: of((round) => round.p99Ms),
    syncsPerRecord: of((round) => round.syncsPerRecord),
    cpuMicrosPerRecord: of((round) => round.cpuMicrosPerRecord),
    quantilesMs: QUANTILES.map((_, i) => of((round) => round.quantilesMs[i])),
  };
}

/** A fresh directory below `base`, gone when `use` is over. */
export async function inDirectory<T>(base: string | undefined, use: (directory: string) => Promise<T>): Promise<T> {
  const directory = fs.mkdtempSync(path.join(base ?? os.tmpdir(), 'ringwal-bench-'));
  try {
    return await use(directory);
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
}
