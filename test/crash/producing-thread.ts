// A thread that connects to a log and appends until something fails; then it says what.
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { connect, type ProducerHandle, type WalError } from 'ringwal';
import { Producing, type ProducingTask } from './producing.js';

interface ThreadData {
  program: string;
  task: ProducingTask;
  handle: ProducerHandle;
}

export interface ProducingThread {
  worker: Worker;
  /** Codes of what failed, in order; none when it was terminated before. */
  ended: Promise<string[]>;
}

const PROGRAM = fileURLToPath(import.meta.url);

export function produceInThread(task: ProducingTask, handle: ProducerHandle): ProducingThread {
  const worker = new Worker(PROGRAM, { workerData: { program: PROGRAM, task, handle } satisfies ThreadData });
  let failures: string[] = [];
  worker.once('message', (codes: string[]) => {
    failures = codes;
  });
  const ended = new Promise<string[]>((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', () => resolve(failures));
  });
  return { worker, ended };
}

async function produce({ task, handle }: ThreadData): Promise<string[]> {
  try {
    return await new Producing(await connect(handle), task).run();
  } catch (error) {
    // It was closed, or had failed, before this thread had started.
    return [(error as WalError).code];
  }
}

if (!isMainThread && (workerData as Partial<ThreadData> | null)?.program === PROGRAM) {
  parentPort?.postMessage(await produce(workerData as ThreadData));
}
