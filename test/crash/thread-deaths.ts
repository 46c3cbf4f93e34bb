import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import * as workerThreads from 'node:worker_threads';
import { type OpenOptions, type WalError, WriteAheadLog } from 'ringwal';
import { Random } from '../simulation/random.js';
import { inspect } from './inspect.js';
import { Ledger } from './ledger.js';
import { NoteBook, readNotes } from './notes.js';
import { openInThread } from './opening-thread.js';
import { Producing, type ProducingTask } from './producing.js';
import { type ProducingThread, produceInThread } from './producing-thread.js';
import { actors, encoders } from './started-threads.js';

export type Victim = 'I/O actor' | 'encoder' | 'producer' | 'opening thread';

export interface DeathRound {
  round: number;
  victim: Victim;
  /** Threads that were terminated in this round. */
  deaths: number;
  records: number;
  acknowledged: number;
  milliseconds: number;
}

export interface DeathOptions {
  directory: string;
  rounds: number;
  seed: number;
  /** The longest time from the first appends to a death, in milliseconds. */
  longestLife: number;
  roundsPerLog: number;
}

interface Round {
  directory: string;
  notes: string;
  random: Random;
  life: number;
  /** Without the number of the thread. */
  task: Omit<ProducingTask, 'thread'>;
}

/** Threads beside the opening one. */
const THREADS = 2;
const OPTIONS: OpenOptions = { segmentBytes: 256 * 1024, ringBytes: 8 * 1024 * 1024, encoders: 2 };
const ROUNDS: Record<Victim, (round: Round) => Promise<number>> = {
  'I/O actor': actorDies,
  encoder: encodersDie,
  producer: producerDies,
  'opening thread': openerDies,
};
export const VICTIMS = Object.keys(ROUNDS) as Victim[];

/** Terminates single threads of a log at work, one kind after the other. Throws when a promise was broken. */
export async function* threadDeaths(options: DeathOptions): AsyncGenerator<DeathRound> {
  const { directory, rounds, seed, longestLife, roundsPerLog } = options;
  let ledger = new Ledger();
  let acknowledged = 0;
  for (let round = 1; round <= rounds; round++) {
    const startedAt = performance.now();
    const random = Random.of(seed, round);
    const log = path.join(directory, `log-${Math.ceil(round / roundsPerLog)}`);
    if (round % roundsPerLog === 1 && round > 1) {
      acknowledged += ledger.acknowledged;
      ledger = new Ledger();
      fs.rmSync(path.join(directory, `log-${Math.ceil(round / roundsPerLog) - 1}`), { recursive: true });
    }
    const victim = VICTIMS[(round - 1) % VICTIMS.length];
    const notes = path.join(directory, `notes-${round}`);
    const era = new SharedArrayBuffer(4);
    const task = { notes, seed, round, era, large: victim === 'encoder' };
    const deaths = await ROUNDS[victim]({ directory: log, notes, random, life: random.below(longestLife), task });
    const files = Array.from({ length: THREADS + 2 }, (_, thread) => `${notes}.${thread}`);
    ledger.took(readNotes(files));
    for (const file of files) fs.rmSync(file, { force: true });
    const { records } = await inspect(log, ledger);
    const milliseconds = performance.now() - startedAt;
    yield { round, victim, deaths, records, acknowledged: acknowledged + ledger.acknowledged, milliseconds };
  }
}

/** Everybody hears of it: appends in flight, later calls, waiters, followers. */
async function actorDies({ directory, life, task }: Round): Promise<number> {
  const wal = await WriteAheadLog.open(directory, OPTIONS);
  const errors: Error[] = [];
  wal.on('error', (error) => errors.push(error));
  const produced = produceEverywhere(wal, task);
  const waiters = [codeOf(wal.waitFor(1_000_000_000, 'disk')), codeOf(follow(wal))];
  await delay(life);
  await Promise.all(actors().map((actor) => actor.terminate()));
  await failedAll(produced);
  for (const code of await Promise.all(waiters)) expect(code === 'ERR_WAL_FAILED', `A waiter got ${code}.`);
  for (const call of [() => wal.append('x'), () => wal.sync(), () => wal.rotate(), () => wal.checkpoint(0)]) {
    const code = await codeOf(call());
    expect(code === 'ERR_WAL_FAILED', `A later call got ${code}.`);
  }
  await wal.close();
  expect(errors.length === 1, `The failure was told ${errors.length} times: ${errors.join()}`);
  return 1;
}

/** Nobody hears of it: the frame is encoded again, in another thread. */
async function encodersDie({ directory, life, random, notes, task }: Round): Promise<number> {
  const wal = await WriteAheadLog.open(directory, OPTIONS);
  const errors: Error[] = [];
  wal.on('error', (error) => errors.push(error));
  const produced = new Producing(wal, { ...task, thread: 0 }).run();
  let deaths = 0;
  for (let i = random.between(2, 6); i > 0; i--) {
    await delay(life / 6);
    while (encoders().length === 0) await delay(1);
    deaths += encoders().length;
    await Promise.all(encoders().map((encoder) => encoder.terminate()));
  }
  await closeWell(wal, notes, [produced]);
  // The next segment is prepared in these threads too; that it could not be is worth saying.
  const other = errors.find(({ message }) => !/died/.test(message));
  expect(other === undefined, `The log told ${other}.`);
  return deaths;
}

/** What it had not published is gone, whole; the others go on. */
async function producerDies({ directory, life, notes, task }: Round): Promise<number> {
  const wal = await WriteAheadLog.open(directory, OPTIONS);
  const [victim, other] = threadsOf(() => wal.producer(), task);
  const own = new Producing(wal, { ...task, thread: 0 }).run();
  await delay(life);
  await victim.worker.terminate();
  await victim.ended;
  await wal.append(`r${task.round}m|0|1|0|data|`);
  await closeWell(wal, notes, [own, other.ended]);
  return 1;
}

/** The producers learn of it, and the lock is free at once. */
async function openerDies({ directory, life, task }: Round): Promise<number> {
  // Before Node.js 20.19 and 22.5 one thread cannot notice the end of another.
  if (!('postMessageToThread' in workerThreads)) return 0;
  const { worker, handles } = await openInThread(directory, THREADS, { ...task, thread: 0 });
  const threads = threadsOf(() => handles.pop()!, task);
  await delay(life);
  await worker.terminate();
  const again = await WriteAheadLog.open(directory, OPTIONS);
  await again.close();
  await failedAll(threads.map(({ ended }) => ended));
  return 1;
}

type MakeHandle = WriteAheadLog['producer'];

function threadsOf(producer: MakeHandle, task: Round['task']): ProducingThread[] {
  return Array.from({ length: THREADS }, (_, i) => produceInThread({ ...task, thread: i + 1 }, producer()));
}

function produceEverywhere(wal: WriteAheadLog, task: Round['task']): Promise<string[]>[] {
  const threads = threadsOf(() => wal.producer(), task);
  return [new Producing(wal, { ...task, thread: 0 }).run(), ...threads.map(({ ended }) => ended)];
}

async function failedAll(produced: readonly Promise<string[]>[]): Promise<void> {
  for (const codes of await Promise.all(produced)) {
    expect(codes.length > 0, 'A producer did not hear of it.');
    const other = codes.find((code) => code !== 'ERR_WAL_INDETERMINATE' && code !== 'ERR_WAL_FAILED');
    expect(other === undefined, `An append failed with ${other}.`);
  }
}

async function closeWell(wal: WriteAheadLog, notes: string, produced: readonly Promise<string[]>[]): Promise<void> {
  await wal.close();
  for (const codes of await Promise.all(produced)) {
    const other = codes.find((code) => code !== 'ERR_WAL_CLOSED');
    expect(other === undefined, `An append failed with ${other}.`);
  }
  new NoteBook(`${notes}.${THREADS + 1}`).event('closed', wal.watermark('disk'));
}

async function follow(wal: WriteAheadLog): Promise<void> {
  for await (const { lsn } of wal.read({ follow: true })) if (lsn < 1) return;
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'no error';
  } catch (error) {
    return (error as WalError).code;
  }
}

function expect(is: boolean, otherwise: string): void {
  if (!is) throw new Error(otherwise);
}
