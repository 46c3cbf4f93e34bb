import fs from 'node:fs';
import path from 'node:path';
import type { Sample } from './judge.js';

/** What this process uses now. Garbage is collected first where node was started with --expose-gc. */
export function sample(startedAt: number): Sample {
  (globalThis as { gc?: () => void }).gc?.();
  const { rss, heapUsed: heap, external, arrayBuffers } = process.memoryUsage();
  const at = (performance.now() - startedAt) / 1000;
  return { at, rss, heap, external, arrayBuffers, handles: handles(), threads: namesIn('/proc/self/task').length };
}

function namesIn(directory: string): string[] {
  return fs.existsSync(directory) ? fs.readdirSync(directory) : [];
}

/** Sends a sample to the parent now and then. */
export function sendSamples(everyMs: number): void {
  const startedAt = performance.now();
  setInterval(() => process.send?.({ sample: sample(startedAt) }, () => {}), everyMs).unref();
  // Nobody is left to judge it.
  process.once('disconnect', () => process.exit(1));
}

/**
 * Open files, pipes and what else the process holds. Without the source files of programs: a thread that is terminated while
 * Node.js reads its modules leaves them open for good, which is not the log's doing.
 */
function handles(): number {
  return namesIn(HANDLES).filter((fd) => !isProgram(path.join(HANDLES, fd))).length;
}

const HANDLES = '/proc/self/fd';

function isProgram(link: string): boolean {
  try {
    return /\.([cm]?js|json)$/.test(fs.readlinkSync(link));
  } catch {
    // Closed meanwhile, the folder's own handle among them.
    return true;
  }
}
