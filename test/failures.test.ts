// First of all: whatever starts threads after this starts them on a disk that fails on command.
import './fixtures/faults.js';

import { connect, type WalError, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import {
  actors,
  Fault,
  faults,
  heal,
  inject,
  NOTHING_GROWS,
  SYNC_BLOCKS,
  SYNC_FAILS,
  untilBlocked,
} from './fixtures/faults.js';
import {
  collect,
  failsWith,
  nextEvent,
  numbers,
  openLog,
  payloads,
  segmentFiles,
  temporaryDirectory,
  text,
} from './helpers.js';

t.afterEach(heal);

/** Reopens the log and asserts that it starts with `acknowledged` records, each whole and as it was appended. */
async function reopened(t: Test, directory: string, acknowledged: number, appended: string[]): Promise<WriteAheadLog> {
  const wal = await openLog(t, {}, directory);
  const found = payloads(await collect(wal.read()));
  t.ok(found.length >= acknowledged, 'everything acknowledged is there');
  t.same(found, appended.slice(0, found.length), 'and nothing else');
  t.equal(await wal.append('goes on'), found.length + 1);
  return wal;
}

/** What must be true of a log that has just failed. */
async function poisoned(t: Test, wal: WriteAheadLog): Promise<void> {
  const calls: [string, () => unknown][] = [
    ['append', () => wal.append('x')],
    ['append at memory', () => wal.append('x', { durability: 'memory' })],
    ['appendMany', () => wal.appendMany(['x'])],
    ['put', () => wal.put('k', 'v')],
    ['batch', () => wal.batch([{ type: 'del', key: 'k' }])],
    ['sync', () => wal.sync()],
    ['rotate', () => wal.rotate()],
    ['checkpoint', () => wal.checkpoint(1)],
    ['cleanup', () => wal.cleanup()],
    ['waitFor', () => wal.waitFor(1_000_000, 'memory')],
  ];
  for (const [what, call] of calls) await failsWith(t, 'ERR_WAL_FAILED', call, what);
  t.ok((await collect(wal.read())).length >= 1, 'what is there can still be read');
  t.equal(typeof wal.stats().records, 'number');
}

const FAILURES: [string, () => unknown][] = [
  ['a sync that fails', () => inject(Fault.sync, SYNC_FAILS)],
  ['a write that fails', () => inject(Fault.write, 1)],
];

for (const [what, fail] of FAILURES) {
  t.test(`${what} poisons the log: nothing is acknowledged after it, and a reopen has what was`, async (t) => {
    const directory = temporaryDirectory(t);
    const wal = await openLog(t, {}, directory);
    const producer = await connect(wal.producer());
    const errors: unknown[] = [];
    wal.on('error', (error) => errors.push(error));
    const appended = ['one', 'two', 'three'];
    t.equal(await wal.append('one'), 1);
    t.equal(await producer.append('two'), 2);
    const waiter = failsWith(t, 'ERR_WAL_FAILED', wal.waitFor(100, 'disk'), 'a waiter');
    const commits: number[] = [];
    wal.on('commit:disk', ({ lsn }) => commits.push(lsn));
    fail();
    await failsWith(t, 'ERR_WAL_INDETERMINATE', wal.append('three'), 'in flight');
    heal();
    await waiter;
    await poisoned(t, wal);
    await failsWith(t, 'ERR_WAL_FAILED', producer.append('x'), 'from a producer');
    t.same(commits, [], 'no commit was told');
    t.equal(wal.watermark('disk'), 2);
    t.equal(errors.length, 1, 'told once');
    t.match(errors[0], { code: 'ERR_WAL_FAILED', message: /EIO/ });
    await producer.close();
    await wal.close();
    await wal.close();
    await failsWith(t, 'ERR_WAL_CLOSED', () => wal.append('x'));
    await reopened(t, directory, 2, appended);
  });
}

t.test('readers and subscriptions of a log that fails end with its error, and do not wait for ever', async (t) => {
  const wal = await openLog(t);
  wal.on('error', () => {});
  await wal.append('one');
  const follower = wal.read({ follow: true })[Symbol.asyncIterator]();
  t.equal((await follower.next()).value?.lsn, 1);
  const subscription = await wal.subscribe('consumer');
  const busy = subscription[Symbol.asyncIterator]();
  t.equal((await busy.next()).value?.lsn, 1);
  const waiting = failsWith(t, 'ERR_WAL_FAILED', follower.next(), 'a follower that waits');
  inject(Fault.sync, SYNC_FAILS);
  await failsWith(t, 'ERR_WAL_INDETERMINATE', wal.append('two'));
  heal();
  await waiting;
  await failsWith(t, 'ERR_WAL_FAILED', busy.next(), 'one that was busy when it happened');
  await failsWith(t, 'ERR_WAL_FAILED', subscription.ack(1), 'an acknowledgement');
  const late = wal.read({ from: 1, follow: true });
  const seen: number[] = [];
  await failsWith(t, 'ERR_WAL_FAILED', async () => {
    for await (const { lsn } of late) seen.push(lsn);
  });
  t.same(seen, [1], 'one that begins later reads what is there');
  await failsWith(t, 'ERR_WAL_FAILED', wal.subscribe('another'));
  await subscription.close();
});

t.test('a failed sync is not tried again', async (t) => {
  const wal = await openLog(t);
  wal.on('error', () => {});
  await wal.append('x');
  inject(Fault.sync, SYNC_FAILS);
  await failsWith(t, 'ERR_WAL_INDETERMINATE', wal.append('x'));
  const syncs = Atomics.load(faults, Fault.syncs);
  await failsWith(t, 'ERR_WAL_FAILED', wal.sync());
  await wal.close();
  t.equal(Atomics.load(faults, Fault.syncs), syncs);
});

t.test('appends in line and in the ring alike hear of a failure', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { ringBytes: 65536 }, directory);
  wal.on('error', () => {});
  await wal.append('first');
  inject(Fault.sync, SYNC_BLOCKS);
  const appended = ['first', ...numbers(0, 199).map((i) => `${i} ${'x'.repeat(1000)}`)];
  const appends = Promise.allSettled(appended.slice(1).map((payload) => wal.append(payload)));
  await untilBlocked();
  inject(Fault.sync, SYNC_FAILS);
  for (const result of await appends) {
    t.match(result, { status: 'rejected', reason: { code: 'ERR_WAL_INDETERMINATE' } });
  }
  heal();
  await wal.close();
  await reopened(t, directory, 1, appended);
});

t.test('a failed sync is what sync, rotate and checkpoint reject with', async (t) => {
  for (const work of ['sync', 'rotate', 'checkpoint'] as const) {
    const wal = await openLog(t, { flushIntervalMs: 0 });
    const told = nextEvent(wal, 'error');
    const lsn = await wal.append('x', { durability: 'os' });
    inject(Fault.sync, SYNC_FAILS);
    await failsWith(t, 'ERR_WAL_FAILED', work === 'checkpoint' ? wal.checkpoint(lsn) : wal[work](), work);
    t.match(await told, { code: 'ERR_WAL_FAILED' });
    t.equal(wal.watermark('disk'), 0);
    heal();
    await wal.close();
  }
});

t.test('a sync that fails by itself is told, and poisons too', async (t) => {
  const wal = await openLog(t, { flushIntervalMs: 5 });
  const told = nextEvent(wal, 'error');
  inject(Fault.sync, SYNC_FAILS);
  // The first segment's header needs a sync too, so this may meet the failure as well.
  await wal.append('x', { durability: 'os' }).catch(() => {});
  t.match(await told, { code: 'ERR_WAL_FAILED' });
  await failsWith(t, 'ERR_WAL_FAILED', wal.append('x'));
});

t.test('a close that cannot make everything durable says so, and lets go of everything', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await WriteAheadLog.open(directory, { segmentBytes: 65536, flushIntervalMs: 0 });
  await wal.append('x', { durability: 'os' });
  inject(Fault.sync, SYNC_FAILS);
  await failsWith(t, 'ERR_WAL_FAILED', wal.close());
  heal();
  await failsWith(t, 'ERR_WAL_CLOSED', () => wal.append('x'));
  await reopened(t, directory, 1, ['x']);
});

t.test(
  'the death of the I/O actor poisons the log: everybody wakes, close resolves, a reopen has it all',
  async (t) => {
    const directory = temporaryDirectory(t);
    const wal = await openLog(t, { ringBytes: 65536 }, directory);
    const producer = await connect(wal.producer());
    const told = nextEvent(wal, 'error');
    const appended = ['acknowledged'];
    await wal.append('acknowledged');
    const waiter = failsWith(t, 'ERR_WAL_FAILED', wal.waitFor(1000, 'disk'), 'a waiter');
    inject(Fault.sync, SYNC_BLOCKS);
    const first = wal.append('in flight');
    await untilBlocked();
    const inFlight = [
      first,
      wal.append('in flight too'),
      wal.appendMany(numbers(1, 10).map(String)),
      producer.append('p'),
    ];
    const inLine = numbers(1, 100).map(() => wal.append('x'.repeat(1000)));
    const asked = [wal.sync(), wal.rotate()];
    const results = Promise.allSettled([...inFlight, ...inLine]);
    const answers = Promise.allSettled(asked);
    await actors.at(-1)?.terminate();
    for (const result of await results) {
      t.match(result, { status: 'rejected', reason: { code: 'ERR_WAL_INDETERMINATE' } });
    }
    for (const result of await answers) t.equal(result.status, 'rejected');
    await waiter;
    t.match(await told, { code: 'ERR_WAL_FAILED', message: /actor/ });
    heal();
    await poisoned(t, wal);
    await failsWith(t, 'ERR_WAL_FAILED', producer.append('x'));
    await producer.close();
    await wal.close();
    const again = await openLog(t, {}, directory);
    t.equal(payloads(await collect(again.read({ to: 1 })))[0], appended[0]);
    t.ok((await again.append('goes on')) >= 2);
  },
);

t.test('an actor that dies with nothing in flight is noticed too', async (t) => {
  const wal = await openLog(t);
  const told = nextEvent(wal, 'error');
  await wal.append('x');
  await actors.at(-1)?.terminate();
  t.match(await told, { code: 'ERR_WAL_FAILED' });
  await failsWith(t, 'ERR_WAL_FAILED', wal.append('x'));
});

t.test('an encoder that dies costs no record', async (t) => {
  const wal = await openLog(t, { encoders: 1 });
  for (const deaths of [1, 3]) {
    inject(Fault.encoderDeaths, deaths);
    const appends = numbers(1, 4).map((i) => wal.append(Buffer.alloc(600_000, i)));
    const lsns = await Promise.all(appends);
    t.equal(lsns.at(-1), deaths === 1 ? 4 : 8);
  }
  const records = await collect(wal.read());
  t.equal(records.length, 8);
  t.ok(records.every(({ payload }, i) => payload.every((byte) => byte === (i % 4) + 1)));
});

t.test(
  'a full disk: ERR_WAL_NO_SPACE, nothing of it written, and appends work again once there is space',
  async (t) => {
    const directory = temporaryDirectory(t);
    const wal = await openLog(t, { segmentBytes: 65536 }, directory);
    wal.on('error', (error) => t.fail(String(error)));
    const written: string[] = [];
    const append = async (payload: string) => {
      t.equal(await wal.append(payload), written.length + 1, 'without a gap');
      written.push(payload);
    };
    await append('before');
    inject(Fault.diskFull, 1);
    const error = await failsWith(t, 'ERR_WAL_NO_SPACE', wal.append('x'.repeat(200_000)));
    t.match(error.message, /space/);
    await failsWith(t, 'ERR_WAL_NO_SPACE', wal.appendMany(['a', 'x'.repeat(200_000)]), 'a batch');
    await failsWith(t, 'ERR_WAL_NO_SPACE', wal.rotate(), 'a rotation');
    await append('what fits into the segment is still welcome');
    heal();
    await append('y'.repeat(200_000));
    await append('after');
    await wal.rotate();
    await append('and in the next segment');
    await wal.close();
    const again = await openLog(t, {}, directory);
    t.equal(again.recovery.verdict, 'clean');
    t.same(payloads(await collect(again.read())), written);
  },
);

t.test('a disk that fills up under load: every append hears of its fate, in order', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { segmentBytes: 65536, ringBytes: 65536 }, directory);
  inject(Fault.diskFull, 1);
  await failsWith(t, 'ERR_WAL_NO_SPACE', wal.append('the very first'));
  heal();
  await wal.append('0');
  inject(Fault.diskFull, 1);
  const payload = (i: number) => `${i} ${'x'.repeat(3000)}`;
  const results = await Promise.allSettled(numbers(1, 100).map((i) => wal.append(payload(i))));
  heal();
  const codes = new Set(results.map((r) => (r.status === 'rejected' ? (r.reason as WalError).code : 'written')));
  t.same([...codes].sort(), ['ERR_WAL_NO_SPACE', 'written']);
  await wal.append('last');
  await wal.close();
  const wanted = results.flatMap((result, i) => (result.status === 'fulfilled' ? [payload(i + 1)] : []));
  const again = await openLog(t, {}, directory);
  t.same(payloads(await collect(again.read())), ['0', ...wanted, 'last']);
  const lsns = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  t.same(lsns, numbers(2, lsns.length + 1));
});

t.test('a log opens on a full disk, also one that was cut short, and can be read', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, {}, directory);
  await wal.append('x');
  await actors.at(-1)?.terminate();
  await wal.close();
  inject(Fault.diskFull, 1);
  const full = await openLog(t, {}, directory);
  t.same(payloads(await collect(full.read())), ['x']);
  await failsWith(t, 'ERR_WAL_NO_SPACE', full.append('y'));
  await failsWith(t, 'ERR_WAL_NO_SPACE', full.checkpoint(1));
  heal();
  t.equal(await full.append('y'), 2);
  await full.checkpoint(1);
});

t.test('clean-up on a full disk makes room: it recycles nothing that would need some', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { segmentBytes: 65536, autoCleanup: false }, directory);
  wal.on('error', (error) => t.fail(String(error)));
  for (let i = 0; i < 3; i++) {
    await wal.append(`${i}`);
    await wal.rotate();
  }
  await wal.append('3');
  await wal.checkpoint(3);
  inject(Fault.diskFull, NOTHING_GROWS);
  t.match(await wal.cleanup(), { segments: 3 });
  heal();
  t.same(segmentFiles(directory).length, 1);
  t.equal(await wal.append('4'), 5);
});

t.test('what a log that failed had on disk can be read from anywhere', async (t) => {
  const wal = await openLog(t);
  for (const i of numbers(1, 9)) await wal.append(`${i}`);
  inject(Fault.sync, SYNC_FAILS);
  await failsWith(t, 'ERR_WAL_INDETERMINATE', wal.append('lost'));
  t.same(payloads(await collect(wal.read({ from: 5, to: 9 }))), ['5', '6', '7', '8', '9']);
  t.equal(text((await wal.get(7)).payload), '7');
});
