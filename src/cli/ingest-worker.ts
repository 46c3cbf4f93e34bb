import { createHistogram } from 'node:perf_hooks';
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { toPlainError } from '../errors.js';
import { connect } from '../producer/connect.js';
import { Acks } from './acks.js';
import type { IngestReply, IngestRequest, IngestWorkerData } from './ingest-messages.js';
import { eachLine, type LineBlock, LineTooLongError } from './line-blocks.js';

/** One producer thread: appends the lines of each block it is given, in order, many at a time. */
const { handle, durability, acks: acksFd } = workerData as IngestWorkerData;
const port = parentPort as MessagePort;
const producer = await connect(handle);
const longest = handle.options.maxRecordBytes;
const acks = acksFd === undefined ? undefined : new Acks(acksFd);
const latency = createHistogram();

/** Appends that are not acknowledged yet; a block of empty lines holds very many. */
const MOST_IN_FLIGHT = 16_384;
let inFlight = 0;
let resume: (() => void) | undefined;
let failed = false;

function post(reply: IngestReply): void {
  port.postMessage(reply);
}

function fail(error: unknown): void {
  if (!failed) post({ op: 'failed', error: toPlainError(error) });
  failed = true;
  resume?.();
}

/** Resolves when the lines are in the log's hands; they are acknowledged later. */
async function append({ bytes, source, offset }: LineBlock): Promise<void> {
  const block = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const done: Extract<IngestReply, { op: 'done' }> = {
    op: 'done',
    input: block.byteLength,
    records: 0,
    bytes: 0,
    first: 0,
    last: 0,
  };
  let open = 1;
  const settle = () => {
    open--;
    if (open === 0 && !failed) post(done);
  };
  await eachLine(block, (line, at) => {
    if (failed) return undefined;
    if (line.byteLength > longest) {
      fail(new LineTooLongError(source, offset + at, longest));
      return undefined;
    }
    const startedAt = performance.now();
    open++;
    inFlight++;
    producer.append(line, { durability }).then((lsn) => {
      latency.record(Math.max(1, Math.round((performance.now() - startedAt) * 1e6)));
      acks?.note(lsn, line);
      if (done.records === 0) done.first = lsn;
      done.records++;
      done.bytes += line.byteLength;
      done.last = lsn;
      inFlight--;
      if (inFlight <= MOST_IN_FLIGHT / 2) resume?.();
      settle();
    }, fail);
    return inFlight < MOST_IN_FLIGHT ? undefined : room();
  });
  settle();
}

async function room(): Promise<void> {
  await new Promise<void>((resolve) => {
    resume = resolve;
  });
  resume = undefined;
}

async function end(): Promise<void> {
  await producer.close();
  // The acknowledgements of the last commit are written at the end of this turn.
  setImmediate(() => {
    post({ op: 'ended', latency });
    port.close();
  });
}

let turn: Promise<void> = Promise.resolve();
port.on('message', (request: IngestRequest) => {
  turn = turn.then(() => (request.op === 'block' ? append(request.block) : end())).catch(fail);
});
