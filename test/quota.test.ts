// First of all: whatever starts threads after this starts them on a disk that fails on command.
import './fixtures/faults.js';

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { connect, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { Level } from '../src/format/levels.js';
import { data, KeyLog, put } from './compaction-helpers.js';
import { BROKEN, Fault, FULL, heal, inject, NOTHING_GROWS } from './fixtures/faults.js';
import { collect, failsWith, fixture, numbers, openLog, payloads, snapshot, temporaryDirectory } from './helpers.js';
import { Random } from './simulation/random.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';
import { SimulatedLog } from './simulation/simulated-log.js';

t.afterEach(heal);

type SystemError = (typeof FULL)[number];

/** A disk that says with this error that it has no room. */
function quotaDisk(as: SystemError): SimulatedDisk {
  const disk = new SimulatedDisk(new Random(1));
  const translated = <A extends unknown[], R>(call: (...args: A) => R) => {
    return (...args: A): R => {
      try {
        return call(...args);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        throw code === 'ENOSPC' ? Object.assign(new Error(`${as.code}: write`), as) : error;
      }
    };
  };
  const open = translated(disk.open.bind(disk));
  disk.open = (name, mode) => {
    const file = open(name, mode);
    file.write = translated(file.write.bind(file));
    file.truncate = translated(file.truncate.bind(file));
    return file;
  };
  return disk;
}

for (const as of FULL) {
  const name = `${as.code} (${as.errno})`;

  t.test(`${name} is met like a full disk: refused, nothing torn, and it goes on once there is room`, async (t) => {
    const disk = quotaDisk(as);
    const log = new SimulatedLog({ disk });
    log.append(Level.Disk, 40);
    log.sequencer.step();
    disk.quotaBytes = disk.usedBytes();
    while (log.rejected.length === 0 && !log.sequencer.failed) {
      log.append(Level.Disk, 5);
      while (log.sequencer.step());
      log.collect();
    }
    t.notOk(log.sequencer.failed, 'not poisoned');
    const refused = new Set(log.rejected.flatMap(({ ids }) => ids));
    const change = () => log.sequencer.updateState((state) => ({ ...state, padding: 'x'.repeat(50_000) }));
    t.throws(change, { code: 'ERR_WAL_NO_SPACE' }, 'a state');
    t.throws(() => log.sequencer.truncateAfter(10), { code: 'ERR_WAL_NO_SPACE' }, 'a cut');
    const before = log.watermark(Level.Disk);
    disk.crash();
    disk.restart('power');
    const full = new SimulatedLog({ disk });
    t.equal(full.recovered.end.lastLsn, before, 'it opens');
    full.append(Level.Disk);
    full.sequencer.step();
    full.collect();
    t.equal(full.rejected.length, 1, 'to be read');
    disk.quotaBytes = Number.POSITIVE_INFINITY;
    const frame = full.append(Level.Disk, 2);
    full.sequencer.step();
    full.collect();
    t.equal(frame.firstLsn, before + 1);
    const found = await SimulatedLog.reopen(disk, 'power').read();
    t.equal(found.length, before + 2);
    t.notOk(found.some((id) => refused.has(id!)));
  });

  t.test(`${name} in a compaction: it ends, and the log goes on`, async (t) => {
    const disk = quotaDisk(as);
    const log = new KeyLog({ disk });
    for (let i = 0; i < 3; i++) {
      log.write(put('a', `${i}`), data('x'.repeat(20_000)));
      log.sequencer.rotate();
    }
    log.write(data('behind'));
    disk.quotaBytes = disk.usedBytes() + 6000;
    t.throws(() => log.compact(), { ...as });
    t.equal(disk.list().filter((file) => file.startsWith('compacting-')).length, 0);
    disk.quotaBytes = Number.POSITIVE_INFINITY;
    t.equal(log.compact(), 2);
    t.equal((await log.records()).length, 5);
  });

  t.test(`${name} under load, with threads: every append hears of its fate, and none is lost`, async (t) => {
    const directory = temporaryDirectory(t);
    const wal = await openLog(t, { segmentBytes: 65536, ringBytes: 65536, autoCleanup: false }, directory);
    wal.on('error', (error) => t.fail(String(error)));
    const producer = await connect(wal.producer());
    await wal.append('0');
    inject(Fault.fullAs, FULL.indexOf(as));
    inject(Fault.diskFull, NOTHING_GROWS);
    const payload = (i: number) => `${i} ${'x'.repeat(3000)}`;
    const appends = numbers(1, 100).map((i) => (i % 2 === 0 ? wal : producer).append(payload(i)));
    const results = await Promise.allSettled(appends);
    const refused = results.filter(({ status }) => status === 'rejected');
    t.ok(refused.length > 0, `${refused.length} were refused`);
    for (const result of refused) t.match(result, { reason: { code: 'ERR_WAL_NO_SPACE' } });
    const compaction = wal.compact();
    await compaction.catch(({ code }) => t.equal(code, 'ERR_WAL_NO_SPACE'));
    heal();
    await wal.append('last');
    await producer.close();
    await wal.close();
    const written = results.flatMap((result, i) => (result.status === 'fulfilled' ? [payload(i + 1)] : []));
    const again = await openLog(t, {}, directory);
    t.equal(again.recovery.verdict, 'clean');
    t.same(payloads(await collect(again.read())).sort(), ['0', ...written, 'last'].sort());
    await again.close();
  });
}

/** A closed log of two segments. */
async function makeLog(t: Test): Promise<string> {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, {}, directory);
  await wal.append('one');
  await wal.rotate();
  await wal.append('two');
  await wal.close();
  return directory;
}

for (const as of BROKEN.slice(1)) {
  t.test(`${as.code} when the I/O thread opens a file: ERR_WAL_FAILED, and nothing is lost`, async (t) => {
    const directory = await makeLog(t);
    const before = snapshot(directory);
    inject(Fault.brokenAs, BROKEN.indexOf(as));
    inject(Fault.open, 1);
    const error = await failsWith(t, 'ERR_WAL_FAILED', WriteAheadLog.open(directory));
    t.match(error, { cause: { code: as.code } });
    if (as.code === 'EACCES') t.match(error.message, /permission/);
    t.same(snapshot(directory), before, 'nothing was touched');
    heal();
    const wal = await openLog(t, {}, directory);
    wal.on('error', () => {});
    t.equal(await wal.append('three'), 3);
    inject(Fault.brokenAs, BROKEN.indexOf(as));
    inject(Fault.open, 1);
    await failsWith(t, 'ERR_WAL_FAILED', wal.rotate(), 'a rotation');
    await failsWith(t, 'ERR_WAL_FAILED', wal.append('four'), 'and what comes behind it');
    heal();
    await wal.close();
    const again = await openLog(t, {}, directory);
    t.same(payloads(await collect(again.read())), ['one', 'two', 'three']);
  });
}

t.test('a process without a file descriptor left: whoever needs one is told so, and all else goes on', async (t) => {
  if (process.platform === 'win32') {
    t.comment('Windows has no such limit: not tried.');
    return;
  }
  const directory = temporaryDirectory(t);
  const script = 'unset NODE_OPTIONS && ulimit -n 200 && exec "$0" "$@"';
  const arguments_ = ['-c', script, process.execPath, fixture('descriptors'), `${directory}/log`];
  const { stdout } = await promisify(execFile)('/bin/sh', arguments_);
  const failed = 'WalError ERR_WAL_FAILED EMFILE';
  t.same(JSON.parse(stdout), {
    open: failed,
    'open to read': failed,
    verify: failed,
    repair: failed,
    append: 2,
    read: failed,
    get: failed,
    replay: failed,
    truncateAfter: failed,
    'read, later': 2,
    'append, later': 3,
    'open, later': 'closed',
    rotate: failed,
  });
  const wal = await openLog(t, {}, `${directory}/log`);
  t.same(payloads(await collect(wal.read())), ['one', 'two', 'three']);
});
