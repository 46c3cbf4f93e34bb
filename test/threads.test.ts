import * as workerThreads from 'node:worker_threads';
import { MessageChannel, Worker } from 'node:worker_threads';
import { connect, type ProducerHandle, type WalRecord, WriteAheadLog } from 'ringwal';
import t from 'tap';
import { expectLifeLine } from '../src/producer/life-line.js';
import type { ProducerResult, ProducerTask } from './fixtures/producer.js';
import { collect, failsWith, fixture, numbers, openLog, payloads, temporaryDirectory } from './helpers.js';

function start(task: ProducerTask): { worker: Worker; reached: Promise<unknown>; result: Promise<ProducerResult> } {
  const worker = new Worker(fixture('producer'), { workerData: task });
  const result = new Promise<ProducerResult>((resolve, reject) => {
    worker.on('message', (message) => message !== 'reached' && resolve(message));
    worker.once('error', reject);
    worker.once('exit', () => reject(new Error('It ended without a result.')));
  });
  result.catch(() => {});
  const reached = new Promise((resolve) =>
    worker.on('message', (message) => message === 'reached' && resolve(message)),
  );
  return { worker, reached, result };
}

function exit(worker: Worker): Promise<unknown> {
  return new Promise((resolve) => worker.once('exit', resolve));
}

/** The numbers of the records of one producer, in the order of the log. */
function seriesOf(records: WalRecord[], name: string): number[] {
  return payloads(records).flatMap((payload) => {
    const match = /^(\w+)\.(\d+) /.exec(payload);
    return match?.[1] === name ? [Number(match[2])] : [];
  });
}

t.test('many threads at once: each keeps its order, all LSNs are different and none is missing', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { ringBytes: 256 * 1024 }, directory);
  const levels = ['disk', 'os', 'memory', 'disk'] as const;
  const threads = levels.map((durability, i) =>
    start({
      handle: wal.producer(),
      name: `t${i}`,
      count: 3000,
      window: [1000, 50, 3000, 7][i],
      options: { durability },
    }),
  );
  const own = Promise.all(numbers(0, 2999).map((i) => wal.append(`own.${i} `)));
  const results = await Promise.all(threads.map((thread) => thread.result));
  const all = [...results.map((result) => result.lsns), await own];
  t.same(
    all.flat().sort((a, b) => a - b),
    numbers(1, 15000),
    'no gap, none twice',
  );
  for (const lsns of all)
    t.ok(
      lsns.every((lsn, i) => i === 0 || lsn > lsns[i - 1]),
      'acknowledged in order',
    );
  await wal.sync();
  const check = (records: WalRecord[]) => {
    t.equal(records.length, 15000);
    for (const name of ['t0', 't1', 't2', 't3', 'own']) t.same(seriesOf(records, name), numbers(0, 2999), name);
  };
  check(await collect(wal.read()));
  t.equal(wal.stats().records, 15000);
  await wal.close();
  const again = await openLog(t, {}, directory);
  check(await collect(again.read()));
});

t.test('a handle travels by workerData or by postMessage, without a transfer list', async (t) => {
  const wal = await openLog(t);
  const byMessage = start({ name: 'm', count: 5, window: 1 });
  byMessage.worker.postMessage(wal.producer());
  t.same((await byMessage.result).lsns, [1, 2, 3, 4, 5]);
  const byData = start({ handle: wal.producer(), name: 'd', count: 5, window: 5 });
  t.same((await byData.result).lsns, [6, 7, 8, 9, 10]);
  const clone = structuredClone(wal.producer());
  t.equal(Object.getPrototypeOf(clone), Object.prototype, 'it is a plain object');
});

t.test('a handle connects once', async (t) => {
  const wal = await openLog(t);
  const handle = wal.producer();
  const producer = await connect(handle);
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', connect(handle));
  await failsWith(
    t,
    'ERR_WAL_INVALID_ARGUMENT',
    connect(structuredClone(handle) as ProducerHandle),
    'nor a copy of it',
  );
  await producer.append('x');
  await producer.close();
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', connect(handle), 'nor after its close');
});

t.test('a producer writes all that the log does, in any thread', async (t) => {
  const wal = await openLog(t, { flushIntervalMs: 0 });
  const producer = await connect(wal.producer());
  t.equal(await producer.append(new Uint8Array([1]), { durability: 'os' }), 1);
  t.equal(wal.watermark('disk'), 0, 'levels as asked for');
  t.equal(await producer.append('durable'), 2);
  t.equal(wal.watermark('disk'), 2, 'with the default of the log');
  t.same(await producer.appendMany(['a', 'b']), { first: 3, last: 4 });
  t.equal(await producer.put('k', ''), 5);
  t.equal(await producer.delete('k'), 6);
  t.same(await producer.batch([{ type: 'put', key: 'b', value: '1' }]), { first: 7, last: 7 });
  for (const work of [
    () => producer.append(1 as never),
    () => producer.append('x', { durability: 'replicated' }),
    () => producer.put('k', undefined as never),
    () => producer.batch('x' as never),
  ]) {
    await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', work);
  }
  await failsWith(t, 'ERR_WAL_RECORD_TOO_LARGE', producer.append(Buffer.alloc(5_000_000)));
  const reason = new Error('no');
  await t.rejects(producer.append('x', { signal: AbortSignal.abort(reason) }), reason);
  t.equal(await producer.append('next'), 8);
  await producer.close();
});

t.test('closing a producer waits for its appends, is idempotent, and leaves the log open', async (t) => {
  const wal = await openLog(t, { ringBytes: 65536 });
  const producer = await connect(wal.producer());
  const appends = numbers(1, 200).map(() => producer.append('x'.repeat(1000), { durability: 'memory' }));
  const closing = producer.close();
  await failsWith(t, 'ERR_WAL_CLOSED', producer.append('late'));
  await Promise.all([closing, producer.close()]);
  t.same(await Promise.all(appends), numbers(1, 200));
  await failsWith(t, 'ERR_WAL_CLOSED', producer.put('k', 'v'));
  await failsWith(t, 'ERR_WAL_CLOSED', producer.appendMany([]));
  t.equal(await wal.append('x'), 201);
  const disposable = await connect(wal.producer());
  await disposable[Symbol.asyncDispose]();
  await failsWith(t, 'ERR_WAL_CLOSED', disposable.append('x'));
});

t.test('producers come and go', async (t) => {
  const wal = await openLog(t, { ringBytes: 65536, durability: 'os' });
  for (let i = 1; i <= 60; i++) {
    const producer = await connect(wal.producer());
    t.equal(await producer.append('x'), i);
    await producer.close();
  }
});

t.test('a thread that ends without closing loses nothing that it published', async (t) => {
  const wal = await openLog(t, { flushIntervalMs: 0 });
  const options = { durability: 'os' } as const;
  const { worker } = start({ handle: wal.producer(), name: 'gone', count: 500, window: 500, options, leave: true });
  await exit(worker);
  await wal.sync();
  t.same(seriesOf(await collect(wal.read()), 'gone'), numbers(0, 499));
  t.equal(await wal.append('x'), 501);
});

t.test('a thread that is terminated in full flight harms nobody, and its records are whole', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { ringBytes: 65536, segmentBytes: 256 * 1024 }, directory);
  const survivor = start({ handle: wal.producer(), name: 'survivor', count: 2000, window: 100 });
  for (let round = 0; round < 4; round++) {
    const name = `victim${round}`;
    const count = Number.POSITIVE_INFINITY;
    const options = { durability: round % 2 === 0 ? 'os' : 'disk' } as const;
    const victim = start({ handle: wal.producer(), name, count, window: 300, bytes: 700, report: 500, options });
    await victim.reached;
    await victim.worker.terminate();
    await wal.append('the log goes on');
  }
  t.equal((await survivor.result).lsns.length, 2000);
  await wal.close();
  const again = await openLog(t, {}, directory);
  t.equal(again.recovery.verdict, 'clean');
  const records = await collect(again.read());
  t.same(seriesOf(records, 'survivor'), numbers(0, 1999));
  for (let round = 0; round < 4; round++) {
    const series = seriesOf(records, `victim${round}`);
    t.ok(series.length >= 500, 'all that it knew to be there is');
    t.same(series, numbers(0, series.length - 1), 'in order, without a gap');
  }
  t.ok(payloads(records).every((payload) => !payload.startsWith('victim') || payload.length === 700));
});

t.test('a log that is closed while threads append: they hear ERR_WAL_CLOSED, and nothing hangs', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { ringBytes: 65536 }, directory);
  const levels = ['memory', 'os', 'disk'] as const;
  const threads = levels.map((durability, i) =>
    start({
      handle: wal.producer(),
      name: `t${i}`,
      count: Number.POSITIVE_INFINITY,
      window: 200,
      bytes: 300,
      report: 1000,
      options: { durability },
    }),
  );
  const unused = wal.producer();
  await Promise.all(threads.map((thread) => thread.reached));
  await wal.close();
  const results = await Promise.all(threads.map((thread) => thread.result));
  await failsWith(t, 'ERR_WAL_CLOSED', connect(unused));
  const again = await openLog(t, {}, directory);
  t.equal(again.recovery.verdict, 'clean');
  const records = await collect(again.read());
  for (const [i, { lsns, failures }] of results.entries()) {
    t.ok(failures.length > 0 && failures.every((code) => code === 'ERR_WAL_CLOSED'), failures[0]);
    const series = seriesOf(records, `t${i}`);
    t.same(series, numbers(0, series.length - 1));
    for (const lsn of lsns) if (!payloads([records[lsn - 1]])[0].startsWith(`t${i}.`)) t.fail(`LSN ${lsn}`);
  }
});

t.test('a producer in this thread outlives the close of its log', async (t) => {
  const wal = await openLog(t);
  const producer = await connect(wal.producer());
  await producer.append('x');
  await wal.close();
  await failsWith(t, 'ERR_WAL_CLOSED', producer.append('x'));
  await producer.close();
});

t.test('a log opened by a worker serves other threads, and dies with it', async (t) => {
  const directory = temporaryDirectory(t);
  const opener = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads');
     import('ringwal').then(async ({ WriteAheadLog }) => {
       const wal = await WriteAheadLog.open(workerData, { segmentBytes: 65536 });
       await wal.append('from the worker');
       parentPort.postMessage(wal.producer());
       parentPort.on('message', () => {});
     });`,
    { eval: true, workerData: directory },
  );
  opener.once('error', (error) => t.fail(String(error)));
  const handle = await new Promise<ProducerHandle>((resolve) => opener.once('message', resolve));
  const producer = await connect(handle);
  t.equal(await producer.append('from here'), 2);
  await failsWith(t, 'ERR_WAL_LOCKED', WriteAheadLog.open(directory));
  await opener.terminate();
  if ('postMessageToThread' in workerThreads) {
    await failsWith(t, 'ERR_WAL_FAILED', async () => {
      for (;;) await producer.append('nobody writes this').catch(rethrowUnlessInFlight);
    });
    await producer.close();
  } else t.comment('This Node cannot tell one thread of the end of another: not tried.');
  const wal = await openLog(t, {}, directory);
  t.same(payloads(await collect(wal.read({ to: 2 }))), ['from the worker', 'from here']);
  t.ok((await wal.append('next')) >= 3);
});

function rethrowUnlessInFlight(error: { code?: string }): void {
  if (error.code !== 'ERR_WAL_INDETERMINATE') throw error;
}

t.test("messages of others between threads are none of the log's business", async (t) => {
  const emit = (message: unknown) => (process as NodeJS.EventEmitter).emit('workerMessage', message, 1);
  let gone = 0;
  expectLifeLine('a channel', () => gone++);
  for (const message of [
    undefined,
    null,
    'text',
    { ringwal: 'other' },
    { ringwal: 'life-line', channel: 'a channel' },
  ]) {
    emit(message);
  }
  const { port1, port2 } = new MessageChannel();
  emit({ ringwal: 'life-line', channel: 'a channel', port: port2 });
  t.equal(gone, 0);
  // The log does not keep the process alive for it; this test does.
  port2.ref();
  const closed = new Promise((resolve) => port2.once('close', resolve));
  port1.close();
  await closed;
  t.equal(gone, 1, 'but for that the thread at the other end is gone');
});
