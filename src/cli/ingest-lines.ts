import fs from 'node:fs';
import type { OpenOptions } from '../coordinator/options.js';
import type { Durability, Lsn } from '../types.js';
import { WriteAheadLog } from '../wal.js';
import { openAcks } from './acks.js';
import { lineBlocks, STDIN } from './line-blocks.js';
import { type Ingested, ProducerThreads } from './producer-threads.js';
import { recoveryProgress } from './progress.js';

export interface IngestOptions {
  directory: string;
  /** Files, read one after the other; `-` is standard input. */
  sources: string[];
  /** Producer threads. */
  producers: number;
  durability: Durability;
  log?: OpenOptions;
  /** File that gets a JSON line for each acknowledged record. */
  acks?: string;
  /** Stops reading; what was read by then is finished, and the log closed. */
  signal?: AbortSignal;
  onProgress?: (ingested: Ingested) => void;
  /** Trouble that does not stop the log. */
  onWarning?: (error: Error) => void;
}

export interface IngestSummary {
  records: number;
  /** Of the records, line ends not included. */
  bytes: number;
  /** Groups of records that were written together. */
  commits: number;
  syncs: number;
  seconds: number;
  recordsPerSecond: number;
  /** 0 when there were no records. */
  firstLsn: Lsn;
  lastLsn: Lsn;
  latencyMs: { p50: number; p99: number };
}

/** Appends each line of the sources as a record, byte for byte, through producer threads. */
export async function ingestLines(options: IngestOptions): Promise<IngestSummary> {
  const { directory, sources, producers, durability, signal } = options;
  const { onProgress, clear } = recoveryProgress();
  const log = await WriteAheadLog.open(directory, { ...options.log, durability, onProgress }).finally(clear);
  let acks: number | undefined;
  try {
    log.on('error', (error) => options.onWarning?.(error));
    if (options.acks !== undefined) acks = openAcks(options.acks);
    const startedAt = performance.now();
    const threads = new ProducerThreads(log, producers, durability, acks, options.onProgress ?? (() => {}));
    await feed(threads, lineBlocks(sources, threads.longest, signal));
    return summary(log, threads, (performance.now() - startedAt) / 1000);
  } finally {
    await log.close();
    if (acks !== undefined) fs.closeSync(acks);
  }
}

async function feed(threads: ProducerThreads, blocks: ReturnType<typeof lineBlocks>): Promise<void> {
  let failure: unknown;
  try {
    for await (const block of blocks) await threads.hand(block);
  } catch (error) {
    failure = error;
  }
  // However reading ended, what the threads hold is finished first.
  await threads.finish().catch((error) => {
    failure ??= error;
  });
  if (failure !== undefined) throw failure;
}

function summary(log: WriteAheadLog, { ingested, latency }: ProducerThreads, seconds: number): IngestSummary {
  const { records, bytes, firstLsn, lastLsn } = ingested;
  const { commits, syncs } = log.stats();
  const ms = (percentile: number) => (records === 0 ? 0 : latency.percentile(percentile) / 1e6);
  return {
    records,
    bytes,
    commits,
    syncs,
    seconds,
    recordsPerSecond: records / seconds,
    firstLsn,
    lastLsn,
    latencyMs: { p50: ms(50), p99: ms(99) },
  };
}

/** Bytes of the sources together; undefined when one of them is not a plain file. */
export function bytesOf(sources: string[]): number | undefined {
  let total = 0;
  for (const source of sources) {
    const stats = source === STDIN ? undefined : fs.statSync(source);
    if (!stats?.isFile()) return undefined;
    total += stats.size;
  }
  return total;
}
