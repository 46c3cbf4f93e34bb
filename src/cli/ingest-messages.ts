import type { RecordableHistogram } from 'node:perf_hooks';
import type { PlainError } from '../errors.js';
import type { ProducerHandle } from '../producer/connect.js';
import type { Durability, Lsn } from '../types.js';
import type { LineBlock } from './line-blocks.js';

/** What a producer thread of an ingest is started with. */
export interface IngestWorkerData {
  handle: ProducerHandle;
  durability: Durability;
  /** Descriptor of the file that acknowledgements go to, opened for appending. */
  acks: number | undefined;
}

export type IngestRequest = { op: 'block'; block: LineBlock } | { op: 'end' };

export type IngestReply =
  /** All lines of one block are acknowledged. */
  | { op: 'done'; input: number; records: number; bytes: number; first: Lsn; last: Lsn }
  | { op: 'failed'; error: PlainError }
  /** The last message: nanoseconds from append to acknowledgement, by record. */
  | { op: 'ended'; latency: RecordableHistogram };
