import { type CommitEvent, type Durability, DurabilityLevel, type WriteAheadLog } from 'ringwal';
import t from 'tap';
import { collect, failsWith, failure, nextEvent, numbers, openLog, temporaryDirectory } from './helpers.js';

const LEVELS = ['memory', 'os', 'disk'] as const;

t.test('the names of the levels', async (t) => {
  t.same(DurabilityLevel, { Memory: 'memory', Os: 'os', Disk: 'disk', Strong: 'disk', Replicated: 'replicated' });
});

t.test('an append resolves when its level is reached, and the weaker levels are reached then too', async (t) => {
  const wal = await openLog(t, { flushIntervalMs: 0 });
  t.same(
    LEVELS.map((level) => wal.watermark(level)),
    [0, 0, 0],
  );
  for (const [i, durability] of [...LEVELS, ...LEVELS].entries()) {
    const lsn = await wal.append('x', { durability });
    t.equal(lsn, i + 1);
    const reached = LEVELS.slice(0, LEVELS.indexOf(durability) + 1);
    for (const level of reached) t.ok(wal.watermark(level) >= lsn, `${durability} implies ${level}`);
    t.ok(wal.watermark('memory') >= wal.watermark('os'));
    t.ok(wal.watermark('os') >= wal.watermark('disk'));
  }
});

t.test("a commit at 'disk' makes every earlier record durable as well", async (t) => {
  const wal = await openLog(t, { flushIntervalMs: 0 });
  const early = numbers(1, 50).map(() => wal.append('x', { durability: 'memory' }));
  const lsn = await wal.append('last', { durability: 'disk' });
  t.equal(lsn, 51);
  t.ok(wal.watermark('disk') >= 51);
  await Promise.all(early);
});

t.test('the durability of the log is the default of its appends', async (t) => {
  const wal = await openLog(t, { durability: 'os', flushIntervalMs: 0 });
  await wal.append('x');
  t.equal(wal.watermark('os'), 1);
  t.equal(wal.watermark('disk'), 0);
  await wal.append('x', { durability: 'disk' });
  t.equal(wal.watermark('disk'), 2);
});

t.test("'replicated' is refused, and the message says that no replica is configured", async (t) => {
  const wal = await openLog(t);
  const durability = 'replicated';
  for (const work of [
    () => wal.append('x', { durability }),
    () => wal.appendMany(['x'], { durability }),
    () => wal.put('k', 'v', { durability }),
    () => wal.delete('k', { durability }),
    () => wal.clear({ durability }),
    () => wal.batch([{ type: 'del', key: 'k' }], { durability }),
    () => wal.writeWithDurability('k', 'v', durability),
    () => wal.waitFor(1, durability),
  ]) {
    const error = await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', work);
    t.match(error.message, /no replica is configured/);
  }
  t.equal(wal.watermark('replicated'), 0);
  const error = await failure(openLog(t, { durability }));
  t.match(error, { code: 'ERR_WAL_INVALID_ARGUMENT', message: /no replica is configured/ });
  t.equal(await wal.append('x'), 1, 'the log is none the worse');
});

t.test('watermarks only grow', async (t) => {
  const wal = await openLog(t, { segmentBytes: 65536 });
  const seen: number[][] = [[], [], []];
  const look = () => {
    for (const [i, level] of LEVELS.entries()) seen[i].push(wal.watermark(level));
  };
  wal.on('commit', look);
  for (let round = 0; round < 20; round++) {
    await Promise.all(numbers(1, 100).map((i) => wal.append('x'.repeat(i), { durability: LEVELS[i % 3] }).then(look)));
  }
  for (const watermarks of seen) {
    t.ok(watermarks.every((lsn, i) => i === 0 || lsn >= watermarks[i - 1]));
    t.ok(watermarks.length > 100);
  }
});

function recordCommits(wal: WriteAheadLog, events: CommitEvent[]): void {
  wal.on('commit', (event) => events.push(event));
}

t.test('commit events of a level are contiguous, from the first LSN to the last', async (t) => {
  const before = Date.now();
  const wal = await openLog(t, { segmentBytes: 65536 });
  const all: CommitEvent[] = [];
  const single: Record<string, CommitEvent[]> = { memory: [], os: [], disk: [] };
  recordCommits(wal, all);
  for (const level of LEVELS) wal.on(`commit:${level}`, (event) => single[level].push(event));
  for (let round = 0; round < 10; round++) {
    await Promise.all(numbers(1, 60).map((i) => wal.append('x'.repeat(500), { durability: LEVELS[i % 3] })));
  }
  await wal.close();
  for (const level of LEVELS) {
    const events = all.filter((event) => event.level === level);
    t.same(single[level], events, `commit and commit:${level} tell the same`);
    t.equal(events[0].first, 1);
    t.equal(events.at(-1)?.lsn, 600);
    t.ok(
      events.every((event, i) => i === 0 || event.first === events[i - 1].lsn + 1),
      'each begins where the one before ended',
    );
    t.ok(events.every(({ first, lsn, records }) => records === lsn - first + 1 && records > 0));
    t.ok(events.reduce((sum, event) => sum + event.bytes, 0) >= 600 * 500, 'bytes');
    t.ok(events.every(({ at }) => at >= before && at <= Date.now()));
  }
});

t.test('who begins to listen late hears of what comes, and of nothing twice', async (t) => {
  const wal = await openLog(t);
  await wal.append('unheard');
  const events: CommitEvent[] = [];
  const listener = (event: CommitEvent) => events.push(event);
  wal.on('commit:disk', listener);
  const second = nextEvent(wal, 'commit:disk');
  await wal.append('heard');
  await second;
  wal.off('commit:disk', listener);
  await wal.append('unheard again');
  const third = nextEvent(wal, 'commit:disk');
  await wal.append('heard by another');
  const event = await third;
  t.match(events, [{ level: 'disk', first: 2, lsn: 2, records: 1 }]);
  t.match(event, { level: 'disk', lsn: 4 });
});

t.test('once hears of one event, off of none', async (t) => {
  const wal = await openLog(t);
  let ones = 0;
  let none = 0;
  const never = () => none++;
  wal.once('commit:disk', () => ones++);
  wal.on('commit:disk', never);
  wal.off('commit:disk', never);
  wal.once('commit:disk', never);
  wal.removeListener('commit:disk', never);
  for (let i = 0; i < 5; i++) {
    const next = nextEvent(wal, 'commit:disk');
    await wal.append('x');
    await next;
  }
  t.equal(ones, 1);
  t.equal(none, 0);
  t.equal(wal.listenerCount('commit:disk'), 0);
});

t.test('a listener may take itself away while it is called', async (t) => {
  const wal = await openLog(t);
  let calls = 0;
  const self = () => {
    calls++;
    wal.off('commit:disk', self);
  };
  wal.on('commit:disk', self);
  for (let i = 0; i < 3; i++) {
    const next = nextEvent(wal, 'commit:disk');
    await wal.append('x');
    await next;
  }
  t.equal(calls, 1);
});

t.test('a listener that throws harms nobody, and is reported through error', async (t) => {
  const wal = await openLog(t);
  const boom = new Error('boom');
  const errors: unknown[] = [];
  let heard = 0;
  wal.on('error', (error) => errors.push(error));
  wal.on('commit:disk', () => {
    throw boom;
  });
  wal.on('commit:disk', () => heard++);
  for (let i = 0; i < 3; i++) {
    const next = nextEvent(wal, 'commit:disk');
    t.equal(await wal.append('x'), i + 1);
    await next;
  }
  t.equal(heard, 3);
  t.same(errors, [boom, boom, boom]);
});

t.test('a listener that rejects is reported through error', async (t) => {
  const wal = await openLog(t);
  const reported = new Promise((resolve) => wal.on('error', resolve));
  wal.on('commit:disk', (async () => {
    throw new Error('late');
  }) as () => void);
  await wal.append('x');
  t.match(await reported, { message: 'late' });
});

t.test('an error that nobody listens to becomes a warning of the process', async (t) => {
  const wal = await openLog(t);
  const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
  wal.on('commit:disk', () => {
    throw new Error('nobody listens');
  });
  await wal.append('x');
  t.equal((await warned).message, 'nobody listens');
});

t.test('an error listener that throws becomes a warning, and is not called forever', async (t) => {
  const wal = await openLog(t);
  const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
  let calls = 0;
  wal.on('error', () => {
    calls++;
    throw new Error('even the last resort');
  });
  wal.on('commit:disk', () => {
    throw new Error('first');
  });
  await wal.append('x');
  t.equal((await warned).message, 'even the last resort');
  t.ok(calls <= 2);
  t.equal(await wal.append('y'), 2);
});

t.test('an error listener that throws what is no Error becomes a warning that says what it was', async (t) => {
  const wal = await openLog(t);
  const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
  wal.on('error', () => {
    throw 'a mere text';
  });
  wal.on('commit:disk', () => {
    throw new Error('first');
  });
  await wal.append('x');
  t.equal((await warned).message, 'a mere text');
});

t.test('waitFor resolves when the watermark is there, at once when it was', async (t) => {
  const wal = await openLog(t, { flushIntervalMs: 0 });
  const third = wal.waitFor(3, 'os');
  let early = true;
  void third.then(() => {
    early = false;
  });
  await wal.append('1', { durability: 'os' });
  await wal.append('2', { durability: 'os' });
  t.ok(early, 'not before LSN 3');
  await wal.append('3', { durability: 'os' });
  await third;
  await wal.waitFor(1, 'memory');
  await wal.waitFor(3, 'os');
  const durable = wal.waitFor(2, 'disk');
  t.equal(wal.watermark('disk'), 0);
  await wal.sync();
  await durable;
  t.equal(wal.watermark('disk'), 3);
});

t.test('many waiters at once all wake up', async (t) => {
  const wal = await openLog(t);
  const waiters = numbers(1, 300).map((lsn) => wal.waitFor(lsn, LEVELS[lsn % 3]));
  for (let i = 0; i < 30; i++) await wal.appendMany(numbers(1, 10).map(String));
  await Promise.all(waiters);
  t.equal(wal.watermark('disk'), 300);
});

t.test('waitFor can be aborted, before and while it waits', async (t) => {
  const wal = await openLog(t);
  const reason = new Error('changed my mind');
  const controller = new AbortController();
  const waiting = wal.waitFor(100, 'disk', { signal: controller.signal });
  controller.abort(reason);
  t.equal(await failure(waiting), reason);
  t.equal(await failure(wal.waitFor(100, 'disk', { signal: controller.signal })), reason);
  t.equal(await wal.append('x'), 1);
});

t.test('closing the log wakes those who wait', async (t) => {
  const wal = await openLog(t);
  const waiting = failsWith(t, 'ERR_WAL_CLOSED', wal.waitFor(5, 'disk'));
  await wal.append('x');
  await wal.close();
  await waiting;
});

t.test('sync puts everything appended before it on disk, whatever level was asked for', async (t) => {
  const wal = await openLog(t, { flushIntervalMs: 0, ringBytes: 65536 });
  t.equal(await wal.sync(), 0, 'of nothing');
  // More than the ring holds, so that some still wait in line when sync is called.
  const appends = numbers(1, 200).map(() => wal.append('x'.repeat(1000), { durability: 'memory' }));
  t.ok((await wal.sync()) >= 200);
  t.ok(wal.watermark('disk') >= 200);
  t.same(await Promise.all(appends), numbers(1, 200));
});

t.test('sync and close at once: both resolve', async (t) => {
  const wal = await openLog(t);
  const append = wal.append('x', { durability: 'memory' });
  const sync = wal.sync();
  await wal.close();
  t.equal(await append, 1);
  t.equal(await sync, 1);
});

t.test("an 'os' record becomes durable by itself within flushIntervalMs", async (t) => {
  const wal = await openLog(t, { flushIntervalMs: 20 });
  await wal.append('x', { durability: 'os' });
  await wal.waitFor(1, 'disk');
  await wal.append('x', { durability: 'memory' });
  await wal.waitFor(2, 'disk');
  t.equal(wal.watermark('disk'), 2);
});

t.test('flushIntervalMs 0: nothing is synced on time alone', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { flushIntervalMs: 0 }, directory);
  const quick = await openLog(t, { flushIntervalMs: 5 });
  await wal.append('x', { durability: 'os' });
  // As long as the other log needs for several flushes, this one makes none.
  for (let i = 1; i <= 10; i++) {
    await quick.append('x', { durability: 'os' });
    await quick.waitFor(i, 'disk');
  }
  t.equal(wal.watermark('disk'), 0);
  t.equal(await wal.sync(), 1);
  await wal.append('x', { durability: 'os' });
  await wal.close();
  const again = await openLog(t, {}, directory);
  t.equal(again.recovery.lastLsn, 2, 'close syncs too');
});

t.test('rotate, checkpoint, cleanup and close are told', async (t) => {
  const wal = await openLog(t, { autoCleanup: false });
  const told: [string, unknown][] = [];
  wal.on('rotate', (event) => told.push(['rotate', event]));
  wal.on('checkpoint', (event) => told.push(['checkpoint', event]));
  wal.on('cleanup', (event) => told.push(['cleanup', event]));
  wal.on('close', () => told.push(['close', undefined]));
  await wal.append('1');
  await wal.append('2');
  await wal.rotate();
  await wal.append('3');
  await wal.checkpoint(2);
  const { segments, bytes } = await wal.cleanup();
  t.equal(segments, 1);
  await wal.close();
  await wal.close();
  t.match(told, [
    ['rotate', { firstLsn: 3, lastLsn: 2, segment: '0000000000000002.wal', sealed: '0000000000000001.wal' }],
    ['checkpoint', { lsn: 2 }],
    ['cleanup', { segments: 1, bytes }],
    ['close', undefined],
  ]);
  t.equal(told.length, 4, 'each once');
});

t.test('a listener may append, and its records are in the log', async (t) => {
  const wal = await openLog(t);
  const echo = new Promise<number>((resolve, reject) => {
    wal.once('commit:disk', ({ lsn }) => {
      wal.append(`echo of ${lsn}`).then(resolve, reject);
    });
  });
  await wal.append('x');
  t.equal(await echo, 2);
  t.equal((await collect(wal.read())).length, 2);
});

t.test('a level is a Durability, for types and at run time', async (t) => {
  const wal = await openLog(t);
  const level: Durability = DurabilityLevel.Strong;
  await wal.append('x', { durability: level });
  t.equal(wal.watermark(level), 1);
});
