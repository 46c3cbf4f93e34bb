import fs from 'node:fs';
import path from 'node:path';
import { type CommitEvent, type OpenOptions, type ReplayOperation, verifyLog, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { cli } from './cli-helpers.js';
import { clear, data, KeyLog, put as keyPut } from './compaction-helpers.js';
import { collect, failsWith, failure, numbers, openLog, segmentFiles, temporaryDirectory, text } from './helpers.js';
import { seeded } from './kill9-rounds.js';

const SMALL: OpenOptions = { ringBytes: 64 * 1024, segmentBytes: 64 * 1024 };

type Shown = [lsn: number, operation: string];

function shown(op: ReplayOperation): string {
  if (op.type === 'put') return `${text(op.key)}=${text(op.value)}`;
  return op.type === 'del' ? `-${text(op.key)}` : 'clear';
}

async function replay(wal: WriteAheadLog, options?: { from?: number; to?: number }): Promise<Shown[]> {
  const found = (await collect(wal.replay(options))).map(({ lsn, op }): Shown => [lsn, shown(op)]);
  const handed: Shown[] = [];
  const count = await wal.replay((op, lsn) => void handed.push([lsn, shown(op)]), options);
  t.same(handed, found, 'an iteration and a handler are given the same');
  t.equal(count, found.length);
  return found;
}

/** More than half of the small ring. */
function fillLarge(tx: { put(key: string, value: string): Promise<void> }, name = 'large'): string[] {
  const operations = numbers(1, 600).map((i) => [`${name}:${i}`, 'v'.repeat(100 + i)]);
  for (const [key, value] of operations) void tx.put(key, value);
  return operations.map(([key, value]) => `${key}=${value}`);
}

async function prepared(wal: WriteAheadLog): Promise<Record<string, string[]>> {
  const list = await wal.preparedTransactions();
  return Object.fromEntries(list.map(({ id, operations }) => [id, operations.map(shown)]));
}

t.test('a transaction is one group in the log, shown whole at the LSN of its commit', async (t) => {
  const wal = await openLog(t);
  const tx = wal.transaction();
  await wal.put('before', '1');
  await tx.put('a', '1');
  await tx.delete('b');
  t.equal(wal.watermark('memory'), 1, 'nothing of it is in the log before');
  const buffer = Buffer.from('reused');
  await tx.put(buffer, buffer);
  buffer.fill('x');
  const [lsn, after] = await Promise.all([tx.commit(), wal.put('after', '2')]);
  t.equal(lsn, 4);
  t.same(await replay(wal), [
    [1, 'before=1'],
    [4, 'a=1'],
    [4, '-b'],
    [4, 'reused=reused'],
    [after, 'after=2'],
  ]);
  const records = await collect(wal.read());
  t.same(
    records.map(({ lsn: at, kind, transaction }) => [at, kind, transaction]),
    [
      [1, 'put', undefined],
      [2, 'put', tx.id],
      [3, 'del', tx.id],
      [4, 'put', tx.id],
      [5, 'put', undefined],
    ],
  );
  t.match(await wal.get(3), { lsn: 3, kind: 'del', transaction: tx.id });
  const map = new Map();
  await wal.recover(map);
  t.same([...map.keys()], ['before', 'a', 'reused', 'after']);
});

t.test('calls in the wrong order, and operations on a finished transaction, are refused', async (t) => {
  const wal = await openLog(t);
  const refused = (work: Promise<unknown>, what: string) => failsWith(t, 'ERR_WAL_TRANSACTION', work, what);
  const after = async (tx: ReturnType<typeof wal.transaction>, what: string) => {
    await refused(tx.put('a', '1'), `put after ${what}`);
    await refused(tx.delete('a'), `delete after ${what}`);
    await refused(tx.prepare(), `prepare after ${what}`);
  };
  const committed = wal.transaction();
  await committed.put('a', '1');
  const committing = committed.commit();
  await refused(committed.commit(), 'commit while it is committed');
  await refused(committed.put('b', '1'), 'put while it is committed');
  await refused(committed.abort(), 'abort while it is committed');
  await committing;
  await after(committed, 'commit');
  await refused(committed.commit(), 'commit after commit');
  await refused(committed.abort(), 'abort after commit');

  const aborted = wal.transaction();
  await aborted.put('a', '2');
  await aborted.abort();
  await after(aborted, 'abort');
  await refused(aborted.commit(), 'commit after abort');
  await refused(aborted.abort(), 'abort after abort');

  const twice = wal.transaction();
  await twice.put('c', '1');
  await twice.prepare();
  await after(twice, 'prepare');
  await twice.commit();
  await refused(twice.commit(), 'commit after prepare and commit');
  await refused(wal.commitPrepared(twice.id), 'deciding twice');
  await refused(wal.abortPrepared(twice.id), 'deciding twice, otherwise');
  await refused(wal.commitPrepared('no such id'), 'an unknown id');
  await refused(wal.abortPrepared('__proto__'), 'an unknown id');
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', wal.commitPrepared(7 as never));
  t.same(
    (await replay(wal)).map(([, operation]) => operation),
    ['a=1', 'c=1'],
  );
});

t.test('bad input is refused, and leaves the transaction as it was', async (t) => {
  const wal = await openLog(t, { ...SMALL, maxTransactionBytes: 100_000 });
  const tx = wal.transaction();
  await tx.put('a', '1');
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', tx.put(1 as never, '1'));
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', tx.put('a', undefined as never));
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', tx.delete(null as never));
  await failsWith(t, 'ERR_WAL_RECORD_TOO_LARGE', tx.put('a', 'x'.repeat(20_000)));
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', tx.commit({ durability: 'soon' as never }));
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', tx.commit('disk' as never));
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', tx.prepare({ signal: {} as never }));
  await tx.put('', Buffer.of(0));
  await tx.commit();
  t.same(await replay(wal), [
    [2, 'a=1'],
    [2, '=\0'],
  ]);
  const large = wal.transaction();
  for (let i = 0; i < 9; i++) await large.put(`${i}`, 'x'.repeat(11_000));
  await failsWith(t, 'ERR_WAL_RECORD_TOO_LARGE', large.put('9', 'x'.repeat(11_000)), 'over maxTransactionBytes');
  await large.commit();
  t.equal((await replay(wal)).length, 11);
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', WriteAheadLog.open(wal.directory, { maxTransactionBytes: 0 }));
});

t.test('an aborted transaction leaves nothing behind, an empty one neither', async (t) => {
  const wal = await openLog(t);
  await wal.put('a', '1');
  const aborted = wal.transaction();
  await aborted.put('a', '2');
  await aborted.abort();
  t.equal(await wal.transaction().commit(), 1, 'as an empty batch: the last LSN');
  t.equal(wal.watermark('memory'), 1);
  const empty = wal.transaction();
  await empty.prepare();
  t.same(await prepared(wal), { [empty.id]: [] });
  t.equal(await empty.commit(), 2);
  t.same(await replay(wal), [[1, 'a=1']]);
  t.match(await wal.get(2), { kind: 'data', payload: new Uint8Array(), transaction: empty.id });
});

t.test('many at once, interleaved with plain appends, replay like the batches they are', async (t) => {
  const wal = await openLog(t, SMALL);
  const random = seeded(5);
  const expected: Shown[][] = [];
  const one = async (n: number) => {
    const tx = wal.transaction();
    const count = 1 + Math.floor(random() * 6);
    for (let i = 0; i < count; i++) await tx.put(`${n}:${i}`, 'x'.repeat(Math.floor(random() * 300)));
    const operations = numbers(0, count - 1).map((i) => `${n}:${i}`);
    if (n % 7 === 0) return tx.abort();
    if (n % 5 === 0) await tx.prepare();
    if (n % 35 === 10) return tx.abort();
    const lsn = await tx.commit({ durability: n % 2 === 0 ? 'os' : 'disk' });
    expected.push(operations.map((operation) => [lsn, operation]));
  };
  const plain = async (n: number) => {
    const lsn = await wal.put(`plain ${n}`, '', { durability: 'os' });
    expected.push([[lsn, `plain ${n}`]]);
  };
  await Promise.all(numbers(1, 150).flatMap((n) => [one(n), plain(n)]));
  const model = expected.sort(([[a]], [[b]]) => a - b).flat();
  const keysOnly = (found: Shown[]) => found.map(([lsn, operation]) => [lsn, operation.split('=')[0]]);
  t.same(keysOnly(await replay(wal)), model);
  await wal.close();
  t.equal((await verifyLog(wal.directory)).verdict, 'clean');
  const again = await openLog(t, SMALL, wal.directory);
  t.same(keysOnly(await replay(again)), model);
  t.equal((await again.preparedTransactions()).length, 0);
});

t.test('one larger than the ring is committed in parts, and shown whole', async (t) => {
  const wal = await openLog(t, SMALL);
  const events: CommitEvent[] = [];
  wal.on('commit:disk', (event) => void events.push(event));
  const tx = wal.transaction();
  const operations = fillLarge(tx);
  const [lsn, ...others] = await Promise.all([tx.commit(), ...numbers(1, 50).map((i) => wal.put(`other ${i}`, ''))]);
  t.ok(lsn > 600);
  t.ok(wal.stats().segments > 2, 'it spans segments');
  const found = await replay(wal);
  t.same(
    found.filter(([at]) => at === lsn).map(([, operation]) => operation),
    operations,
  );
  t.equal(found.length, operations.length + others.length);
  t.match(await wal.get(lsn), { kind: 'data', transaction: tx.id });
  await wal.sync();
  t.same(
    events.map(({ first, lsn: last, records }) => last - first + 1 === records),
    events.map(() => true),
  );
  await wal.close();
  t.equal((await verifyLog(wal.directory)).verdict, 'clean');
  const again = await openLog(t, SMALL, wal.directory);
  const map = new Map();
  await again.recover(map);
  t.equal(map.size, 650);
});

t.test('a replay that begins or ends within a transaction shows all of it, or nothing', async (t) => {
  const wal = await openLog(t, SMALL);
  const small = wal.transaction();
  for (const key of ['a', 'b', 'c']) await small.put(key, '');
  const whole = await small.commit();
  const large = wal.transaction();
  fillLarge(large);
  const parts = await large.commit();
  const last = await wal.put('z', '');
  const counts = async (from: number, to: number) => (await replay(wal, { from, to })).length;
  t.equal(await counts(whole, last), 604, 'from the last operation of a frame on');
  t.equal(await counts(1, whole - 1), 0, 'up to the last but one');
  t.equal(await counts(whole + 1, last), 601);
  t.equal(await counts(parts, last), 601, 'from the commit on, of which the operations lie before');
  t.equal(await counts(parts, parts), 600);
  t.equal(await counts(whole + 1, parts - 1), 0, 'up to before the commit');
  t.equal(await counts(parts + 1, last), 1);
  await wal.checkpoint(parts - 1);
  t.equal((await replay(wal)).length, 601, 'a checkpoint in the middle of it');
});

t.test('prepared ones survive a restart, in doubt, and are committed or aborted by id', async (t) => {
  const directory = temporaryDirectory(t);
  let wal = await openLog(t, SMALL, directory);
  const first = wal.transaction();
  await first.put('a', '1');
  await first.delete('b');
  await first.prepare();
  const second = wal.transaction();
  const large = fillLarge(second);
  await second.prepare({ durability: 'os' });
  const third = wal.transaction();
  await third.put('c', '3');
  await third.prepare();
  t.same(await prepared(wal), { [first.id]: ['a=1', '-b'], [second.id]: large, [third.id]: ['c=3'] });
  t.equal(wal.stats().preparedTransactions, 3);
  t.equal(new Set([first.id, second.id, third.id]).size, 3);
  await wal.close();
  await failsWith(t, 'ERR_WAL_CLOSED', first.commit());
  await failsWith(t, 'ERR_WAL_CLOSED', wal.commitPrepared(first.id));
  await failsWith(t, 'ERR_WAL_CLOSED', wal.preparedTransactions());

  wal = await openLog(t, SMALL, directory);
  t.same(await prepared(wal), { [first.id]: ['a=1', '-b'], [second.id]: large, [third.id]: ['c=3'] });
  t.same(await replay(wal), [], 'not replayed');
  await wal.abortPrepared(first.id);
  const lsn = await wal.commitPrepared(second.id);
  await wal.close();

  wal = await openLog(t, SMALL, directory);
  t.same(await prepared(wal), { [third.id]: ['c=3'] });
  t.same(
    await replay(wal),
    large.map((operation) => [lsn, operation]),
  );
  await failsWith(t, 'ERR_WAL_TRANSACTION', wal.commitPrepared(first.id));
  await failsWith(t, 'ERR_WAL_TRANSACTION', wal.abortPrepared(second.id));
});

t.test('of many who decide about one transaction at once, one is heard', async (t) => {
  const wal = await openLog(t);
  for (let round = 0; round < 10; round++) {
    const tx = wal.transaction();
    await tx.put(`${round}`, '');
    await tx.prepare();
    const before = (await replay(wal)).length;
    const decisions = [wal.commitPrepared(tx.id), wal.abortPrepared(tx.id), tx.commit(), wal.abortPrepared(tx.id)];
    if (round % 2 === 0) decisions.reverse();
    const results = await Promise.allSettled(decisions);
    const heard = results.findIndex(({ status }) => status === 'fulfilled');
    t.equal(results.filter(({ status }) => status === 'fulfilled').length, 1, 'one');
    for (const result of results) if (result.status === 'rejected') t.equal(result.reason.code, 'ERR_WAL_TRANSACTION');
    const committed = round % 2 === 0 ? heard === 1 || heard === 3 : heard === 0 || heard === 2;
    t.equal((await replay(wal)).length - before, committed ? 1 : 0);
  }
  t.equal((await wal.preparedTransactions()).length, 0);
});

t.test('clean-up keeps what is in doubt, and a commit of it until the checkpoint is past', async (t) => {
  const wal = await openLog(t, { ...SMALL, autoCleanup: false });
  const tx = wal.transaction();
  await tx.put('a', '1');
  await tx.prepare();
  for (let i = 0; i < 3; i++) {
    await wal.put(`plain ${i}`, '');
    await wal.rotate();
  }
  await wal.checkpoint(wal.watermark('disk'));
  t.same(await wal.cleanup(), { segments: 0, bytes: 0 });
  const lsn = await tx.commit();
  await wal.checkpoint(lsn - 1);
  t.same(await wal.cleanup(), { segments: 0, bytes: 0 });
  t.same(await replay(wal), [[lsn, 'a=1']], 'its operation lies before the checkpoint');
  await wal.checkpoint(lsn);
  t.ok((await wal.cleanup()).segments > 0);
  t.same(await replay(wal), []);
  await failsWith(t, 'ERR_WAL_TRUNCATED', collect(wal.replay({ from: lsn })), 'its operation was cleaned up');
});

t.test('no more than a thousand are in doubt at once', async (t) => {
  const wal = await openLog(t);
  const prepare = async () => {
    const tx = wal.transaction();
    await tx.put('a', '');
    await tx.prepare();
    return tx;
  };
  const all = await Promise.all(numbers(1, 1000).map(prepare));
  const tx = wal.transaction();
  await tx.put('b', '');
  await failsWith(t, 'ERR_WAL_TRANSACTION', tx.prepare());
  await all[0].abort();
  await tx.prepare();
  await wal.close();
  const again = await openLog(t, {}, wal.directory);
  t.equal(again.stats().preparedTransactions, 1000);
});

t.test('a signal takes a transaction back until it is decided, and it can be committed again', async (t) => {
  const wal = await openLog(t, SMALL);
  const tx = wal.transaction();
  const operations = fillLarge(tx);
  const reason = new Error('enough');
  await t.rejects(tx.commit({ signal: AbortSignal.abort(reason) }), reason);
  t.equal(wal.watermark('memory'), 0);
  const controller = new AbortController();
  const committing = tx.commit({ signal: controller.signal });
  wal.waitFor(1, 'memory').then(
    () => controller.abort(reason),
    () => {},
  );
  await t.rejects(committing, reason);
  await wal.sync();
  const left = wal.watermark('os');
  t.ok(left > 0 && left < 600, `${left} operations are in the log, of nothing that was committed`);
  t.same(await replay(wal), []);
  const lsn = await tx.commit();
  t.same(
    await replay(wal),
    operations.map((operation) => [lsn, operation]),
  );
  t.equal((await replay(wal, { from: lsn })).length, 600, 'also when it is read from where it lies');
});

t.test('a commit that was begun before a close is finished', async (t) => {
  const wal = await openLog(t, SMALL);
  const tx = wal.transaction();
  const operations = fillLarge(tx);
  const [lsn] = await Promise.all([tx.commit(), wal.close()]);
  const again = await openLog(t, SMALL, wal.directory);
  t.same(
    await replay(again),
    operations.map((operation) => [lsn, operation]),
  );
  const late = again.transaction();
  await late.put('a', '1');
  await again.close();
  await failsWith(t, 'ERR_WAL_CLOSED', late.commit());
  await late.abort();
  await failsWith(t, 'ERR_WAL_CLOSED', () => again.transaction());
});

t.test('a reader beside the writer sees what is committed and what is in doubt', async (t) => {
  const wal = await openLog(t, SMALL);
  const tx = wal.transaction();
  const large = fillLarge(tx);
  await tx.commit();
  const doubtful = wal.transaction();
  await doubtful.put('a', '1');
  await doubtful.prepare();
  const reader = await WriteAheadLog.open(wal.directory, { readOnly: true });
  t.teardown(() => reader.close());
  t.equal((await replay(reader)).length, large.length);
  t.same(await prepared(reader), { [doubtful.id]: ['a=1'] });
  await failsWith(t, 'ERR_WAL_READ_ONLY', () => reader.transaction());
  await failsWith(t, 'ERR_WAL_READ_ONLY', reader.commitPrepared(doubtful.id));
  await failsWith(t, 'ERR_WAL_READ_ONLY', reader.abortPrepared(doubtful.id));
  const lsn = await doubtful.commit();
  t.same((await replay(reader)).at(-1), [lsn, 'a=1'], 'and what is committed since');
});

t.test('a cut takes with it what was prepared or committed behind it', async (t) => {
  const wal = await openLog(t, SMALL);
  const early = wal.transaction();
  await early.put('early', '');
  await early.prepare();
  const committed = wal.transaction();
  await committed.put('committed', '');
  await committed.prepare();
  const keep = await wal.put('keep', '');
  const lsn = await committed.commit();
  const whole = wal.transaction();
  await whole.put('one', '');
  await whole.put('two', '');
  const wholeLsn = await whole.commit();
  const late = wal.transaction();
  await late.put('late', '');
  await late.prepare();
  await wal.truncateAfter(wholeLsn - 1);
  t.same(await replay(wal), [
    [keep, 'keep='],
    [lsn, 'committed='],
  ]);
  t.same(await prepared(wal), { [early.id]: ['early='] });
  await failsWith(t, 'ERR_WAL_TRANSACTION', late.commit());
  await wal.truncateAfter(keep);
  t.same(await replay(wal), [[keep, 'keep=']], 'a commit that was cut off counts as none');
  t.same(await prepared(wal), { [early.id]: ['early='] });
  const next = await early.commit();
  await wal.close();
  const again = await openLog(t, SMALL, wal.directory);
  t.same(await replay(again), [
    [keep, 'keep='],
    [next, 'early='],
  ]);
});

t.test('a cut while a transaction is written in parts ends that transaction', async (t) => {
  const wal = await openLog(t, SMALL);
  const keep = await wal.put('keep', '');
  const tx = wal.transaction();
  const operations = fillLarge(tx);
  const committing = tx.commit();
  await wal.waitFor(keep + 1, 'os');
  const cutting = wal.truncateAfter(keep);
  await failsWith(t, 'ERR_WAL_TRANSACTION', committing);
  await cutting;
  t.same(await replay(wal), [[keep, 'keep=']]);
  const lsn = await tx.commit();
  t.same(
    (await replay(wal)).slice(1),
    operations.map((operation) => [lsn, operation]),
  );
});

/** Changes a byte in the first frame of type 7 that holds records, behind its prefix. */
function damagePart(t: Test, directory: string): void {
  for (const name of segmentFiles(directory)) {
    const file = path.join(directory, name);
    const bytes = fs.readFileSync(file);
    const at = bytes.indexOf('RWLF\x07', 4096);
    if (at < 0) continue;
    bytes[at + 64 + 40] ^= 1;
    fs.writeFileSync(file, bytes);
    return;
  }
  t.fail('there is no such frame');
}

t.test('of damaged transactions a salvage shows nothing, and says so', async (t) => {
  const wal = await openLog(t, SMALL);
  const tx = wal.transaction();
  fillLarge(tx);
  await tx.prepare();
  await wal.rotate();
  const lsn = await wal.put('plain', '');
  const doubtful = wal.transaction();
  await doubtful.put('a', '1');
  await doubtful.prepare();
  await wal.close();
  damagePart(t, wal.directory);
  t.equal((await verifyLog(wal.directory)).verdict, 'corrupt');
  const broken = await openLog(t, SMALL, wal.directory);
  await failsWith(t, 'ERR_WAL_CORRUPT', broken.preparedTransactions());
  await broken.commitPrepared(tx.id);
  await failsWith(t, 'ERR_WAL_CORRUPT', collect(broken.replay({ from: lsn })));
  await broken.close();
  const salvage = await WriteAheadLog.open(wal.directory, { recoveryMode: 'salvage' });
  t.teardown(() => salvage.close());
  t.same(await replay(salvage), [[lsn, 'plain=']]);
  t.same(await prepared(salvage), { [doubtful.id]: ['a=1'] });
});

t.test('one in doubt of which a repair gave up operations is listed as lost', async (t) => {
  const wal = await openLog(t, SMALL);
  const tx = wal.transaction();
  await tx.put('a', '1'.repeat(100));
  await tx.prepare();
  await wal.put('plain', '');
  await wal.close();
  damagePart(t, wal.directory);
  const salvage = await WriteAheadLog.open(wal.directory, { recoveryMode: 'salvage' });
  t.teardown(() => salvage.close());
  t.same(await salvage.preparedTransactions(), [{ id: tx.id, operations: [], lost: true }]);
});

t.test(
  'point-in-time keeps in doubt what was prepared before the damage, and loses what was decided behind it',
  async (t) => {
    const wal = await openLog(t, SMALL);
    const early = wal.transaction();
    await early.put('early', '');
    await early.prepare();
    const doubtful = wal.transaction();
    await doubtful.put('doubtful', '');
    await doubtful.prepare();
    const lsn = await wal.put('plain', '');
    await wal.rotate();
    const late = wal.transaction();
    await late.put('late', 'x'.repeat(100));
    await late.prepare();
    await early.commit();
    await wal.close();
    const file = path.join(wal.directory, segmentFiles(wal.directory)[1]);
    const bytes = fs.readFileSync(file);
    bytes[bytes.indexOf('RWLF\x07', 4096) + 64 + 40] ^= 1;
    fs.writeFileSync(file, bytes);
    const cut = await openLog(t, { ...SMALL, recoveryMode: 'point-in-time' }, wal.directory);
    t.equal(cut.recovery.lastLsn, lsn);
    t.same(await prepared(cut), { [doubtful.id]: ['doubtful='] });
    t.same(await replay(cut), [[lsn, 'plain=']]);
  },
);

t.test('the tools know transactions', async (t) => {
  const wal = await openLog(t);
  const tx = wal.transaction();
  await tx.put('a', '1');
  await tx.commit();
  const doubtful = wal.transaction();
  await doubtful.put('b', '2');
  await doubtful.prepare();
  await wal.close();
  const { directory } = wal;
  const dump = await cli(['dump', directory]);
  t.match(
    dump.stdout
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line)),
    [
      { lsn: 1, kind: 'put', key: 'a', value: '1', transaction: tx.id },
      { lsn: 2, kind: 'put', key: 'b', value: '2', transaction: doubtful.id },
    ],
  );
  const inspect = JSON.parse((await cli(['inspect', directory, '--json'])).stdout);
  t.same(inspect.transactions, [{ id: doubtful.id, firstLsn: 2, operations: 1 }]);
  t.match((await cli(['inspect', directory])).stdout, new RegExp(`1 transaction in doubt[\\s\\S]*${doubtful.id}`));
  t.equal((await cli(['verify', directory])).code, 0);
});

t.test('a search by time finds the beginning of a transaction', async (t) => {
  const wal = await openLog(t);
  await wal.put('a', '');
  const { timestamp } = await wal.get(1);
  while (Date.now() <= timestamp) await new Promise((resolve) => setTimeout(resolve, 1));
  const tx = wal.transaction();
  await tx.put('b', '');
  await tx.put('c', '');
  await tx.commit();
  const found = await collect(wal.read({ from: new Date(timestamp + 1) }));
  t.same(
    found.map(({ lsn }) => lsn),
    [2, 3],
  );
});

t.test('a replay waits for a handler that takes its time, also within a transaction', async (t) => {
  const wal = await openLog(t, SMALL);
  const small = wal.transaction();
  for (const key of ['a', 'b']) await small.put(key, '');
  await small.commit();
  const large = wal.transaction();
  const operations = fillLarge(large);
  await large.commit({ signal: new AbortController().signal });
  let atOnce = 0;
  const seen: string[] = [];
  const count = await wal.replay(async (op) => {
    if (++atOnce > 1) t.fail('two at once');
    await null;
    seen.push(shown(op));
    atOnce--;
  });
  t.same(seen, ['a=', 'b=', ...operations]);
  t.equal(count, seen.length);
  const failed = new Error('no more');
  t.equal(await failure(wal.replay(() => Promise.reject(failed))), failed);
});

t.test('a decision that is called off before it is made leaves the transaction in doubt', async (t) => {
  const wal = await openLog(t);
  const tx = wal.transaction();
  await tx.put('a', '1');
  await tx.prepare();
  const reason = new Error('enough');
  const signal = AbortSignal.abort(reason);
  t.equal(await failure(wal.commitPrepared(tx.id, { signal })), reason);
  t.equal(await failure(wal.abortPrepared(tx.id, { signal })), reason);
  t.same(await prepared(wal), { [tx.id]: ['a=1'] });
  await wal.commitPrepared(tx.id, { signal: new AbortController().signal });
  t.same(
    (await replay(wal)).map(([, operation]) => operation),
    ['a=1'],
  );
});

t.test('a clear counts at its commit, and a record that is no operation is none in a transaction either', async (t) => {
  const log = new KeyLog();
  log.write(keyPut('a', '1'));
  const id = log.begin();
  log.writePart(id, clear(), keyPut('b', '2'), data('opaque'));
  log.write(keyPut('c', '3'));
  log.end(id, 'commit');
  t.same(
    (await log.replay(1)).map(({ lsn, op }) => [lsn, shown(op)]),
    [
      [1, 'a=1'],
      [5, 'c=3'],
      [6, 'clear'],
      [6, 'b=2'],
    ],
  );
});
