// Remembers the threads that are started after this is imported, the log's own ones among them.
import { syncBuiltinESMExports } from 'node:module';
import workerThreads, { type WorkerOptions } from 'node:worker_threads';

const started = new Map<workerThreads.Worker, string>();

workerThreads.Worker = class extends workerThreads.Worker {
  constructor(file: string | URL, options?: WorkerOptions) {
    super(file, options);
    started.set(this, String(file));
    this.once('exit', () => started.delete(this));
  }
};
syncBuiltinESMExports();

const running = (program: RegExp) => [...started].filter(([, file]) => program.test(file)).map(([worker]) => worker);

/** The I/O actors of the logs that this thread has open. */
export const actors = () => running(/io-actor\.js$/);
/** The threads of their Piscina pools. */
export const encoders = () => running(/piscina.*worker\.js$/);
