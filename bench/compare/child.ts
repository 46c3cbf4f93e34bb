import fs from 'node:fs';
import path from 'node:path';
import { verifyLog, WriteAheadLog } from 'ringwal';
import { freshWarmUp, measure } from '../../src/cli/bench/compare.js';
import { type Work, workOf } from '../../src/cli/bench/contenders.js';
import { median } from '../../src/cli/bench/load.js';
import { bytesToWalk, readAndChecksum, walkInMemory } from '../bare-loops.js';
import { slowDown } from '../slow-disk.js';
import { ENTRANTS, type Seat } from './contenders.js';
import { loadFromThreads } from './load-threads.js';
import { openLevel, openLmdb, openSqlite } from './peers.js';
import type { Loaded, Results, Task } from './task.js';

/** One task of a comparison, in a process of its own; what came out of it is printed as JSON. */
const ALONE: Seat = { thread: 0 };

type TaskOf<T extends Task['op']> = Task & { op: T };

async function loadOne(task: TaskOf<'load'>): Promise<Loaded> {
  if (task.syncMicros !== undefined) slowDown(task.syncMicros);
  if (task.threads !== undefined) return loadFromThreads(task, task.threads);
  const contender = await ENTRANTS[task.contender].make(task.work, task.directory, ALONE);
  return measure(contender, task.work, task.seconds, undefined, freshWarmUp(task.seconds));
}

/** Quickly, at `os`: batches of 100 KB, four at a time. */
async function fill(task: TaskOf<'fill'>): Promise<Results['fill']> {
  const perCall = Math.max(1, Math.floor(1e5 / task.recordBytes));
  const work: Work = workOf(4, task.recordBytes, 'os', perCall);
  if (task.contender === 'ringwal') return fillLog(task, perCall);
  const contender = await ENTRANTS[task.contender].make(work, task.directory, ALONE);
  let records = 0;
  for (; records < task.records; records += 4 * perCall) {
    await Promise.all([0, 1, 2, 3].map(() => contender.append()));
  }
  await contender.close();
  return { records };
}

async function fillLog(task: TaskOf<'fill'>, perCall: number): Promise<Results['fill']> {
  const log = await WriteAheadLog.open(task.directory, { durability: 'os' });
  const values = new Array<Buffer>(perCall).fill(Buffer.alloc(task.recordBytes, 'x'));
  const operations = values.map((value, i) => ({ type: 'put', key: `key ${i}`, value }) as const);
  const write = () => (task.puts === true ? log.batch(operations) : log.appendMany(values));
  let records = 0;
  for (; records < task.records; records += 4 * perCall) await Promise.all([0, 1, 2, 3].map(write));
  if (task.crash === true) die({ records });
  await log.close();
  return { records };
}

/** As for appends: the optimising compiler has looked at everything by then, and the heap has the size that it keeps. */
const WARM_UP_MS = 2000;

/** The median of several passes, after some that warm up. */
async function read(task: TaskOf<'read'>): Promise<Results['read']> {
  const pass = await reader(task);
  const rates: number[] = [];
  const since = performance.now();
  do await pass();
  while (performance.now() - since < WARM_UP_MS);
  for (let i = 0; i < task.passes; i++) {
    const before = performance.now();
    const records = await pass();
    rates.push((records * 1000) / (performance.now() - before));
  }
  return { recordsPerSecond: median(rates) };
}

/** One pass over everything; resolves to the number of records. */
async function reader({ contender, how, directory }: TaskOf<'read'>): Promise<() => Promise<number>> {
  if (contender === 'lmdb') {
    const database = openLmdb(path.join(directory, 'lmdb'), true);
    return async () => {
      let records = 0;
      for (const _ of database.getRange()) records++;
      return records;
    };
  }
  if (contender === 'level-batch') {
    const level = await openLevel(path.join(directory, 'level'));
    return async () => {
      const iterator = level.iterator();
      let records = 0;
      for (let some = await iterator.nextv(1000); some.length > 0; some = await iterator.nextv(1000)) {
        records += some.length;
      }
      await iterator.close();
      return records;
    };
  }
  if (contender === 'sqlite') {
    const all = openSqlite(path.join(directory, 'sqlite'), false).prepare(
      'select id, payload from records order by id',
    );
    return async () => {
      let records = 0;
      for (const _ of all.iterate()) records++;
      return records;
    };
  }
  return logReader(how, directory);
}

async function logReader(how: TaskOf<'read'>['how'], directory: string): Promise<() => Promise<number>> {
  const log = await WriteAheadLog.open(directory, { readOnly: true });
  const { lastLsn } = log.recovery;
  const bytes = how === 'walk' || how === 'both' ? bytesToWalk() : new Uint8Array();
  const passes: Record<typeof how, () => Promise<unknown> | unknown> = {
    records: async () => {
      for await (const _ of log.read().batches());
    },
    replay: () => log.replay(() => {}),
    verify: () => verifyLog(directory),
    walk: () => walkInMemory(bytes, lastLsn),
    checksum: () => readAndChecksum(directory),
    both: () => {
      readAndChecksum(directory);
      walkInMemory(bytes, lastLsn);
    },
  };
  return async () => {
    await passes[how]();
    return lastLsn;
  };
}

async function open(task: TaskOf<'open'>): Promise<Results['open']> {
  const before = performance.now();
  const since = () => performance.now() - before;
  if (task.contender === 'lmdb') {
    const database = openLmdb(path.join(task.directory, 'lmdb'), true);
    const totalMs = since();
    await database.close();
    return { totalMs };
  }
  if (task.contender === 'level-batch') {
    const level = await openLevel(path.join(task.directory, 'level'));
    const totalMs = since();
    await level.close();
    return { totalMs };
  }
  if (task.contender === 'sqlite') {
    const database = openSqlite(path.join(task.directory, 'sqlite'), true);
    const totalMs = since();
    database.close();
    return { totalMs };
  }
  const log = await WriteAheadLog.open(task.directory);
  const totalMs = since();
  if (task.crash === true) await crashAgain(log, { totalMs, logMs: log.recovery.durationMs });
  await log.close();
  return { totalMs, logMs: log.recovery.durationMs };
}

/** Fills half a segment, so that the next one to open finds a torn log of the same size; prints and dies. */
async function crashAgain(log: WriteAheadLog, result: Results['open']): Promise<void> {
  const payloads = new Array<Buffer>(1000).fill(Buffer.alloc(1024, 'x'));
  for (let i = 0; i < 32; i++) await log.appendMany(payloads, { durability: 'os' });
  die(result);
}

/** What a crash leaves behind; the result is told before. */
function die(result: unknown): void {
  fs.writeSync(1, JSON.stringify(result));
  process.kill(process.pid, 'SIGKILL');
}

/** What the disk does by itself. */
async function disk(task: TaskOf<'disk'>): Promise<Results['disk']> {
  const fd = fs.openSync(path.join(task.directory, 'disk'), 'w');
  const small = Buffer.alloc(100, 'x');
  const large = Buffer.alloc(1 << 20, 'x');
  const time = (bytes: Buffer): number => {
    const times: number[] = [];
    const end = performance.now() + task.seconds * 1000;
    for (let at = 0; performance.now() < end; at += bytes.byteLength) {
      const before = performance.now();
      fs.writeSync(fd, bytes, 0, bytes.byteLength, at);
      fs.fdatasyncSync(fd);
      times.push(performance.now() - before);
    }
    return median(times);
  };
  const extendMs = time(small);
  for (let i = 0; i < 16; i++) fs.writeSync(fd, large, 0, large.byteLength, i * large.byteLength);
  fs.fdatasyncSync(fd);
  const overwriteMs = time(small);
  const mebibyteMs = time(large);
  fs.closeSync(fd);
  return { extendMs, overwriteMs, mebibyteMBps: large.byteLength / 1000 / mebibyteMs };
}

async function main(task: Task): Promise<unknown> {
  switch (task.op) {
    case 'load':
      return loadOne(task);
    case 'fill':
      return fill(task);
    case 'read':
      return read(task);
    case 'open':
      return open(task);
    case 'disk':
      return disk(task);
  }
}

const result = await main(JSON.parse(process.argv[2]));
fs.writeSync(1, JSON.stringify(result));
// Whatever a contender still has open must not keep the comparison waiting.
process.exit(0);
