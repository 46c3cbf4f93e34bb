import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';
import { Worker } from 'node:worker_threads';
import { fromPlainError, WalError } from '../errors.js';
import type { Durability, Lsn } from '../types.js';
import type { WriteAheadLog } from '../wal.js';
import type { IngestReply, IngestRequest, IngestWorkerData } from './ingest-messages.js';
import type { LineBlock } from './line-blocks.js';

/** Blocks that one thread may hold at a time: enough to be busy while a commit is under way, few enough for memory. */
const CREDITS = 4;

interface Thread {
  worker: Worker;
  credits: number;
  exited: Promise<void>;
}

/** What the threads brought into the log so far. */
export interface Ingested {
  /** Bytes of the input, line ends included. */
  input: number;
  records: number;
  /** Bytes of the records. */
  bytes: number;
  /** 0 as long as there is none. */
  firstLsn: Lsn;
  lastLsn: Lsn;
}

/** Hands blocks of lines to producer threads, each as many as it has credit for. */
export class ProducerThreads {
  readonly ingested: Ingested = { input: 0, records: 0, bytes: 0, firstLsn: 0, lastLsn: 0 };
  /** Nanoseconds from append to acknowledgement, of all threads. */
  readonly latency: RecordableHistogram = createHistogram();
  /** The limit of a record in bytes. */
  readonly longest: number;
  readonly #threads: Thread[];
  readonly #onProgress: (ingested: Ingested) => void;
  #next = 0;
  #failure: Error | undefined;
  #changed: (() => void) | undefined;

  constructor(
    log: WriteAheadLog,
    number: number,
    durability: Durability,
    acks: number | undefined,
    onProgress: (ingested: Ingested) => void,
  ) {
    this.#onProgress = onProgress;
    const handles = Array.from({ length: number }, () => log.producer());
    this.longest = handles[0].options.maxRecordBytes;
    this.#threads = handles.map((handle) => this.#start({ handle, durability, acks }));
  }

  /** Gives a block to the next thread that has credit, and waits until one has. */
  async hand(block: LineBlock): Promise<void> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const thread = this.#withCredit();
      if (thread !== undefined) {
        thread.credits--;
        const request: IngestRequest = { op: 'block', block };
        thread.worker.postMessage(request, [block.bytes.buffer]);
        return;
      }
      await this.#change();
    }
  }

  /** Waits until everything handed over is acknowledged, and ends the threads. */
  async finish(): Promise<void> {
    while (this.#failure === undefined && this.#threads.some((thread) => thread.credits < CREDITS))
      await this.#change();
    for (const { worker } of this.#threads) worker.postMessage({ op: 'end' } satisfies IngestRequest);
    await Promise.all(this.#threads.map((thread) => thread.exited));
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** In turns, so that all threads get the same share. */
  #withCredit(): Thread | undefined {
    for (let i = 0; i < this.#threads.length; i++) {
      const thread = this.#threads[(this.#next + i) % this.#threads.length];
      if (thread.credits === 0) continue;
      this.#next = (this.#next + i + 1) % this.#threads.length;
      return thread;
    }
    return undefined;
  }

  #start(workerData: IngestWorkerData): Thread {
    const worker = new Worker(new URL('./ingest-worker.js', import.meta.url), { workerData });
    const exited = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
    const thread: Thread = { worker, credits: CREDITS, exited };
    worker.on('message', (reply: IngestReply) => this.#hear(thread, reply));
    worker.on('error', (error) => this.#fail(error));
    return thread;
  }

  #hear(thread: Thread, reply: IngestReply): void {
    if (reply.op === 'failed') return this.#fail(fromPlainError(reply.error));
    if (reply.op === 'ended') {
      if (reply.latency.count > 0) this.latency.add(reply.latency);
      return;
    }
    thread.credits++;
    this.#add(reply);
    this.#onProgress(this.ingested);
    this.#changed?.();
  }

  #add({ input, records, bytes, first, last }: Extract<IngestReply, { op: 'done' }>): void {
    const { ingested } = this;
    ingested.input += input;
    ingested.records += records;
    ingested.bytes += bytes;
    ingested.firstLsn = ingested.firstLsn === 0 ? first : Math.min(ingested.firstLsn, first);
    ingested.lastLsn = Math.max(ingested.lastLsn, last);
  }

  #fail(error: Error): void {
    // The log's own failure is the cause; what the other threads say then only follows from it.
    const first = this.#failure instanceof WalError && this.#failure.code !== 'ERR_WAL_INDETERMINATE';
    if (this.#failure === undefined || (!first && error instanceof WalError)) this.#failure = error;
    this.#changed?.();
  }

  async #change(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#changed = resolve;
    });
    this.#changed = undefined;
  }
}
