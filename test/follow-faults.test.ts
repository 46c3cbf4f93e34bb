import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { type WalError, type WalRecord, WriteAheadLog } from 'ringwal';
import t from 'tap';
import {
  collect,
  failsWith,
  failure,
  numbers,
  openLog,
  payloads,
  segmentFiles,
  startChild,
  temporaryDirectory,
  text,
} from './helpers.js';

const SMALL = { segmentBytes: 65536, autoCleanup: false };

/** Payloads that tell their number, and are too large for many to share a segment. */
function large(first: number, last: number, name = 'record'): string[] {
  return numbers(first, last).map((i) => `${name} ${i} ${'x'.repeat(5000)}`);
}

function short(records: WalRecord[]): string[] {
  return payloads(records).map((payload) => payload.replace(/ x+$/, ''));
}

async function appendEach(wal: WriteAheadLog, all: string[]): Promise<void> {
  for (const payload of all) await wal.append(payload);
}

function flip(directory: string, name: string, offset: number): void {
  const fd = fs.openSync(path.join(directory, name), 'r+');
  const byte = Buffer.alloc(1);
  fs.readSync(fd, byte, 0, 1, offset);
  byte[0] ^= 0x40;
  fs.writeSync(fd, byte, 0, 1, offset);
  fs.closeSync(fd);
}

t.test('damage met in the middle of a read ends it with its place, and the log goes on', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, SMALL, directory);
  await appendEach(wal, large(1, 40));
  const [first, second] = segmentFiles(directory);
  const damaged = fs.readFileSync(path.join(directory, second)).indexOf('record 20 ');
  t.ok(damaged > 0, 'record 20 is in the second segment');
  flip(directory, second, damaged + 100);

  for (const follow of [false, true]) {
    const seen: number[] = [];
    const error = await failure(async () => {
      for await (const { lsn } of wal.read({ follow })) seen.push(lsn);
    });
    t.match(error, { code: 'ERR_WAL_CORRUPT', segment: second, lsn: 20 }, `follow: ${follow}`);
    const { offset } = error as WalError;
    t.ok(offset !== undefined && offset <= damaged && damaged - offset < 200, 'its frame');
    t.same(seen, numbers(1, 19), 'what is before it was delivered');
  }
  await failsWith(t, 'ERR_WAL_CORRUPT', wal.get(20));
  t.equal((await wal.get(19)).lsn, 19);
  t.same(
    short(await collect(wal.read({ to: 3 }))),
    large(1, 3).map((payload) => payload.replace(/ x+$/, '')),
  );
  const subscription = await wal.subscribe('behind it', { from: 19 });
  await failsWith(t, 'ERR_WAL_CORRUPT', collect(subscription));
  t.equal(await wal.append('it goes on'), 41);
  t.equal(text((await wal.get(41)).payload), 'it goes on');
  t.ok(first < second);
});

t.test('a segment without an index that holds reads as before: it is only a hint', async (t) => {
  for (const damage of ['a byte of the index', 'the footer', 'the whole seal']) {
    const directory = temporaryDirectory(t);
    const wal = await WriteAheadLog.open(directory, { segmentBytes: 1024 * 1024, autoCleanup: false });
    for (let i = 0; i < 3000; i += 100) await wal.appendMany(large(i + 1, i + 100).map((one) => one.slice(0, 600)));
    await wal.close();
    const [first] = segmentFiles(directory);
    const end = fs.statSync(path.join(directory, first)).size;
    const sealAt = Number(fs.readFileSync(path.join(directory, first)).readBigUInt64LE(end - 16));
    if (damage === 'the footer') flip(directory, first, end - 16);
    else if (damage === 'a byte of the index') flip(directory, first, end - 30);
    else for (let at = sealAt; at < end; at++) flip(directory, first, at);
    const again = await openLog(t, { autoCleanup: false }, directory);
    t.ok(again.stats().segments > 1);
    for (const lsn of [1, 2, 777, 1400, 2999]) {
      t.equal(text((await again.get(lsn)).payload).split(' ')[1], String(lsn), `${damage}: LSN ${lsn}`);
    }
    const some = await collect(again.read({ from: 700, to: 705 }));
    t.same(
      some.map(({ lsn }) => lsn),
      numbers(700, 705),
    );
  }
});

t.test('a follower that keeps up goes through rotation, clean-up and recycling', async (t) => {
  const wal = await openLog(t, { segmentBytes: 65536, autoCleanup: true });
  const seen: string[] = [];
  let behind = 0;
  const following = (async () => {
    for await (const { lsn, payload } of wal.read({ follow: true, to: 400 })) {
      seen.push(text(payload).replace(/ x+$/, ''));
      // Everything that it has seen may go, the segment in which it stands included.
      if (lsn % 10 === 0) await wal.checkpoint(lsn);
      behind = Math.max(behind, wal.stats().firstLsn);
    }
  })();
  await appendEach(wal, large(1, 400));
  await following;
  t.same(
    seen,
    numbers(1, 400).map((i) => `record ${i}`),
  );
  t.ok(behind > 100, `clean-up was at LSN ${behind} while it read`);
});

t.test('a follower at the very end of a segment that is cleaned up goes on in the next', async (t) => {
  const wal = await openLog(t, SMALL);
  await wal.appendMany(['a', 'b']);
  const iterator = wal.read({ follow: true })[Symbol.asyncIterator]();
  t.equal((await iterator.next()).value?.lsn, 1);
  t.equal((await iterator.next()).value?.lsn, 2);
  const next = iterator.next();
  await wal.rotate();
  await wal.checkpoint(2);
  t.equal((await wal.cleanup()).segments, 1);
  await wal.append('c');
  t.equal(text((await next).value?.payload), 'c');
  await iterator.return?.();
});

t.test('a follower slower than clean-up is told so, and never gets a wrong record', async (t) => {
  const wal = await openLog(t, SMALL);
  await appendEach(wal, large(1, 30));
  const iterator = wal.read({ follow: true })[Symbol.asyncIterator]();
  const seen: WalRecord[] = [(await iterator.next()).value];
  await appendEach(wal, large(31, 300));
  await wal.checkpoint(290);
  t.ok((await wal.cleanup()).segments > 5);
  // Reuses what can be reused.
  await appendEach(wal, large(301, 360));
  const error = await failure(async () => {
    for (let result = await iterator.next(); !result.done; result = await iterator.next()) seen.push(result.value);
  });
  t.match(error, { code: 'ERR_WAL_TRUNCATED', lsn: seen.length + 1 });
  t.same(
    short(seen),
    seen.map((_, i) => `record ${i + 1}`),
  );
  t.ok(seen.length < 290);
  await failsWith(t, 'ERR_WAL_TRUNCATED', wal.get(1));
  await failsWith(t, 'ERR_WAL_TRUNCATED', collect(wal.read({ from: 1, follow: true })));
});

t.test('clean-up waits for the slowest subscription, and several instances go at their own speeds', async (t) => {
  const wal = await openLog(t, SMALL);
  const slow = await wal.subscribe('slow');
  const quick = await wal.subscribe('quick');
  await appendEach(wal, large(1, 100));
  const drain = async (subscription: typeof slow, from: number, to: number) => {
    const lsns: number[] = [];
    for await (const { lsn } of subscription) {
      lsns.push(lsn);
      await subscription.ack(lsn);
      if (lsn === to) break;
    }
    t.same(lsns, numbers(from, to), `${subscription.name} to ${to}`);
  };
  await drain(quick, 1, 100);
  await wal.checkpoint(100);
  await wal.cleanup();
  t.equal(wal.stats().firstLsn, 1, 'all of it is kept for the slow one');
  await drain(slow, 1, 50);
  await wal.cleanup();
  const { firstLsn } = wal.stats();
  t.ok(firstLsn > 20 && firstLsn <= 51, `then it begins at ${firstLsn}`);
  await drain(slow, 51, 100);
  await wal.cleanup();
  t.ok(wal.stats().firstLsn > firstLsn);
});

t.test('a reader in another process follows through rotations, clean-up and recycling', async (t) => {
  for (const level of ['os', 'disk']) {
    const directory = temporaryDirectory(t);
    const wal = await openLog(t, { ...SMALL, flushIntervalMs: 50 }, directory);
    const body = (i: number) => `${level}-${i}-${'y'.repeat(400)}`;
    const payload = (i: number) => `${createHash('sha256').update(body(i)).digest('hex')} ${body(i)}`;
    await wal.append(payload(1));
    const reader = startChild(t, 'follower', [directory, '3000', level]);
    await reader.message<{ ready: boolean }>((message) => message.ready);
    let acknowledged = 0;
    for (let i = 2; i <= 3000; i += 10) {
      const last = Math.min(3000, i + 9);
      await wal.appendMany(numbers(i, last).map(payload), { durability: last % 3 === 0 ? 'os' : 'disk' });
      if (last - acknowledged < 600) continue;
      // Only behind the reader, which is then still in the files that go, or at their end.
      const { at } = await reader.message<{ at: number }>((message) => message.at > acknowledged);
      acknowledged = at;
      await wal.checkpoint(at);
      await wal.cleanup();
    }
    const { records, wrong, code } = await reader.message<{ records: number; wrong: number; code: string }>(
      (message) => message.records !== undefined,
    );
    t.same({ records, wrong, code }, { records: 3000, wrong: 0, code: '' }, level);
    t.ok(wal.stats().firstLsn > 1000, 'files went meanwhile');
    await reader.ended;
  }
});

t.test('a read-only log that was idle while its files went finds its way again', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, SMALL, directory);
  await appendEach(wal, large(1, 5));
  const reader = await WriteAheadLog.open(directory, { readOnly: true });
  t.teardown(() => reader.close());
  t.equal((await collect(reader.read())).length, 5);
  await appendEach(wal, large(6, 100));
  await wal.checkpoint(95);
  await wal.cleanup();
  const found = await collect(reader.read());
  t.equal(found.at(-1)?.lsn, 100);
  t.ok(found[0].lsn > 50);
  await failsWith(t, 'ERR_WAL_TRUNCATED', reader.get(2));
  t.equal((await reader.get(99)).lsn, 99);
});

t.test('a read-only log sees a cut: no record that was cut off, and the new ones', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, SMALL, directory);
  await appendEach(wal, large(1, 30, 'old'));
  const reader = await WriteAheadLog.open(directory, { readOnly: true });
  t.teardown(() => reader.close());
  t.equal((await collect(reader.read())).length, 30);
  const past = failsWith(t, 'ERR_WAL_TRUNCATED', collect(reader.read({ from: 25, follow: true })));
  const before = reader.read({ to: 15, follow: true })[Symbol.asyncIterator]();
  t.equal((await before.next()).value?.lsn, 1);
  await wal.truncateAfter(12);
  await appendEach(wal, large(13, 15, 'new'));
  await past;
  const expected = [...numbers(1, 12).map((i) => `old ${i}`), ...numbers(13, 15).map((i) => `new ${i}`)];
  t.same(short(await collect(reader.read())), expected);
  t.same(short(await collect(reader.read({ follow: true, to: 15 }))), expected);
  // It may have read ahead what was cut; if so it ends, and delivers nothing of it.
  const rest: WalRecord[] = [];
  const error = await failure(async () => {
    for (let next = await before.next(); !next.done; next = await before.next()) rest.push(next.value);
    throw new Error('it came to its end');
  });
  t.same(short(rest), expected.slice(1, rest.length + 1));
  if (rest.length < 14) t.match(error, { code: 'ERR_WAL_TRUNCATED' });
});

t.test('a cut ends the followers that are past it, at once; the others get the new records', async (t) => {
  const wal = await openLog(t, SMALL);
  await appendEach(wal, large(1, 20, 'old'));
  const past = failsWith(t, 'ERR_WAL_TRUNCATED', collect(wal.read({ from: 18, follow: true })), 'one that was past it');
  const at: WalRecord[] = [];
  const standing = (async () => {
    for await (const record of wal.read({ from: 10, to: 14, follow: true })) at.push(record);
  })();
  const slow = wal.read({ follow: true })[Symbol.asyncIterator]();
  t.equal((await slow.next()).value?.lsn, 1);
  const next = wal.read({ from: 21, follow: true })[Symbol.asyncIterator]().next();
  const ahead = failsWith(t, 'ERR_WAL_TRUNCATED', next, 'one that waited behind the end');
  // Both have delivered what there is, and wait.
  while (at.length < 5) await new Promise(setImmediate);
  await standing;
  const waiting = collect(wal.read({ from: 13, to: 14, follow: true, level: 'os' }));
  t.equal((await waiting).length, 2);

  await wal.truncateAfter(12);
  await Promise.all([past, ahead]);
  const fresh = collect(wal.read({ from: 13, to: 15, follow: true }));
  await appendEach(wal, large(13, 20, 'new'));
  t.same(short(await fresh), ['new 13', 'new 14', 'new 15']);

  const seen: WalRecord[] = [];
  const outcome = await failure(async () => {
    for (let next = await slow.next(); !next.done; next = await slow.next()) {
      seen.push(next.value);
      if (next.value.lsn === 20) throw new Error('all of it');
    }
  });
  t.ok(
    short(seen).every((payload, i) => payload === `${i + 2 <= 12 ? 'old' : 'new'} ${i + 2}`),
    short(seen).join(),
  );
  if (seen.length < 19) t.match(outcome, { code: 'ERR_WAL_TRUNCATED' }, 'it had read ahead');
  await slow.return?.();
});

t.test('a follower that waits at the place of a cut goes on there with the new records', async (t) => {
  const wal = await openLog(t, SMALL);
  await appendEach(wal, large(1, 12, 'old'));
  const iterator = wal.read({ from: 12, follow: true })[Symbol.asyncIterator]();
  t.equal((await iterator.next()).value?.lsn, 12);
  const thirteenth = iterator.next();
  // Two cuts, of which neither takes what it has seen.
  await wal.truncateAfter(12);
  await wal.append('first 13');
  t.equal(text((await thirteenth).value?.payload), 'first 13');
  const next = iterator.next();
  await wal.truncateAfter(13);
  await wal.append('14');
  t.equal(text((await next).value?.payload), '14');
  await iterator.return?.();
});

t.test('a subscription before a cut is given the new records, not those that it had read ahead', async (t) => {
  const wal = await openLog(t);
  await wal.appendMany(numbers(1, 20).map((i) => `old ${i}`));
  const subscription = await wal.subscribe('reader');
  const iterator = subscription[Symbol.asyncIterator]();
  const seen: string[] = [];
  const take = async () => {
    const { value } = await iterator.next();
    seen.push(text(value?.payload));
    await subscription.ack(value?.lsn ?? 0);
  };
  for (let i = 1; i <= 10; i++) await take();
  await wal.truncateAfter(12);
  await wal.appendMany(numbers(13, 16).map((i) => `new ${i}`));
  for (let i = 11; i <= 16; i++) await take();
  t.same(seen, [...numbers(1, 12).map((i) => `old ${i}`), ...numbers(13, 16).map((i) => `new ${i}`)]);
  t.match(wal.stats().subscriptions, [{ acknowledged: 16, lag: 0 }]);
  // One that waits for more, and one that is past the next cut.
  const waiting = failsWith(t, 'ERR_WAL_TRUNCATED', iterator.next());
  await wal.truncateAfter(14);
  await waiting;
  t.equal((await wal.subscribe('reader')).acknowledged, 14);
});

t.test('records of one millisecond are found or left out together by a time', async (t) => {
  const wal = await openLog(t);
  const { timestamp } = await wal.appendMany(numbers(1, 50).map(String)).then(() => wal.get(1));
  await wal.appendMany(numbers(51, 100).map(String));
  const all = await collect(wal.read());
  for (const time of new Set(all.map((record) => record.timestamp))) {
    const lsns = (records: WalRecord[]) => records.map(({ lsn }) => lsn);
    const from = await collect(wal.read({ from: new Date(time) }));
    t.same(lsns(from), lsns(all.filter((record) => record.timestamp >= time)));
    const to = await collect(wal.read({ to: new Date(time) }));
    t.same(lsns(to), lsns(all.filter((record) => record.timestamp <= time)));
    const both = await collect(wal.read({ from: new Date(time), to: new Date(time) }));
    t.same(lsns(both), lsns(all.filter((record) => record.timestamp === time)));
  }
  t.equal(all[49].timestamp, timestamp, 'a batch has one time');
  t.same(await collect(wal.read({ from: new Date(timestamp), to: new Date(timestamp - 1) })), []);
});

t.test('get finds each record while segments are sealed under it', async (t) => {
  const wal = await openLog(t, SMALL);
  await wal.append('record 1');
  let appending = true;
  let looks = 0;
  const looking = (async () => {
    for (let i = 0; appending; i++) {
      const last = wal.watermark('os');
      // The newest, which is where the rotation is, and any other.
      const lsn = i % 2 === 0 ? last : 1 + ((i * 7919) % last);
      const found = await wal.get(lsn);
      if (found.lsn !== lsn || !text(found.payload).startsWith(`record ${lsn}`)) t.fail(`LSN ${lsn}`);
      looks++;
    }
  })();
  for (let i = 2; i <= 1500 || looks <= 20; i += 25) {
    await wal.appendMany(numbers(i, i + 24).map((n) => `record ${n} ${'x'.repeat(500)}`));
  }
  appending = false;
  await looking;
  t.ok(wal.stats().segments > 8);
});

t.test('a loop over a subscription ends when either is closed, whatever it is doing', async (t) => {
  const wal = await WriteAheadLog.open(temporaryDirectory(t));
  await wal.appendMany(numbers(1, 100).map(String));
  const closedBetween = await wal.subscribe('closed between');
  const seen: number[] = [];
  for await (const { lsn } of closedBetween) {
    seen.push(lsn);
    if (lsn === 3) await closedBetween.close();
  }
  t.same(seen, [1, 2, 3], 'nothing more is delivered once it is closed');
  await failsWith(t, 'ERR_WAL_CLOSED', closedBetween.ack(3));

  const closedWaiting = await wal.subscribe('closed waiting', { from: 'end' });
  const waiting = collect(closedWaiting);
  await closedWaiting.close();
  t.same(await waiting, []);

  const left = await wal.subscribe('left', { from: 'end' });
  const iterator = left[Symbol.asyncIterator]();
  const next = iterator.next();
  await iterator.return?.();
  t.same(await next, { done: true, value: undefined });
  t.same(await iterator.next(), { done: true, value: undefined }, 'and stays so');

  const acknowledging = await wal.subscribe('acknowledging');
  const records = acknowledging[Symbol.asyncIterator]();
  await records.next();
  const [acknowledged] = await Promise.allSettled([acknowledging.ack(1), acknowledging.close()]);
  t.equal(acknowledged.status, 'fulfilled', 'what was asked for before it was closed');
  t.equal((await wal.subscribe('acknowledging')).acknowledged, 1);

  const open = collect(await wal.subscribe('open', { from: 'end' }));
  const plain = collect(wal.read({ from: 101, follow: true }));
  const late = await wal.subscribe('late');
  await late[Symbol.asyncIterator]().next();
  const close = wal.close();
  await failsWith(t, 'ERR_WAL_CLOSED', late.ack(1));
  await close;
  t.same(await open, []);
  t.same(await plain, []);
});

t.test('a name that is being forgotten cannot be subscribed to meanwhile', async (t) => {
  const wal = await openLog(t);
  await wal.append('a');
  await (await wal.subscribe('x')).close();
  const forgetting = wal.unsubscribe('x');
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', wal.subscribe('x'));
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', wal.unsubscribe('x'));
  await forgetting;
  t.same(wal.stats().subscriptions, []);
  t.equal((await wal.subscribe('x')).acknowledged, 0);
});
