import { Readable } from 'node:stream';
import { type Subscription, type WalRecord, WriteAheadLog } from 'ringwal';
import t from 'tap';
import type { Positions } from '../src/format/state.js';
import { Cuts } from '../src/reader/cuts.js';
import { Reader } from '../src/reader/reader.js';
import { PositionBook } from '../src/subscriptions/position-book.js';
import { Subscription as Consumer } from '../src/subscriptions/subscription.js';
import { collect, failsWith, failure, numbers, openLog, payloads, temporaryDirectory, text } from './helpers.js';

/** The next `count` records of a subscription, acknowledged up to `acknowledge`. */
async function take(subscription: Subscription, count: number, acknowledge = 0): Promise<number[]> {
  const lsns: number[] = [];
  for await (const { lsn } of subscription) {
    lsns.push(lsn);
    if (lsn <= acknowledge) await subscription.ack(lsn);
    if (lsns.length === count) break;
  }
  return lsns;
}

t.test('a consumer goes on behind what it acknowledged, also after the log was opened again', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await WriteAheadLog.open(directory);
  await wal.appendMany(numbers(1, 10).map(String));
  const first = await wal.subscribe('indexer');
  t.same(await take(first, 6, 4), [1, 2, 3, 4, 5, 6]);
  await first.close();
  t.same(await take(await wal.subscribe('indexer'), 2), [5, 6], 'what was not acknowledged comes again');
  await wal.close();
  const again = await openLog(t, {}, directory);
  const second = await again.subscribe('indexer');
  t.equal(second.acknowledged, 4);
  t.same(await take(second, 6, 10), numbers(5, 10));
  t.match(again.stats().subscriptions, [{ name: 'indexer', acknowledged: 10, lag: 0 }]);
});

t.test('a new subscription begins where it is told', async (t) => {
  const wal = await openLog(t);
  await wal.appendMany(['a', 'b', 'c']);
  t.same(await take(await wal.subscribe('from 2', { from: 2 }), 2), [2, 3]);
  const end = await wal.subscribe('end', { from: 'end' });
  const next = take(end, 1);
  await wal.append('d');
  t.same(await next, [4]);
  const os = await wal.subscribe('os', { from: 'end', level: 'os' });
  const unsynced = take(os, 1);
  await wal.append('e', { durability: 'os' });
  t.same(await unsynced, [5]);
});

t.test('clean-up keeps what a subscription has not acknowledged, and takes it once it is forgotten', async (t) => {
  const wal = await openLog(t, { segmentBytes: 65536, autoCleanup: false });
  const slow = await wal.subscribe('slow');
  for (const i of numbers(1, 40)) await wal.append(Buffer.alloc(8192, i));
  t.same(await take(slow, 20, 20), numbers(1, 20));
  await wal.checkpoint(40);
  await wal.cleanup();
  const kept = await collect(wal.read());
  t.ok(kept[0].lsn > 1 && kept[0].lsn <= 21, `the log begins at ${kept[0].lsn}`);
  t.same(wal.stats().subscriptions, [{ name: 'slow', acknowledged: 20, lag: 20 }]);
  await wal.unsubscribe('slow');
  t.same(wal.stats().subscriptions, []);
  await failsWith(t, 'ERR_WAL_CLOSED', slow.ack(20));
  t.ok((await wal.cleanup()).segments > 0);
  await failsWith(t, 'ERR_WAL_NOT_FOUND', wal.unsubscribe('slow'));
});

t.test('bad names, positions and acknowledgements are refused', async (t) => {
  const wal = await openLog(t);
  await wal.appendMany(['a', 'b', 'c']);
  for (const name of ['', 'a\0b', 'line\nbreak', 'x'.repeat(256), 'é'.repeat(128), '\ud800', 5 as unknown as string]) {
    await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', wal.subscribe(name));
  }
  for (const from of [0, -1, 1.5, 5, 'middle' as 'start']) {
    await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', wal.subscribe('x', { from }));
  }
  const odd = await wal.subscribe('__proto__');
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', wal.subscribe('__proto__'), 'opened twice');
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', odd.ack(1), 'not delivered yet');
  t.same(await take(odd, 2, 2), [1, 2]);
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', odd.ack(3), 'ahead');
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', odd.ack(1), 'back');
  t.match(wal.stats().subscriptions, [{ name: '__proto__', acknowledged: 2 }]);
});

t.test('several consumers go at their own speeds, and a stream can be made of one', async (t) => {
  const wal = await openLog(t);
  const names = ['a', 'b', 'c'];
  const subscriptions = await Promise.all(names.map((name) => wal.subscribe(name)));
  const taking = subscriptions.map((subscription, i) => take(subscription, 100 * (i + 1), 100 * (i + 1)));
  for (const i of numbers(1, 30)) await wal.appendMany(numbers(1, 10).map((j) => `${i}/${j}`));
  t.same(await Promise.all(taking), [numbers(1, 100), numbers(1, 200), numbers(1, 300)]);
  const stream = Readable.from(await wal.subscribe('stream', { from: 299 }));
  const records = [];
  for await (const record of stream) if (records.push(record) === 2) break;
  t.same(payloads(records), ['30/9', '30/10']);
});

t.test('a slow consumer costs no memory: its loop reads when it asks', async (t) => {
  const wal = await openLog(t);
  const slow = await wal.subscribe('slow');
  const iterator = slow[Symbol.asyncIterator]();
  await wal.append('first');
  t.equal(text((await iterator.next()).value?.payload), 'first');
  const before = process.memoryUsage().arrayBuffers;
  for (const i of numbers(1, 40)) await wal.appendMany(numbers(1, 100).map(() => Buffer.alloc(10_000, i)));
  t.ok(process.memoryUsage().arrayBuffers - before < 32 * 1024 * 1024);
  await iterator.return?.();
});

t.test('after a cut the log goes on behind it, and nothing that was cut comes back', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await WriteAheadLog.open(directory, { segmentBytes: 65536, autoCleanup: false });
  for (const i of numbers(1, 30)) await wal.append(`old ${i} ${'x'.repeat(5000)}`);
  const consumer = await wal.subscribe('consumer');
  t.same(await take(consumer, 20, 20), numbers(1, 20));
  await wal.truncateAfter(12);
  t.equal(wal.watermark('disk'), 12);
  await failsWith(t, 'ERR_WAL_TRUNCATED', consumer.ack(20), 'what was delivered is void');
  t.equal((await wal.subscribe('consumer')).acknowledged, 12);
  t.equal(await wal.append('new 13'), 13);
  await failsWith(t, 'ERR_WAL_NOT_FOUND', wal.get(14));
  const check = async (log: WriteAheadLog) => {
    const found = payloads(await collect(log.read())).map((payload) => payload.slice(0, 6).trim());
    t.same(found, [...numbers(1, 12).map((i) => `old ${i}`), 'new 13']);
  };
  await check(wal);
  await wal.close();
  const again = await openLog(t, { autoCleanup: false }, directory);
  await check(again);
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', again.truncateAfter(14));
  await again.checkpoint(5);
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', again.truncateAfter(4));
  await again.truncateAfter(13);
  t.equal(await again.append('14'), 14);
});

t.test('a log can be cut to nothing and begins again', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await WriteAheadLog.open(directory);
  await wal.appendMany(['a', 'b']);
  await wal.truncateAfter(0);
  t.same(await collect(wal.read()), []);
  await wal.close();
  const again = await openLog(t, {}, directory);
  t.match(again.recovery, { records: 0, lastLsn: 0 });
  t.equal(await again.append('c'), 1);
  t.same(payloads(await collect(again.read())), ['c']);
});

t.test('who subscribes while the log is being cut begins behind the cut, and misses nothing', async (t) => {
  const wal = await openLog(t);
  for (let round = 0; round < 5; round++) {
    await wal.appendMany(numbers(wal.watermark('disk') + 1, 20).map((i) => `old ${i}`));
    const first = await wal.subscribe('consumer');
    for await (const { lsn } of first) if (lsn === 20) break;
    await first.ack(20);
    await first.close();
    // Before, and behind: as far apart as a few turns of the event loop.
    const early = round % 2 === 0 ? wal.subscribe('consumer') : undefined;
    const cut = wal.truncateAfter(10);
    for (let turn = 0; turn < round; turn++) await new Promise((resolve) => setImmediate(resolve));
    const subscription = await (early ?? wal.subscribe('consumer'));
    await cut;
    await wal.appendMany(numbers(11, 20).map((i) => `new ${i}`));
    if (subscription.acknowledged === 10) {
      const next = await subscription[Symbol.asyncIterator]().next();
      t.match(next.value, { lsn: 11, payload: Buffer.from('new 11') });
    } else {
      await failsWith(t, 'ERR_WAL_TRUNCATED', subscription.ack(20));
    }
    await subscription.close();
    const again = await wal.subscribe('consumer');
    t.equal(again.acknowledged, 10, `round ${round}`);
    await again.close();
    await wal.truncateAfter(10);
  }
});

t.test('a subscription is iterated by one loop at a time', async (t) => {
  const wal = await openLog(t);
  await wal.appendMany(['a', 'b']);
  const consumer = await wal.subscribe('consumer');
  const loop = consumer[Symbol.asyncIterator]();
  t.equal((await loop.next()).value?.lsn, 1);
  t.throws(() => consumer[Symbol.asyncIterator](), { code: 'ERR_WAL_INVALID_ARGUMENT', message: 'being iterated' });
  t.equal((await loop.next()).value?.lsn, 2, 'which harms the first one not');
  await loop.return?.();
  t.same(await take(consumer, 1), [1], 'and then by another');
});

t.test('a subscription cannot begin at what was cleaned up', async (t) => {
  const wal = await openLog(t, { segmentBytes: 65536, autoCleanup: false });
  for (const i of numbers(1, 40)) await wal.append(Buffer.alloc(8192, i));
  await wal.checkpoint(40);
  t.ok((await wal.cleanup()).segments > 0);
  const error = await failsWith(t, 'ERR_WAL_TRUNCATED', wal.subscribe('late', { from: 2 }));
  t.equal(error.lsn, 2);
  t.same(wal.stats().subscriptions, [], 'and then there is none');
  const [{ lsn }] = await collect(wal.read());
  t.same(await take(await wal.subscribe('late', { from: lsn }), 1), [lsn]);
});

t.test('what changes while a note is written goes along with the next, the newest of each name', async (t) => {
  const notes: Positions[] = [];
  const ends: ((error?: Error) => void)[] = [];
  const book = new PositionBook((positions) => {
    notes.push(positions);
    return new Promise((resolve, reject) => ends.push((error) => (error === undefined ? resolve() : reject(error))));
  });
  const settledAt: string[] = [];
  const note = (name: string, change: Positions[string]) => {
    const noted = book.note(name, change);
    noted.then(
      () => settledAt.push(name),
      () => settledAt.push(`not ${name}`),
    );
    return noted;
  };
  const first = note('first', 1);
  await new Promise(setImmediate);
  const fresh = { acknowledged: 3, level: 'disk' as const };
  for (const [name, change] of [
    ['new', fresh],
    ['gone', 4],
    ['known', 5],
  ] as const)
    void note(name, change);
  for (const [name, change] of [
    ['new', 7],
    ['gone', null],
    ['known', 6],
  ] as const)
    void note(name, change);
  void note('gone', 9);
  const settled = book.settled();
  ends[0](new Error('no room'));
  await failure(first);
  await new Promise(setImmediate);
  ends[1]();
  await settled;
  t.same(notes, [{ first: 1 }, { new: { ...fresh, acknowledged: 7 }, gone: 9, known: 6 }]);
  t.match(settledAt[0], 'not first', 'a note that failed takes no other along');
  t.notOk(settledAt.includes('not known'));
  const again = note('first', 2);
  await new Promise(setImmediate);
  ends[2]();
  await again;
  t.same(notes[2], { first: 2 });
});

t.test('a loop ends when what it reads from ends, and another may begin', async (t) => {
  const record = { lsn: 1 } as WalRecord;
  const none = new Cuts();
  const host = {
    follow: () =>
      new Reader(
        async function* () {
          yield [record];
        },
        undefined,
        none,
      ),
    acknowledge: async () => {},
    closed: () => {},
  };
  const subscription = new Consumer('ends', 0, host);
  for (let round = 0; round < 2; round++) t.same(await collect(subscription), [record]);
  t.equal(subscription.delivered, 1);
});
