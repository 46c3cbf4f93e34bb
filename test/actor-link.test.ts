// First of all: whatever starts threads after this starts them on a disk that fails on command, and locks fail on command too.
import './fixtures/faults.js';
import './fixtures/lock-errors.js';

import fs from 'node:fs';
import type { Worker } from 'node:worker_threads';
import { repairLog, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { ActorLink } from '../src/coordinator/actor-link.js';
import { Control } from '../src/ring/control.js';
import { Ring } from '../src/ring/ring.js';
import { SyncSlots } from '../src/ring/sync-slots.js';
import { actors, Fault, heal, inject, SYNC_BLOCKS, syncers, untilBlocked } from './fixtures/faults.js';
import { failLocks } from './fixtures/lock-errors.js';
import { collect, failsWith, failure, openLog, payloads, temporaryDirectory } from './helpers.js';

t.afterEach(heal);

/** A closed log of two records. */
async function makeLog(t: Test): Promise<string> {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, {}, directory);
  await wal.appendMany(['one', 'two']);
  await wal.close();
  return directory;
}

/** The thread that `open` starts, as soon as it is there. */
async function nextActor(): Promise<Worker> {
  const known = actors.length;
  while (actors.length === known) await new Promise((resolve) => setImmediate(resolve));
  return actors[known];
}

async function opensAgain(t: Test, directory: string): Promise<void> {
  const wal = await openLog(t, {}, directory);
  t.same(payloads(await collect(wal.read())), ['one', 'two']);
  await wal.close();
}

t.test(
  'an open that is aborted while the log is being recovered rejects with the reason, and lets go of the log',
  async (t) => {
    const directory = await makeLog(t);
    const controller = new AbortController();
    const reason = new Error('no time for it');
    const opening = failure(WriteAheadLog.open(directory, { signal: controller.signal }));
    const actor = await nextActor();
    controller.abort(reason);
    t.equal(await opening, reason);
    t.equal(actor.threadId, -1, 'its thread has ended');
    await opensAgain(t, directory);
  },
);

t.test(
  'an I/O thread that ends before it has recovered the log: ERR_WAL_FAILED, and the log can be opened',
  async (t) => {
    const directory = await makeLog(t);
    const opening = WriteAheadLog.open(directory);
    const failed = failsWith(t, 'ERR_WAL_FAILED', opening);
    await (await nextActor()).terminate();
    t.match((await failed).message, /did not start/);
    await opensAgain(t, directory);
  },
);

t.test('who waits for an answer of the I/O thread when it dies is told so', async (t) => {
  const directory = await makeLog(t);
  const wal = await openLog(t, {}, directory);
  wal.on('error', () => {});
  inject(Fault.sync, SYNC_BLOCKS);
  const append = failsWith(t, 'ERR_WAL_INDETERMINATE', wal.append('three'));
  await untilBlocked();
  const waiting = [
    failsWith(t, 'ERR_WAL_FAILED', wal.sync(), 'sync'),
    failsWith(t, 'ERR_WAL_FAILED', wal.rotate(), 'rotate'),
    failsWith(t, 'ERR_WAL_FAILED', wal.checkpoint(1), 'checkpoint'),
  ];
  await new Promise((resolve) => setImmediate(resolve));
  await actors.at(-1)?.terminate();
  heal();
  await Promise.all([append, ...waiting]);
  await failsWith(t, 'ERR_WAL_FAILED', wal.rotate(), 'and whoever asks later');
  await wal.close();
  const again = await openLog(t, {}, directory);
  t.same(payloads(await collect(again.read())).slice(0, 2), ['one', 'two']);
});

t.test('who asks an I/O thread that has ended is told so, and does not wait for ever', async (t) => {
  const control = new Control();
  const { link, ready } = await ActorLink.start(control, {
    directory: await makeLog(t),
    control: control.memory,
    ring: Ring.allocate(65536).memory,
    sync: new SyncSlots().memory,
    segmentBytes: 65536,
    flushIntervalMs: 0,
    syncMethod: 'fdatasync',
    writeThrough: true,
    recoveryMode: 'tolerate-torn-tail',
    encryption: undefined,
  });
  t.equal(ready.report.records, 2);
  await link.close();
  await failsWith(t, 'ERR_WAL_CLOSED', link.request({ op: 'sync' }));
  await link.close();
});

t.test('a filesystem without locks: ERR_WAL_FAILED, nothing touched, and no file stays open', async (t) => {
  const directory = await makeLog(t);
  const open = () => fs.readdirSync('/proc/self/fd').length;
  const before = fs.existsSync('/proc/self/fd') ? open() : undefined;
  failLocks(true);
  t.teardown(() => failLocks(false));
  for (let i = 0; i < 5; i++) {
    const error = await failsWith(t, 'ERR_WAL_FAILED', WriteAheadLog.open(directory));
    t.match(error, { cause: { code: 'ENOLCK' } });
    await failsWith(t, 'ERR_WAL_FAILED', repairLog(directory));
  }
  if (before !== undefined) t.equal(open(), before);
  failLocks(false);
  await opensAgain(t, directory);
});

t.test('a thread that syncs for the I/O thread and ends while nothing is to be synced costs nothing', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, {}, directory);
  const texts: string[] = [];
  const append = async (durability: 'os' | 'disk') => {
    texts.push(`${texts.length} ${durability}`);
    t.equal(await wal.append(texts[texts.length - 1], { durability }), texts.length);
  };
  // Levels that mix, and syncs that take long: the I/O thread asks for help.
  const known = syncers.length;
  await append('os');
  for (let i = 0; i < 1000 && syncers.length === known; i++) {
    inject(Fault.blocked, 0);
    inject(Fault.sync, SYNC_BLOCKS);
    const appending = append('disk');
    await untilBlocked();
    setTimeout(heal, 5);
    await appending;
    await append('os');
  }
  await append('disk');
  await syncers[known].terminate();
  for (let i = 0; i < 20; i++) await append(i % 2 === 0 ? 'os' : 'disk');
  t.equal(wal.watermark('disk'), texts.length);
  await wal.close();
  const again = await openLog(t, {}, directory);
  t.same(payloads(await collect(again.read())), texts);
});
