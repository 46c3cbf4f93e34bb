import fs from 'node:fs';
import path from 'node:path';
import { type WalRecord, WriteAheadLog } from 'ringwal';
import t from 'tap';
import {
  collect,
  failsWith,
  nextEvent,
  numbers,
  openLog,
  payloads,
  segmentFiles,
  startChild,
  temporaryDirectory,
  text,
} from './helpers.js';

const SMALL = { segmentBytes: 65536 };
const KIB = 'x'.repeat(1000);

function lsns(records: WalRecord[]): number[] {
  return records.map((record) => record.lsn);
}

async function fill(wal: WriteAheadLog, records: number): Promise<number> {
  const all = await Promise.all(numbers(1, records).map(() => wal.append(KIB, { durability: 'os' })));
  return all[all.length - 1];
}

t.test('segments are rotated as they fill up, and nothing is lost on the way', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, SMALL, directory);
  const rotations: { firstLsn: number; lastLsn: number }[] = [];
  wal.on('rotate', (event) => rotations.push(event));
  for (let i = 0; i < 10; i++) await fill(wal, 100);
  const { segments } = wal.stats();
  t.ok(segments >= 15, `${segments} segments`);
  t.same(lsns(await collect(wal.read())), numbers(1, 1000));
  await wal.close();
  t.equal(rotations.length, segments - 1);
  t.ok(rotations.every(({ firstLsn, lastLsn }) => firstLsn === lastLsn + 1));
  const files = segmentFiles(directory);
  t.equal(files.length, segments);
  t.ok(files.every((name) => fs.statSync(path.join(directory, name)).size <= 65536));
  const again = await openLog(t, SMALL, directory);
  t.match(again.recovery, { verdict: 'clean', segments, records: 1000, firstLsn: 1, lastLsn: 1000 });
  t.same(lsns(await collect(again.read())), numbers(1, 1000));
});

t.test('rotate seals the segment and starts the next; without records it does nothing', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, SMALL, directory);
  await wal.rotate();
  t.same(segmentFiles(directory), []);
  await wal.append('1');
  await wal.rotate();
  await wal.rotate();
  t.equal(segmentFiles(directory).length, 2);
  await wal.append('2', { durability: 'memory' });
  await wal.rotate();
  t.equal(wal.watermark('disk'), 2, 'what is sealed is durable');
  await Promise.all([wal.append('3'), wal.rotate(), wal.append('4'), wal.rotate(), wal.append('5')]);
  t.same(payloads(await collect(wal.read())), ['1', '2', '3', '4', '5']);
});

t.test('checkpoint and clean-up remove the segments wholly below it', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { ...SMALL, autoCleanup: false }, directory);
  for (let i = 0; i < 4; i++) {
    await wal.appendMany(['a', 'b', 'c']);
    await wal.rotate();
  }
  t.same(await wal.cleanup(), { segments: 0, bytes: 0 }, 'without a checkpoint nothing goes');
  await wal.checkpoint(5);
  t.equal(segmentFiles(directory).length, 5, 'nor by the checkpoint itself');
  const sizes = segmentFiles(directory).map((name) => fs.statSync(path.join(directory, name)).size);
  t.same(await wal.cleanup(), { segments: 1, bytes: sizes[0] }, 'one is wholly below');
  t.same(lsns(await collect(wal.read())), numbers(4, 12));
  await wal.checkpoint(12);
  t.match(await wal.cleanup(), { segments: 3 });
  t.same(await collect(wal.read()), []);
  t.match(wal.stats(), { segments: 1, checkpoint: 12, firstLsn: 13 });
  t.same(await wal.cleanup(), { segments: 0, bytes: 0 });
  t.equal(await wal.append('next'), 13, 'LSNs go on');
});

t.test('clean-up follows a checkpoint by itself', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, SMALL, directory);
  await wal.append('1');
  await wal.rotate();
  await wal.append('2');
  const cleaned = nextEvent(wal, 'cleanup');
  await wal.checkpoint(1);
  t.match(await cleaned, { segments: 1 });
  t.equal(segmentFiles(directory).length, 1);
  await wal.rotate();
  await wal.append('3');
  await wal.checkpoint(2);
  t.match(await wal.cleanup(), { segments: 1 }, 'cleanup joins the automatic one');
});

t.test('files of cleaned segments are used again, and nothing of what they held comes back', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, SMALL, directory);
  const inodes = new Set<number>();
  let segments = 0;
  wal.on('rotate', ({ segment }) => {
    segments++;
    inodes.add(fs.statSync(path.join(directory, segment)).ino);
  });
  for (let i = 0; i < 20; i++) {
    const last = await fill(wal, 100);
    await wal.checkpoint(last);
    await wal.cleanup();
  }
  t.ok(segments >= 30);
  t.ok(inodes.size < segments, `${inodes.size} files for ${segments} segments`);
  t.ok(fs.readdirSync(directory).length < 12, 'the directory does not grow');
  await wal.append('the last');
  await wal.close();
  const again = await openLog(t, SMALL, directory);
  t.equal(again.recovery.verdict, 'clean');
  const records = await collect(again.read());
  t.equal(records.at(-1)?.lsn, 2001);
  t.same(lsns(records), numbers(records[0].lsn, 2001));
  t.equal((await collect(again.replay())).length, 0);
});

t.test('a checkpoint survives reopening, and replay begins behind it', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, SMALL, directory);
  for (const key of ['a', 'b', 'c', 'd']) await wal.put(key, key.toUpperCase());
  await wal.checkpoint(2);
  const check = async (log: WriteAheadLog) => {
    t.same(
      (await collect(log.replay())).map(({ lsn, op }) => [lsn, op.type === 'put' && text(op.key)]),
      [
        [3, 'c'],
        [4, 'd'],
      ],
    );
    t.equal((await collect(log.read())).length, 4, 'records of the same segment are still there to read');
    t.equal((await collect(log.replay({ from: 1 }))).length, 4);
  };
  await check(wal);
  await wal.close();
  for (let i = 0; i < 2; i++) {
    const again = await openLog(t, SMALL, directory);
    t.equal(again.recovery.checkpoint, 2);
    t.equal(again.stats().checkpoint, 2);
    await check(again);
    await again.close();
  }
  const reader = await openLog(t, { readOnly: true }, directory);
  await check(reader);
});

t.test('a checkpoint survives clean-up of everything, and of nothing', async (t) => {
  const directory = temporaryDirectory(t);
  let wal = await openLog(t, SMALL, directory);
  await wal.checkpoint(0);
  await wal.close();
  wal = await openLog(t, SMALL, directory);
  t.match(wal.recovery, { records: 0, firstLsn: 0, lastLsn: 0, checkpoint: 0 });
  await wal.append('1');
  await wal.append('2');
  await wal.close();
  wal = await openLog(t, SMALL, directory);
  await wal.checkpoint(2);
  await wal.cleanup();
  await wal.close();
  wal = await openLog(t, SMALL, directory);
  t.match(wal.recovery, { verdict: 'clean', checkpoint: 2, lastLsn: 2, records: 0, firstLsn: 0 });
  t.same(await collect(wal.read()), []);
  t.equal(await wal.append('3'), 3);
});

t.test('read delivers exactly the bounds asked for, across segments', async (t) => {
  const wal = await openLog(t, SMALL);
  for (let i = 0; i < 3; i++) await fill(wal, 100);
  const read = async (from?: number, to?: number) => lsns(await collect(wal.read({ from, to })));
  t.same(await read(), numbers(1, 300));
  t.same(await read(1, 1), [1]);
  t.same(await read(300), [300]);
  t.same(await read(undefined, 5), numbers(1, 5));
  t.same(await read(37, 211), numbers(37, 211));
  t.same(await read(150, 149), []);
  t.same(await read(301), []);
  t.same(await read(1000, 2000), []);
  t.same(await read(1, 0), []);
  t.same(await read(290, 5000), numbers(290, 300));
});

t.test('batches are the same records, an array at a time', async (t) => {
  const wal = await openLog(t, SMALL);
  await fill(wal, 500);
  const batches = await collect(wal.read({ from: 3, to: 490 }).batches());
  t.ok(batches.every((batch) => batch.length > 0));
  t.ok(batches.length > 1 && batches.length < 488);
  t.same(lsns(batches.flat()), numbers(3, 490));
});

t.test('a reader can be iterated again, left early, and by several at once', async (t) => {
  const wal = await openLog(t, SMALL);
  await fill(wal, 200);
  const reader = wal.read();
  for await (const { lsn } of reader) if (lsn === 70) break;
  t.same(lsns(await collect(reader)), numbers(1, 200));
  const all = await Promise.all(numbers(1, 5).map((from) => collect(wal.read({ from: from * 10 }))));
  t.same(
    all.map((records) => records.length),
    [191, 181, 171, 161, 151],
  );
});

t.test('records stay valid after the iteration moved on, and after the log is closed', async (t) => {
  const wal = await openLog(t, SMALL);
  await wal.appendMany(numbers(1, 300).map((i) => `${i} ${KIB}`.slice(0, 150)));
  const records = await collect(wal.read());
  await collect(wal.read());
  await wal.close();
  t.ok(records.every(({ payload, lsn }) => text(payload).startsWith(`${lsn} `)));
});

t.test('a read ends at what was committed when it began', async (t) => {
  const wal = await openLog(t, SMALL);
  await fill(wal, 10);
  const seen: number[] = [];
  for await (const { lsn } of wal.read()) {
    seen.push(lsn);
    await wal.append('more', { durability: 'os' });
  }
  t.same(seen, numbers(1, 10));
});

t.test('reading while others append, rotate, checkpoint and clean up', async (t) => {
  const wal = await openLog(t, { ...SMALL, durability: 'os' });
  await fill(wal, 50);
  let writing = true;
  const writer = (async () => {
    for (let round = 0; writing; round++) {
      const last = await fill(wal, 40);
      if (round % 3 === 0) await wal.rotate();
      if (round % 5 === 4) await wal.checkpoint(last - 100);
    }
  })();
  let whole = 0;
  let cut = 0;
  for (let i = 0; i < 60; i++) {
    const records: WalRecord[] = [];
    try {
      for await (const batch of wal.read().batches()) records.push(...batch);
      whole++;
    } catch (error) {
      // The clean-up overtook it: the one thing that may happen.
      t.match(error, { code: 'ERR_WAL_TRUNCATED' });
      cut++;
    }
    if (records.length === 0) continue;
    const first = records[0].lsn;
    if (!records.every(({ lsn, payload }, n) => lsn === first + n && payload.length === 1000)) t.fail('torn');
  }
  writing = false;
  await writer;
  t.ok(whole > 0, `${whole} whole, ${cut} overtaken`);
});

t.test('a read that is under way keeps what it reads from being overwritten', async (t) => {
  const wal = await openLog(t, SMALL);
  await fill(wal, 400);
  const seen: number[] = [];
  let failed: unknown;
  try {
    for await (const batch of wal.read().batches()) {
      if (batch.some(({ payload }) => text(payload) !== KIB)) t.fail('what was read is what was written');
      seen.push(...lsns(batch));
      const last = await fill(wal, 100);
      await wal.checkpoint(last);
      await wal.cleanup();
    }
  } catch (error) {
    failed = error;
  }
  t.same(seen, numbers(1, seen.length));
  if (failed !== undefined) t.match(failed, { code: 'ERR_WAL_TRUNCATED' });
});

t.test('a read-only log beside a writer in another process: whole records, no lock, always more of them', async (t) => {
  const directory = temporaryDirectory(t);
  const child = startChild(t, 'holder', [directory]);
  await child.message((message) => message === 'open');
  child.process.send('append');
  t.equal(await child.message((message) => typeof message === 'number'), 1);
  const reader = await openLog(t, { readOnly: true, segmentBytes: undefined }, directory);
  t.same(lsns(await collect(reader.read())), [1]);
  child.process.send('append');
  t.equal(await child.message((message) => typeof message === 'number'), 2);
  t.same(lsns(await collect(reader.read())), [1, 2], 'it sees what came after it was opened');

  child.process.send('append on');
  await child.message((message) => message === 'busy');
  let last = 2;
  let overtaken = 0;
  for (let i = 0; i < 40; i++) {
    const wal = await WriteAheadLog.open(directory, { readOnly: true });
    t.not(wal.recovery.verdict, 'empty');
    if (wal.recovery.lastLsn < last) t.fail('LSNs go back');
    try {
      const records = await collect(wal.read());
      const whole = /^(record|\d+\.\d+) x+$/;
      if (!payloads(records).every((payload) => whole.test(payload))) t.fail('a torn record');
      const first = records[0].lsn;
      if (!records.every(({ lsn }, n) => lsn === first + n)) t.fail('a gap');
      if (last > (records.at(-1)?.lsn ?? 0)) t.fail('it ends before what was there already');
      last = records.at(-1)?.lsn ?? 0;
    } catch (error) {
      t.match(error, { code: 'ERR_WAL_TRUNCATED' });
      overtaken++;
    }
    await wal.close();
  }
  t.ok(overtaken < 40, `overtaken by the clean-up ${overtaken} times of 40`);
  t.ok(last > 500, `${last} records`);
  await failsWith(t, 'ERR_WAL_LOCKED', WriteAheadLog.open(directory));
  child.process.send('close');
  t.same(await child.ended.then(({ code, stderr }) => ({ code, stderr })), { code: 0, stderr: '' });
});

t.test('recover fills a Map, or anything like it', async (t) => {
  const wal = await openLog(t, SMALL);
  await wal.append('opaque records are none of its business');
  await wal.put('a', '1');
  await wal.put('b', '2');
  await wal.put('a', '3');
  await wal.batch([
    { type: 'del', key: 'b' },
    { type: 'put', key: 'ž', value: '4' },
  ]);
  const map = new Map<string, Uint8Array>();
  const report = await wal.recover(map);
  t.equal(report, wal.recovery);
  t.same(
    [...map].map(([key, value]) => [key, text(value)]),
    [
      ['a', '3'],
      ['ž', '4'],
    ],
  );
  const calls: unknown[] = [];
  await wal.recover(
    {
      set: (key: Uint8Array, value) => calls.push(['set', Buffer.from(key).toString('hex'), text(value)]),
      delete: (key: Uint8Array) => calls.push(['delete', Buffer.from(key).toString('hex')]),
      clear: () => calls.push(['clear']),
    },
    { keyEncoding: 'buffer', from: 4 },
  );
  t.same(calls, [
    ['set', '61', '3'],
    ['delete', '62'],
    ['set', 'c5be', '4'],
  ]);
});

t.test('replay hands over operations in order, to a function or an iteration', async (t) => {
  const wal = await openLog(t, SMALL);
  await wal.put('a', '1');
  await wal.append('not an operation');
  await wal.delete('a');
  await wal.clear();
  const wanted = [
    { lsn: 1, op: { type: 'put', key: new Uint8Array([97]), value: new Uint8Array([49]) } },
    { lsn: 3, op: { type: 'del', key: new Uint8Array([97]) } },
    { lsn: 4, op: { type: 'clear' } },
  ];
  t.same(await collect(wal.replay()), wanted);
  const sync: unknown[] = [];
  t.equal(
    await wal.replay((op, lsn) => {
      sync.push({ lsn, op });
    }),
    3,
  );
  t.same(sync, wanted);
  const asynchronous: unknown[] = [];
  let running = 0;
  await wal.replay(
    async (op, lsn) => {
      t.equal(++running, 1, 'one at a time');
      await new Promise((resolve) => setImmediate(resolve));
      asynchronous.push({ lsn, op });
      running--;
    },
    { from: 3 },
  );
  t.same(asynchronous, wanted.slice(1));
});

t.test('a handler that fails ends the replay with its error', async (t) => {
  const wal = await openLog(t, SMALL);
  await wal.put('a', '1');
  await wal.put('b', '1');
  const boom = new Error('boom');
  let calls = 0;
  const throwing = () => {
    calls++;
    throw boom;
  };
  await t.rejects(wal.replay(throwing), boom);
  await t.rejects(
    wal.replay(async () => throwing()),
    boom,
  );
  t.equal(calls, 2);
  t.equal(await wal.append('x'), 3);
});

t.test('the recovery report of a new log, a closed one and a cleaned one', async (t) => {
  const directory = temporaryDirectory(t);
  let wal = await openLog(t, { ...SMALL, autoCleanup: false }, directory);
  const keys = [
    'checkpoint',
    'discardedBytes',
    'durationMs',
    'firstLsn',
    'lastLsn',
    'quarantined',
    'records',
    'segments',
    'verdict',
  ];
  t.same(Object.keys(wal.recovery).sort(), keys);
  t.match(wal.recovery, { verdict: 'empty', segments: 0, records: 0, firstLsn: 0, lastLsn: 0, checkpoint: 0 });
  t.match(wal.recovery, { discardedBytes: 0, quarantined: [] });
  t.ok(wal.recovery.durationMs >= 0);
  for (let i = 0; i < 3; i++) {
    await wal.append(KIB);
    await wal.rotate();
  }
  await wal.append(KIB);
  await wal.close();
  wal = await openLog(t, { ...SMALL, autoCleanup: false }, directory);
  t.match(wal.recovery, { verdict: 'clean', segments: 4, records: 4, firstLsn: 1, lastLsn: 4, checkpoint: 0 });
  await wal.checkpoint(2);
  await wal.cleanup();
  await wal.close();
  wal = await openLog(t, { ...SMALL, readOnly: true }, directory);
  t.match(wal.recovery, { verdict: 'clean', records: 2, firstLsn: 3, lastLsn: 4, checkpoint: 2 });
});

t.test('stats is a plain snapshot of what the log does', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { ...SMALL, flushIntervalMs: 0 }, directory);
  t.match(wal.stats(), {
    watermarks: { memory: 0, os: 0, disk: 0 },
    records: 0,
    commits: 0,
    syncs: 0,
    recordsPerSync: 0,
  });
  t.match(wal.stats(), { segments: 0, bytes: 0, queueDepth: 0, inFlight: 0, checkpoint: 0, firstLsn: 1 });
  await fill(wal, 100);
  await wal.sync();
  const stats = wal.stats();
  t.same(structuredClone(stats), stats, 'plain data');
  t.match(stats, {
    records: 100,
    watermarks: { memory: 100, os: 100, disk: 100 },
    inFlight: 0,
    queueDepth: 0,
    firstLsn: 1,
  });
  const files = segmentFiles(directory);
  t.equal(stats.segments, files.length);
  const bytes = files.reduce((sum, name) => sum + fs.statSync(path.join(directory, name)).size, 0);
  // A log that falls idle adds a stamp of 64 bytes, perhaps between the two looks.
  t.ok(bytes - stats.bytes === 0 || bytes - stats.bytes === 64, `${stats.bytes} of ${bytes} bytes`);
  t.ok(stats.commits > 0 && stats.commits <= 100);
  t.ok(stats.syncs > 0);
  t.equal(stats.recordsPerSync, 100 / stats.syncs);
  t.equal(stats.ring.used, 0);
  const { p50, p90, p99, max } = stats.latencyMs.os;
  t.ok(p50 > 0 && p50 <= p90 && p90 <= p99 && p99 <= max * 1.01, 'percentiles in milliseconds');
  t.ok(max < 60_000);
  t.same(stats.latencyMs.memory, { p50: 0, p90: 0, p99: 0, max: 0 }, 'nobody waited for it');
});
