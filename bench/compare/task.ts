import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Work } from '../../src/cli/bench/contenders.js';
import type { Measurement } from '../../src/cli/bench/load.js';
import type { ContenderName } from './contenders.js';
import { countSyncs, STRACE } from './strace.js';

/** What one thread of a process asks for. */
export interface ThreadLoad {
  level: 'os' | 'disk';
  inFlight: number;
}

/** What a process of its own is started for. */
export type Task =
  | {
      op: 'load';
      contender: ContenderName;
      work: Work;
      seconds: number;
      directory: string;
      /** Each in a worker thread; without it the main thread does the work. */
      threads?: ThreadLoad[];
      /** For the guard: every fdatasync takes at least so many microseconds. */
      syncMicros?: number;
    }
  | {
      op: 'fill';
      contender: ContenderName;
      directory: string;
      records: number;
      recordBytes: number;
      puts?: boolean;
      crash?: boolean;
    }
  | { op: 'read'; contender: ContenderName; how: How; directory: string; passes: number }
  | { op: 'open'; contender: ContenderName; directory: string; crash?: boolean }
  | { op: 'disk'; directory: string; seconds: number };

/** `walk`: objects for bytes that lie in memory. `checksum`: the files read and checksummed. `both`: one after the other. */
export type How = 'records' | 'replay' | 'verify' | 'walk' | 'checksum' | 'both';

export interface Loaded extends Measurement {
  /** From the process's beginning to its end. */
  allRecords: number;
  /** With threads: what each of them measured. */
  threads?: Measurement[];
}

export interface Results {
  load: Loaded;
  fill: { records: number };
  read: { recordsPerSecond: number };
  open: { totalMs: number; logMs?: number };
  disk: { extendMs: number; overwriteMs: number; mebibyteMBps: number };
}

const CHILD = fileURLToPath(new URL('./child.js', import.meta.url));

/** Carries a task out in a process of its own. */
export async function runTask<T extends Task>(task: T): Promise<Results[T['op']]> {
  const dies = 'crash' in task && task.crash === true;
  return JSON.parse(await output(process.execPath, [CHILD, JSON.stringify(task)], dies ? 'SIGKILL' : undefined));
}

/** How many times a record the task's process makes the kernel sync, as strace sees it. The run is not timed. */
export async function syncsPerRecord(task: Task & { op: 'load' }): Promise<number> {
  const trace = `${task.directory}.strace`;
  try {
    const args = [...STRACE, '-o', trace, process.execPath, CHILD, JSON.stringify(task)];
    const { allRecords } = JSON.parse(await output('strace', args)) as Loaded;
    return countSyncs(fs.readFileSync(trace, 'utf8')) / Math.max(1, allRecords);
  } finally {
    fs.rmSync(trace, { force: true });
  }
}

/** What a program prints, once it has ended well, or by the signal that is its way to end. */
export function output(program: string, args: string[], end?: NodeJS.Signals): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
    });
    child.stderr.on('data', (chunk) => {
      stderr += chunk;
    });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0 || (end !== undefined && signal === end)) resolve(stdout);
      else {
        // The first line is for the report: nothing of this machine in it.
        const ended = `${path.basename(program)} ended with ${code ?? signal}`;
        reject(new Error(`${ended}\n${program} ${args.join(' ')}\n${stderr.slice(-2000)}`));
      }
    });
  });
}
