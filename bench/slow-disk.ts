import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import workerThreads, { type WorkerOptions } from 'node:worker_threads';

/**
 * Makes every fdatasync of this process, and every write that is one (`O_DSYNC`), take at least so long, in all its threads, to see what a log does on a slower
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
  const { fdatasyncSync, openSync, writeSync } = fs;
  const { O_DSYNC = 0 } = fs.constants;
  const never = new Int32Array(new SharedArrayBuffer(4));
  const slowly = <T>(call: () => T): T => {
    const before = performance.now();
    const result = call();
    const rest = microseconds / 1000 - (performance.now() - before);
    if (rest > 0) Atomics.wait(never, 0, 0, rest);
    return result;
  };
  const through = new Set<number>();
  fs.openSync = (path, flags, mode) => {
    const fd = openSync(path, flags, mode);
    if (O_DSYNC !== 0 && typeof flags === 'number' && (flags & O_DSYNC) === O_DSYNC) through.add(fd);
    else through.delete(fd);
    return fd;
  };
  fs.writeSync = ((fd: number, ...rest: [NodeJS.ArrayBufferView, number, number, number]) => {
    const write = () => writeSync(fd, ...rest);
    return through.has(fd) ? slowly(write) : write();
  }) as typeof writeSync;
  fs.fdatasyncSync = (fd) => slowly(() => fdatasyncSync(fd));
  syncBuiltinESMExports();
}
