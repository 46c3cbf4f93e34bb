import { getEventListeners } from 'node:events';
import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { collect, failsWith, failure, nextEvent, numbers, openLog, payloads, temporaryDirectory } from './helpers.js';

/** A ring that a few of these records fill. */
const SMALL = { ringBytes: 65536, segmentBytes: 1024 * 1024 };
const KIB = 'x'.repeat(1000);

t.test('thousands of appends at once through a small ring: all resolve, in order', async (t) => {
  const wal = await openLog(t, SMALL);
  const order: number[] = [];
  const appends = numbers(1, 3000).map((i) =>
    wal.append(`${i} ${KIB}`, { durability: 'os' }).then((lsn) => {
      order.push(lsn);
      return lsn;
    }),
  );
  t.same(await Promise.all(appends), numbers(1, 3000));
  t.same(order, numbers(1, 3000));
  const records = await collect(wal.read());
  t.ok(records.every(({ payload }, i) => Buffer.from(payload).toString() === `${i + 1} ${KIB}`));
});

t.test('backpressure is told when appends begin to wait, drain when all found room', async (t) => {
  const wal = await openLog(t, SMALL);
  const told: string[] = [];
  wal.on('backpressure', ({ queueDepth }) => told.push(`backpressure ${queueDepth > 0}`));
  wal.on('drain', () => told.push('drain'));
  const appends = numbers(1, 500).map(() => wal.append(KIB));
  const { queueDepth, inFlight, ring } = wal.stats();
  t.ok(queueDepth > 0 && queueDepth < 500, 'some wait, some are in the ring');
  t.equal(inFlight, 500);
  t.ok(ring.used <= ring.bytes);
  t.equal(ring.bytes, 65536);
  await Promise.all(appends);
  t.equal(told[0], 'backpressure true');
  t.equal(told.at(-1), 'drain');
  t.ok(
    told.every((event, i) => event === (i % 2 === 0 ? 'backpressure true' : 'drain')),
    'they take turns',
  );
  t.match(wal.stats(), { queueDepth: 0, inFlight: 0 });
});

t.test('a producer that heeds backpressure never has more than a ring in flight', async (t) => {
  const wal = await openLog(t, SMALL);
  let full = false;
  wal.on('backpressure', () => {
    full = true;
  });
  wal.on('drain', () => {
    full = false;
  });
  let most = 0;
  const appends: Promise<number>[] = [];
  for (let i = 0; i < 1000; i++) {
    appends.push(wal.append(KIB, { durability: 'os' }));
    most = Math.max(most, wal.stats().inFlight);
    if (full) await nextEvent(wal, 'drain');
  }
  await Promise.all(appends);
  t.ok(most < 200, `${most} at once`);
});

t.test('batches wait in line with everything else', async (t) => {
  const wal = await openLog(t, SMALL);
  const work: Promise<unknown>[] = [];
  for (let i = 0; i < 60; i++) {
    work.push(wal.append(KIB, { durability: 'memory' }));
    work.push(wal.appendMany(numbers(1, 20).map(() => KIB)));
    work.push(wal.batch([{ type: 'put', key: `${i}`, value: KIB }]));
  }
  const results = await Promise.all(work);
  let next = 1;
  for (let i = 0; i < results.length; i += 3) {
    t.same(results.slice(i, i + 3), [
      next,
      { first: next + 1, last: next + 20 },
      { first: next + 21, last: next + 21 },
    ]);
    next += 22;
  }
});

t.test('records just under the largest size pass through the smallest ring', async (t) => {
  const wal = await openLog(t, SMALL);
  const sizes = numbers(1, 150).map((i) => (i * 7919) % 16385);
  await Promise.all(sizes.map((size, i) => wal.append(Buffer.alloc(size, i), { durability: 'os' })));
  const records = await collect(wal.read());
  t.same(
    records.map((record) => record.payload.length),
    sizes,
  );
});

t.test('an append that waits in line can be taken out of it: it is wholly absent, the others go on', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, SMALL, directory);
  const controller = new AbortController();
  const reason = new Error('not any more');
  const kept: Promise<unknown>[] = [];
  const aborted: Promise<unknown>[] = [];
  for (let i = 0; i < 300; i++) {
    // The first hundred fill the ring.
    const abortable = i >= 100 && i % 2 === 0;
    if (abortable) aborted.push(wal.append(`aborted ${KIB}`, { signal: controller.signal }));
    else kept.push(wal.append(`kept ${i} ${KIB}`));
  }
  aborted.push(wal.appendMany([`aborted ${KIB}`, 'aborted'], { signal: controller.signal }));
  aborted.push(wal.batch([{ type: 'put', key: 'aborted', value: 'aborted' }], { signal: controller.signal }));
  aborted.push(wal.clear({ signal: controller.signal }));
  kept.push(wal.append('kept: the last'));
  controller.abort(reason);
  for (const result of await Promise.allSettled(aborted)) t.match(result, { status: 'rejected', reason });
  t.same(await Promise.all(kept), numbers(1, kept.length), 'they took no LSN');
  await wal.close();
  const again = await openLog(t, {}, directory);
  const found = payloads(await collect(again.read()));
  t.equal(found.length, kept.length);
  t.notOk(found.some((payload) => payload.includes('aborted')));
});

t.test('an append aborted when it is in the ring rejects, and its record is whole', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, {}, directory);
  const controller = new AbortController();
  const append = wal.appendMany(['both', 'or none'], { signal: controller.signal });
  controller.abort();
  t.match(await failure(append), { name: 'AbortError' });
  t.equal(await wal.append('next'), 3);
  await wal.close();
  const again = await openLog(t, {}, directory);
  t.same(payloads(await collect(again.read())), ['both', 'or none', 'next']);
});

t.test('an abort after the append resolved changes nothing', async (t) => {
  const wal = await openLog(t);
  const controller = new AbortController();
  const { signal } = controller;
  t.equal(await wal.append('x', { signal }), 1);
  t.same(await wal.appendMany(['y', 'z'], { signal }), { first: 2, last: 3 });
  controller.abort();
  t.equal((await collect(wal.read())).length, 3);
});

t.test('a signal that was aborted before: nothing is written', async (t) => {
  const wal = await openLog(t);
  const reason = new Error('too late');
  const signal = AbortSignal.abort(reason);
  for (const work of [
    wal.append('x', { signal }),
    wal.appendMany(['x'], { signal }),
    wal.appendMany([], { signal }),
    wal.put('k', 'v', { signal }),
    wal.delete('k', { signal }),
    wal.clear({ signal }),
    wal.batch([{ type: 'del', key: 'k' }], { signal }),
  ]) {
    t.equal(await failure(work), reason);
  }
  t.equal(await wal.append('x'), 1);
});

t.test('one signal for thousands of appends is no leak: it has one listener', async (t) => {
  const wal = await openLog(t, SMALL);
  const { signal } = new AbortController();
  const warnings: Error[] = [];
  const warned = (warning: Error) => warnings.push(warning);
  process.on('warning', warned);
  t.teardown(() => process.off('warning', warned));
  for (let round = 0; round < 4; round++) {
    const appends = numbers(1, 250).map(() => wal.append(KIB, { signal }));
    const waiters = numbers(1, 20).map((lsn) => wal.waitFor(lsn, 'disk', { signal }));
    await Promise.all([...appends, ...waiters]);
  }
  t.equal(getEventListeners(signal, 'abort').length, 1);
  t.same(warnings, []);
});

t.test('close with a full line: everything that was accepted is written first', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, SMALL, directory);
  const appends = numbers(1, 400).map(() => wal.append(KIB, { durability: 'memory' }));
  const closed = wal.close();
  await failsWith(t, 'ERR_WAL_CLOSED', wal.append('late'));
  t.same(await Promise.all(appends), numbers(1, 400));
  await closed;
  const again = await openLog(t, {}, directory);
  t.match(again.recovery, { verdict: 'clean', lastLsn: 400 });
});

t.test('an open can be aborted, and the directory opens again', async (t) => {
  const directory = temporaryDirectory(t);
  const reason = new Error('not now');
  t.equal(await failure(WriteAheadLog.open(directory, { signal: AbortSignal.abort(reason) })), reason);
  const controller = new AbortController();
  const opening = WriteAheadLog.open(directory, { signal: controller.signal });
  controller.abort(reason);
  t.equal(await failure(opening), reason);
  const wal = await openLog(t, { signal: new AbortController().signal }, directory);
  t.equal(await wal.append('x'), 1);
});

t.test('a signal given to open has no say once the log is open', async (t) => {
  const controller = new AbortController();
  const wal = await openLog(t, { signal: controller.signal });
  controller.abort();
  t.equal(await wal.append('x'), 1);
});

t.test('reads and replays can be aborted', async (t) => {
  const wal = await openLog(t, { segmentBytes: 65536 });
  await wal.batch(numbers(1, 500).map((i) => ({ type: 'put', key: `${i}`, value: KIB }) as const));
  const reason = new Error('enough');
  const signal = AbortSignal.abort(reason);
  t.equal(await failure(collect(wal.read({ signal }))), reason);
  t.equal(await failure(wal.replay(() => {}, { signal })), reason);
  t.equal(await failure(wal.recover(new Map(), { signal })), reason);
  t.equal(await failure(collect(wal.replay({ signal }))), reason);
  const controller = new AbortController();
  let seen = 0;
  const reading = (async () => {
    for await (const batch of wal.read({ signal: controller.signal }).batches()) {
      seen += batch.length;
      controller.abort(reason);
    }
  })();
  t.equal(await failure(reading), reason);
  t.ok(seen > 0);
  t.equal((await collect(wal.read())).length, 500);
});
