// First of all: whatever starts threads after this starts them on a disk that fails on command.
import './fixtures/faults.js';

import { type Durability, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { Level } from '../src/format/levels.js';
import type { Syncer } from '../src/sequencer/syncer.js';
import type { StorageFile } from '../src/storage/storage.js';
import { Fault, heal, inject, SYNC_BLOCKS, SYNC_FAILS, syncers, untilBlocked } from './fixtures/faults.js';
import { collect, failsWith, openLog, payloads, temporaryDirectory } from './helpers.js';
import { SimulatedLog } from './simulation/simulated-log.js';

/** Syncs at once what it is asked to, and tells it when it is let. */
class SlowSyncer implements Syncer {
  begun = 0;
  told = true;
  failure: Error | undefined;

  begin(file: StorageFile): boolean {
    this.begun++;
    this.told = false;
    file.sync();
    return true;
  }

  over(): number | undefined {
    if (this.failure !== undefined) throw this.failure;
    return this.told ? 1 : undefined;
  }

  finish(): number {
    this.told = true;
    return this.over()!;
  }
}

function mixedLog(syncer: SlowSyncer): SimulatedLog {
  const log = new SimulatedLog({ syncer, producers: 2 });
  log.append(Level.Os);
  log.sequencer.step();
  return log;
}

t.test(
  'records at os are committed while a sync for others is under way, and only what it covers becomes durable',
  async (t) => {
    const syncer = new SlowSyncer();
    const log = mixedLog(syncer);
    log.append(Level.Disk);
    log.sequencer.step();
    t.equal(syncer.begun, 1);
    for (let i = 0; i < 3; i++) {
      log.append(Level.Os, 1, log.producers[1]);
      t.equal(log.sequencer.step(), true);
      t.equal(log.watermark(Level.Os), 3 + i);
    }
    t.equal(log.watermark(Level.Disk), 0, 'nobody has said that it is durable');
    t.equal(log.sequencer.step(), false, 'nothing to do but to wait');
    syncer.told = true;
    t.equal(log.sequencer.step(), true);
    t.equal(log.watermark(Level.Disk), 2, 'what was written after the sync began is not');
    log.disk.crash();
    const after = SimulatedLog.reopen(log.disk, 'power');
    const found = await after.read(after.recovered.report.lastLsn);
    t.ok(found.length >= 2);
  },
);

t.test('a sync that is wanted while one is under way comes after it, and wakes who waits for it', (t) => {
  const syncer = new SlowSyncer();
  const log = mixedLog(syncer);
  const [one, two] = log.producers;
  const first = log.append(Level.Disk, 1, one);
  log.sequencer.step();
  const second = log.append(Level.Disk, 1, one);
  const third = log.append(Level.Disk, 1, two);
  log.sequencer.step();
  t.equal(syncer.begun, 1, 'one at a time');
  syncer.told = true;
  log.sequencer.step();
  log.collect();
  t.equal(first.firstLsn, 2);
  t.equal(log.watermark(Level.Disk), 2);
  t.equal(syncer.begun, 2);
  syncer.told = true;
  log.sequencer.step();
  log.collect();
  t.equal(log.watermark(Level.Disk), Math.max(second.firstLsn, third.firstLsn));
  t.end();
});

t.test('whatever needs all of it durable waits for the sync under way first', (t) => {
  const work: [string, (log: SimulatedLog) => unknown][] = [
    ['sync', ({ sequencer }) => sequencer.sync()],
    ['rotate', ({ sequencer }) => sequencer.rotate()],
    ['a state', ({ sequencer }) => sequencer.updateState((state) => ({ ...state, checkpoint: 1 }))],
    ['truncateAfter', ({ sequencer }) => sequencer.truncateAfter(2)],
    ['close', ({ sequencer }) => sequencer.close()],
  ];
  for (const [what, call] of work) {
    const syncer = new SlowSyncer();
    const log = mixedLog(syncer);
    log.append(Level.Disk);
    log.sequencer.step();
    log.append(Level.Os);
    log.sequencer.step();
    t.equal(log.watermark(Level.Disk), 0, what);
    call(log);
    t.equal(log.watermark(Level.Disk), what === 'truncateAfter' ? 2 : 3, what);
    t.ok(syncer.told, 'and not before the syncer was done');
    log.sequencer.close();
    t.equal(log.disk.openFiles, 0);
  }
  t.end();
});

t.test('a frame that is written while a sync is under way does not vouch for what that sync has still to do', (t) => {
  const syncer = new SlowSyncer();
  const log = mixedLog(syncer);
  log.append(Level.Disk);
  log.sequencer.step();
  log.append(Level.Os);
  log.sequencer.step();
  log.sequencer.idle();
  log.disk.crash();
  const { recovered } = SimulatedLog.reopen(log.disk, 'process');
  t.equal(recovered.report.lastLsn, 3);
  t.ok(recovered.unprovenFrom < recovered.end.endOffset, 'recovery syncs it again');
  t.end();
});

t.test('a sync that takes longer than flushIntervalMs leaves nothing to do, and what is due comes after it', (t) => {
  const syncer = new SlowSyncer();
  const log = new SimulatedLog({ syncer, flushIntervalMs: 1000 });
  log.append(Level.Os);
  log.sequencer.step();
  log.append(Level.Disk);
  log.sequencer.step();
  log.append(Level.Os);
  log.sequencer.step();
  log.clock += 500;
  t.equal(log.sequencer.timeToFlush(), undefined, 'the actor may sleep until it is over');
  log.clock += 2000;
  log.append(Level.Os);
  log.sequencer.step();
  t.equal(log.sequencer.step(), false, 'and does not go round in circles');
  t.equal(syncer.begun, 1);
  syncer.told = true;
  t.equal(log.sequencer.step(), true);
  t.equal(log.watermark(Level.Disk), 2);
  // The levels are mixed no more: whatever syncs now.
  syncer.told = true;
  log.sequencer.step();
  syncer.told = true;
  log.sequencer.step();
  t.equal(log.watermark(Level.Disk), 4, 'at once');
  t.end();
});

t.test('a sync that fails elsewhere poisons the log as one that fails here does', (t) => {
  for (const finish of [false, true]) {
    const syncer = new SlowSyncer();
    const log = mixedLog(syncer);
    log.append(Level.Disk);
    log.sequencer.step();
    syncer.failure = new Error('EIO');
    if (finish) t.throws(() => log.sequencer.sync());
    else log.sequencer.step();
    t.ok(log.sequencer.failed);
    t.match(log.control.failure(), 'EIO');
    t.equal(log.watermark(Level.Disk), 0);
    log.sequencer.close();
    t.equal(log.disk.openFiles, 0, 'no file stays open');
  }
  t.end();
});

/** A log whose syncs are slow by now, and whose levels are mixed, with the sync of a disk append blocked in the syncer. */
async function withBlockedSyncer(t: Test, directory: string) {
  const wal = await openLog(t, {}, directory);
  const payloads: string[] = [];
  const append = (durability: Durability) => {
    payloads.push(`${payloads.length} ${durability}`);
    return wal.append(payloads[payloads.length - 1], { durability });
  };
  await append('os');
  for (let tries = 0; tries < 100; tries++) {
    inject(Fault.blocked, 0);
    inject(Fault.sync, SYNC_BLOCKS);
    const disk = append('disk');
    await untilBlocked();
    const os = append('os');
    const through = await Promise.race([os.then(() => true), new Promise((resolve) => setTimeout(resolve, 50, false))]);
    if (through === true) return { wal, disk, append, payloads };
    // The syncer is not there yet: the actor itself sat in that sync.
    heal();
    await Promise.all([disk, os]);
  }
  throw new Error('An append at os waited for a sync at disk, every time.');
}

t.test('an append at os does not wait for the sync that another one wants', async (t) => {
  t.teardown(heal);
  const directory = temporaryDirectory(t);
  const { wal, disk, append, payloads: appended } = await withBlockedSyncer(t, directory);
  const lsn = await append('os');
  t.equal(wal.watermark('os'), lsn);
  t.ok(wal.watermark('disk') < lsn - 1);
  const another = append('disk');
  heal();
  t.equal(await another, lsn + 1);
  t.ok((await disk) < lsn);
  await wal.rotate();
  await wal.close();
  const again = await openLog(t, {}, directory);
  t.same(payloads(await collect(again.read())), appended);
});

t.test('a sync that fails in the syncer poisons the log', async (t) => {
  t.teardown(heal);
  const { wal, disk, append } = await withBlockedSyncer(t, temporaryDirectory(t));
  const failed = failsWith(t, 'ERR_WAL_INDETERMINATE', disk);
  inject(Fault.sync, SYNC_FAILS);
  await failed;
  heal();
  await failsWith(t, 'ERR_WAL_FAILED', append('os'));
  await wal.close();
});

t.test('a syncer that dies in a sync poisons the log, and everything acknowledged is there', async (t) => {
  t.teardown(heal);
  const directory = temporaryDirectory(t);
  const { wal, disk, append, payloads: appended } = await withBlockedSyncer(t, directory);
  const codeOf = (append: Promise<unknown>) =>
    append.then(
      () => 'acknowledged',
      ({ code }) => code,
    );
  const outcome = codeOf(disk);
  // It ends once its blocked call returns, before or after it has told the actor.
  const dead = syncers.at(-1)?.terminate();
  heal();
  await dead;
  const told = (await outcome) === 'acknowledged';
  if (!told) t.equal(await outcome, 'ERR_WAL_INDETERMINATE');
  t.equal(await codeOf(append('disk')), told ? 'acknowledged' : 'ERR_WAL_FAILED');
  await wal.close();
  const again = await WriteAheadLog.open(directory);
  const found = payloads(await collect(again.read()));
  t.same(found, appended.slice(0, found.length));
  t.ok(found.length >= appended.length - (told ? 0 : 2));
  await again.close();
});
