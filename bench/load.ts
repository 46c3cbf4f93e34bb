import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createHistogram } from 'node:perf_hooks';

/** What one contender did in one round of one kind of work. */
export interface Measurement {
  recordsPerSecond: number;
  megabytesPerSecond: number;
  p50Ms: number;
  p99Ms: number;
  syncsPerRecord: number;
}

/** Something that can be appended to; a round makes it, loads it and throws it away. */
export interface Contender {
  /** One call of the work, resolved when it is as durable as the work asks. */
  append(): Promise<unknown>;
  /** fdatasyncs so far. */
  syncs(): number;
  close(): Promise<void>;
}

/** Keeps `inFlight` calls going for `seconds`. Latency is from the call to its promise, for every call. */
export async function load(
  contender: Contender,
  inFlight: number,
  seconds: number,
  recordsPerCall: number,
  bytesPerRecord: number,
): Promise<Measurement> {
  // Latencies of one caller only: measuring all would cost as much as what is measured.
  const latency = createHistogram();
  let calls = 0;
  let over = false;
  const measured = async () => {
    while (!over) {
      const before = process.hrtime.bigint();
      await contender.append();
      latency.record(process.hrtime.bigint() - before);
      calls++;
    }
  };
  const plain = async () => {
    while (!over) {
      await contender.append();
      calls++;
    }
  };
  const timer = setTimeout(() => {
    over = true;
  }, seconds * 1000);
  const syncsBefore = contender.syncs();
  const before = performance.now();
  await Promise.all([measured(), ...Array.from({ length: inFlight - 1 }, plain)]);
  const elapsed = (performance.now() - before) / 1000;
  clearTimeout(timer);
  const records = calls * recordsPerCall;
  return {
    recordsPerSecond: records / elapsed,
    megabytesPerSecond: (records * bytesPerRecord) / elapsed / 1e6,
    p50Ms: latency.percentile(50) / 1e6,
    p99Ms: latency.percentile(99) / 1e6,
    syncsPerRecord: (contender.syncs() - syncsBefore) / Math.max(1, records),
  };
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

export function medianOf(rounds: Measurement[]): Measurement {
  const of = (key: keyof Measurement) => median(rounds.map((round) => round[key]));
  return {
    recordsPerSecond: of('recordsPerSecond'),
    megabytesPerSecond: of('megabytesPerSecond'),
    p50Ms: of('p50Ms'),
    p99Ms: of('p99Ms'),
    syncsPerRecord: of('syncsPerRecord'),
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
