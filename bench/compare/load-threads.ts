import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { WriteAheadLog } from 'ringwal';
import type { Measurement } from '../../src/cli/bench/load.js';
import type { ContenderName } from './contenders.js';
import { openSqlite } from './peers.js';
import type { Loaded, Task, ThreadLoad } from './task.js';
import type { ThreadData, ThreadMessage } from './thread.js';

type LoadTask = Task & { op: 'load' };

/** Those whose threads write to one log. The others have a file each. */
const SHARING = new Set<ContenderName>(['ringwal', 'lmdb', 'lmdb-sync', 'level-put', 'level-batch', 'sqlite']);

/** Loads a contender from several threads at once, the main thread looking on. */
export async function loadFromThreads(task: LoadTask, threads: ThreadLoad[]): Promise<Loaded> {
  const log = task.contender === 'ringwal' ? await WriteAheadLog.open(task.directory) : undefined;
  await log?.append('first');
  // Made by one thread, so that not all of them make it at once.
  if (task.contender === 'sqlite') openSqlite(path.join(task.directory, 'sqlite'), true).close();
  const workers = threads.map((each, thread) => {
    const directory = SHARING.has(task.contender) ? task.directory : path.join(task.directory, String(thread));
    fs.mkdirSync(directory, { recursive: true });
    const handle = log && { ...log.producer(), defaultLevel: each.level === 'os' ? 1 : 2 };
    const workerData: ThreadData = {
      contender: task.contender,
      work: { ...task.work, ...each },
      directory,
      seconds: task.seconds,
      seat: { thread, handle },
    };
    return new Worker(new URL('./thread.js', import.meta.url), { workerData });
  });
  const exits = workers.map((worker) => once(worker, 'exit'));
  await Promise.all(workers.map((worker) => message(worker, 'warm')));
  const syncsBefore = log?.stats().syncs ?? 0;
  const cpuBefore = process.cpuUsage();
  const done = workers.map((worker) => message(worker, 'done'));
  for (const worker of workers) worker.postMessage('go');
  const told = await Promise.all(done);
  const cpu = process.cpuUsage(cpuBefore);
  const syncs = (log?.stats().syncs ?? 0) - syncsBefore;
  await Promise.all(exits);
  await log?.close();
  return together(told, cpu.user + cpu.system, log === undefined ? undefined : syncs);
}

function together(told: MessageOf<'done'>[], cpuMicros: number, syncs: number | undefined): Loaded {
  const each = told.map(({ measurement }) => measurement);
  const sum = (figure: (one: Measurement) => number) => each.reduce((total, one) => total + figure(one), 0);
  const recordsPerSecond = sum((one) => one.recordsPerSecond);
  const records = Math.max(
    1,
    sum((one) => one.records),
  );
  // Latencies are those of the first thread: they all do the same, or only the first one's are of interest.
  return {
    ...each[0],
    records,
    allRecords: told.reduce((all, { measurement, warmUp }) => all + measurement.records + warmUp.records, 0),
    recordsPerSecond,
    megabytesPerSecond: sum((one) => one.megabytesPerSecond),
    cpuMicrosPerRecord: cpuMicros / records,
    syncsPerRecord:
      syncs === undefined
        ? sum((one) => one.syncsPerRecord * one.recordsPerSecond) / recordsPerSecond
        : syncs / records,
    threads: each,
  };
}

type MessageOf<T extends ThreadMessage['op']> = ThreadMessage & { op: T };

function message<T extends ThreadMessage['op']>(worker: Worker, op: T): Promise<MessageOf<T>> {
  return new Promise((resolve, reject) => {
    worker.on('message', (told: ThreadMessage) => {
      if (told.op === op) resolve(told as MessageOf<T>);
    });
    worker.on('error', reject);
    worker.on('exit', () => reject(new Error(`a thread ended before it was ${op}`)));
  });
}
