import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { collect, payloads, temporaryDirectory, text } from './helpers.js';

const SMALL = { segmentBytes: 64 * 1024, autoCleanup: false };

t.test('a follower gets each record once and in order, through rotations, and ends when the log closes', async (t) => {
  const log = await WriteAheadLog.open(temporaryDirectory(t), SMALL);
  await log.appendMany(['before 1', 'before 2']);
  const seen: number[] = [];
  const following = (async () => {
    for await (const { lsn } of log.read({ follow: true })) {
      t.ok(lsn <= log.watermark('disk'), 'committed when delivered');
      seen.push(lsn);
    }
  })();
  for (let i = 0; i < 40; i++) await Promise.all(Array.from({ length: 50 }, () => log.append(Buffer.alloc(100, i))));
  await log.waitFor(2002, 'disk');
  while (seen.length < 2002) await new Promise(setImmediate);
  t.ok(log.stats().segments > 2, 'several segments');
  await log.close();
  await following;
  t.same(
    seen,
    Array.from({ length: 2002 }, (_, i) => i + 1),
  );
});

t.test('leaving a loop that waits for more ends it', async (t) => {
  const log = await WriteAheadLog.open(temporaryDirectory(t));
  t.teardown(() => log.close());
  await log.append('one');
  const iterator = log.read({ follow: true })[Symbol.asyncIterator]();
  t.equal((await iterator.next()).value?.lsn, 1);
  const waiting = iterator.next();
  await iterator.return?.();
  t.same(await waiting, { done: true, value: undefined });
});

t.test('an aborted signal ends a following read with its reason', async (t) => {
  const log = await WriteAheadLog.open(temporaryDirectory(t));
  t.teardown(() => log.close());
  const controller = new AbortController();
  const reading = collect(log.read({ follow: true, signal: controller.signal }));
  controller.abort(new Error('enough'));
  await t.rejects(reading, { message: 'enough' });
});

t.test('a follower at os does not wait for the disk', async (t) => {
  const log = await WriteAheadLog.open(temporaryDirectory(t), { flushIntervalMs: 0 });
  t.teardown(() => log.close());
  const iterator = log.read({ follow: true, level: 'os' })[Symbol.asyncIterator]();
  const first = iterator.next();
  await log.append('unsynced', { durability: 'os' });
  t.equal(text((await first).value?.payload), 'unsynced');
  t.equal(log.watermark('disk'), 0);
  await iterator.return?.();
});

t.test('a record is found by its LSN in sealed and live segments', async (t) => {
  const log = await WriteAheadLog.open(temporaryDirectory(t), { segmentBytes: 1024 * 1024 });
  t.teardown(() => log.close());
  const many = Array.from({ length: 30000 }, (_, i) => `record ${i + 1} ${'x'.repeat(80)}`);
  for (let i = 0; i < many.length; i += 1000) await log.appendMany(many.slice(i, i + 1000));
  t.ok(log.stats().segments > 2);
  for (const lsn of [1, 2, 999, 1000, 1001, 15000, 29999, 30000]) {
    const record = await log.get(lsn);
    t.equal(record.lsn, lsn);
    t.match(text(record.payload), new RegExp(`^record ${lsn} `));
  }
  await t.rejects(log.get(30001), { code: 'ERR_WAL_NOT_FOUND' });
  const some = await collect(log.read({ from: 14990, to: 15010 }));
  t.same(
    some.map(({ lsn }) => lsn),
    Array.from({ length: 21 }, (_, i) => 14990 + i),
  );
});

t.test('a time finds its records', async (t) => {
  const log = await WriteAheadLog.open(temporaryDirectory(t), SMALL);
  t.teardown(() => log.close());
  const times: number[] = [];
  for (let i = 0; i < 30; i++) {
    await log.append(`${i} ${'x'.repeat(8000)}`);
    times.push((await log.get(i + 1)).timestamp);
    while (Date.now() <= times[i]) await new Promise(setImmediate);
  }
  for (const i of [0, 7, 29]) {
    const since = await collect(log.read({ from: new Date(times[i]) }));
    t.equal(since[0].lsn, i + 1, `from the time of record ${i}`);
    t.equal(since.length, 30 - i);
    const until = await collect(log.read({ to: new Date(times[i]) }));
    t.equal(until.length, i + 1);
  }
  t.same(await collect(log.read({ from: new Date(times[29] + 1) })), []);
  t.same(await collect(log.read({ to: new Date(times[0] - 1) })), []);
});

t.test('a reader in read-only mode follows a live writer by its files', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await WriteAheadLog.open(directory, SMALL);
  await log.append('first');
  const reader = await WriteAheadLog.open(directory, { readOnly: true });
  t.same(payloads(await collect(reader.read())), ['first']);
  const seen: number[] = [];
  const following = (async () => {
    for await (const { lsn } of reader.read({ follow: true, to: 1001 })) seen.push(lsn);
  })();
  for (let i = 0; i < 20; i++) await log.appendMany(Array.from({ length: 50 }, () => Buffer.alloc(200, i)));
  await following;
  t.same(
    seen,
    Array.from({ length: 1001 }, (_, i) => i + 1),
  );
  await reader.close();
  await log.close();
});
