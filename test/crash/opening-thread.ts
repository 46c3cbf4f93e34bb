// A thread that opens a log, hands out ways into it, and works on it until it is terminated.

import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { type ProducerHandle, WriteAheadLog } from 'ringwal';
import { Producing, type ProducingTask } from './producing.js';

interface OpeningData {
  program: string;
  directory: string;
  handles: number;
  task: ProducingTask;
}

const PROGRAM = fileURLToPath(import.meta.url);

/** Resolves once the log is open. */
export async function openInThread(
  directory: string,
  handles: number,
  task: ProducingTask,
): Promise<{ worker: Worker; handles: ProducerHandle[] }> {
  const worker = new Worker(PROGRAM, {
    workerData: { program: PROGRAM, directory, handles, task } satisfies OpeningData,
  });
  const opened = await new Promise<ProducerHandle[]>((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  return { worker, handles: opened };
}

if (!isMainThread && (workerData as Partial<OpeningData> | null)?.program === PROGRAM) {
  const { directory, handles, task } = workerData as OpeningData;
  const wal = await WriteAheadLog.open(directory, { segmentBytes: 256 * 1024, ringBytes: 2 * 1024 * 1024 });
  parentPort?.postMessage(Array.from({ length: handles }, () => wal.producer()));
  await new Producing(wal, task).run();
}
