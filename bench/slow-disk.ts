import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import workerThreads, { type WorkerOptions } from 'node:worker_threads';

/**
 * Makes every fdatasync of this process take at least so long, in all its threads, to see what a log does on a slower
 * disk than the one at hand. The thread sleeps meanwhile, as it would.
 */
export function slowDown(microseconds: number): void {
  patch(microseconds);
  workerThreads.setEnvironmentData('ringwal-bench-sync', microseconds);
  const preload = new URL('./slow-disk-thread.js', import.meta.url).href;
  workerThreads.Worker = class extends workerThreads.Worker {
    constructor(file: string | URL, options?: WorkerOptions) {
      super(file, { ...options, execArgv: ['--import', preload] });
    }
  };
  syncBuiltinESMExports();
}

export function patch(microseconds: number): void {
  const { fdatasyncSync } = fs;
  const never = new Int32Array(new SharedArrayBuffer(4));
  fs.fdatasyncSync = (fd) => {
    const before = performance.now();
    fdatasyncSync(fd);
    const rest = microseconds / 1000 - (performance.now() - before);
    if (rest > 0) Atomics.wait(never, 0, 0, rest);
  };
  syncBuiltinESMExports();
}
