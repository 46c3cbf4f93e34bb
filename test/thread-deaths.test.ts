// First of all: whatever starts threads after this starts them where they can be found.

import { once } from 'node:events';
import * as workerThreads from 'node:worker_threads';
import { connect, WriteAheadLog } from 'ringwal';
import t from 'tap';
import { openInThread } from './crash/opening-thread.js';
import { encoders } from './crash/started-threads.js';
import { threadDeaths, VICTIMS } from './crash/thread-deaths.js';
import { collect, failsWith, fixture, numbers, openLog, payloads, temporaryDirectory } from './helpers.js';

t.test('every promise is kept when the actor, an encoder, a producer or the opening thread dies', async (t) => {
  const directory = temporaryDirectory(t);
  const options = { directory, rounds: 2 * VICTIMS.length, seed: 5, longestLife: 60, roundsPerLog: 50 };
  let acknowledged = 0;
  // Throws when one was broken.
  for await (const round of threadDeaths(options)) {
    acknowledged = round.acknowledged;
    if (round.deaths === 0)
      t.comment(`This Node cannot tell a thread of the end of another: ${round.victim} not tried.`);
  }
  t.ok(acknowledged > 0, `${acknowledged} records were acknowledged`);
});

t.test('what a producer thread had not published when it died never appears, and the others go on', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { ringBytes: 65536 }, directory);
  const other = await connect(wal.producer());
  const victim = new workerThreads.Worker(fixture('in-the-middle'), { workerData: wal.producer() });
  await once(victim, 'message');
  t.equal(await other.append('beside it'), 2);
  await victim.terminate();
  t.equal(await other.append('behind it'), 3);
  t.same(await Promise.all(numbers(1, 200).map((i) => wal.append(`${i}`))), numbers(4, 203));
  await other.close();
  await wal.close();
  const again = await openLog(t, {}, directory);
  t.equal(again.recovery.verdict, 'clean');
  const expected = ['published', 'beside it', 'behind it', ...numbers(1, 200).map(String)];
  t.same(payloads(await collect(again.read())), expected);
});

t.test('encoders that die before they are ready cost no record, and keep nobody waiting', async (t) => {
  const wal = await openLog(t, { encoders: 2 });
  const appends = numbers(1, 5).map((i) => wal.append(Buffer.alloc(200_000, i)));
  for (let death = 0; death < 2; death++) {
    while (encoders().length === 0) await new Promise((resolve) => setImmediate(resolve));
    await Promise.all(encoders().map((encoder) => encoder.terminate()));
  }
  t.same(await Promise.all(appends), numbers(1, 5));
  const records = await collect(wal.read());
  t.ok(records.every(({ payload }, i) => payload.every((byte) => byte === i + 1)));
});

t.test('who connects to a log whose opening thread is gone is told so', async (t) => {
  if (!('postMessageToThread' in workerThreads)) {
    t.comment('This Node cannot tell one thread of the end of another: not tried.');
    return;
  }
  const directory = temporaryDirectory(t);
  const task = { notes: `${directory}/notes`, seed: 1, round: 1, era: new SharedArrayBuffer(4), thread: 0 };
  const { worker, handles } = await openInThread(directory, 1, task);
  await worker.terminate();
  const producer = await connect(handles[0]);
  await failsWith(t, 'ERR_WAL_INDETERMINATE', producer.append('nobody takes it'));
  await failsWith(t, 'ERR_WAL_FAILED', producer.append('nor this'));
  await producer.close();
  const wal = await WriteAheadLog.open(directory, { segmentBytes: 65536 });
  await wal.close();
});
