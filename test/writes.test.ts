import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { collect, failsWith, numbers, openLog, payloads, temporaryDirectory, text } from './helpers.js';

const INVALID_UTF8 = Uint8Array.of(0xff, 0xc0, 0x80, 0xed, 0xa0, 0x80, 0x00, 0xfe);

t.test('any bytes come back as they were appended, also after a reopen', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, {}, directory);
  const shared = new Uint8Array(new SharedArrayBuffer(3)).fill(7);
  const given: (string | Uint8Array)[] = [
    'plain',
    '',
    new Uint8Array(0),
    Buffer.from('a buffer'),
    new Uint8Array([1, 2, 3, 4, 5]).subarray(1, 3),
    'with \0 and \0',
    new Uint8Array(100),
    INVALID_UTF8,
    'žluťoučký 𝒳 🦉',
    shared,
    'line\r\nend\n',
  ];
  for (const payload of given) await wal.append(payload, { durability: 'os' });
  const wanted = given.map((payload) => Buffer.from(payload as Uint8Array).toString('hex'));
  const found = async (log: WriteAheadLog) =>
    (await collect(log.read())).map((record) => Buffer.from(record.payload).toString('hex'));
  t.same(await found(wal), wanted);
  await wal.close();
  const again = await openLog(t, {}, directory);
  t.same(await found(again), wanted);
});

t.test('a lone surrogate is written as UTF-8 has it, U+FFFD, and disturbs no neighbour', async (t) => {
  const wal = await openLog(t);
  await wal.appendMany(['before', 'a\ud800b', '\udfff', 'after']);
  t.same(payloads(await collect(wal.read())), ['before', 'a\ufffdb', '\ufffd', 'after']);
});

t.test('records carry LSN, kind and time, in plain Uint8Arrays that stay valid', async (t) => {
  const before = Date.now();
  const wal = await openLog(t);
  await wal.append('d');
  await wal.put('k', 'v');
  await wal.delete('k');
  await wal.clear();
  const records = await collect(wal.read());
  t.same(
    records.map(({ lsn, kind }) => [lsn, kind]),
    [
      [1, 'data'],
      [2, 'put'],
      [3, 'del'],
      [4, 'clear'],
    ],
  );
  for (const { payload, timestamp } of records) {
    t.equal(Object.getPrototypeOf(payload), Uint8Array.prototype);
    t.ok(timestamp >= before && timestamp <= Date.now(), 'a wall-clock time in milliseconds');
  }
  t.equal(text(records[1].value), 'v');
  t.equal(records[0].key, undefined);
  t.equal(records[2].value, undefined);
  t.equal(text(records[2].key), 'k');
});

t.test('a buffer may be reused as soon as the call returns', async (t) => {
  const wal = await openLog(t, { ringBytes: 65536 });
  const buffer = Buffer.alloc(4000);
  const appends: Promise<unknown>[] = [];
  // Enough to fill the ring, so that most of them wait in line.
  for (let i = 0; i < 100; i++) {
    buffer.fill(i);
    appends.push(wal.append(buffer, { durability: 'os' }));
    buffer.fill(255);
  }
  const key = Buffer.from('key');
  appends.push(wal.batch([{ type: 'put', key, value: buffer.fill(100) }]));
  key.fill(0);
  buffer.fill(255);
  await Promise.all(appends);
  const records = await collect(wal.read());
  t.equal(records.length, 101);
  t.ok(
    records.every(({ payload }, i) => payload.length === 4000 && payload.every((byte) => byte === i)),
    'each holds what the buffer held at the call',
  );
  t.equal(text(records[100].key), 'key');
});

t.test('appendMany takes arrays, Sets, generators and nothing at all', async (t) => {
  const wal = await openLog(t);
  t.same(await wal.appendMany(['a', Buffer.from('b')]), { first: 1, last: 2 });
  t.same(await wal.appendMany(new Set(['c', 'd'])), { first: 3, last: 4 });
  t.same(
    await wal.appendMany(
      (function* () {
        yield 'e';
        yield '';
      })(),
    ),
    { first: 5, last: 6 },
  );
  t.same(await wal.appendMany([]), { first: 7, last: 6 }, 'nothing: an empty range');
  t.same(await wal.batch([]), { first: 7, last: 6 });
  t.equal(await wal.append('f'), 7, 'and no LSN was spent on it');
  t.same(payloads(await collect(wal.read())), ['a', 'b', 'c', 'd', 'e', '', 'f']);
});

t.test('a generator that yields one buffer over and over does not mix its records up', async (t) => {
  const wal = await openLog(t);
  await wal.appendMany(
    (function* () {
      const line = Buffer.alloc(2);
      for (let i = 0; i < 3; i++) {
        line.write(`#${i}`);
        yield line;
      }
    })(),
  );
  t.same(payloads(await collect(wal.read())), ['#0', '#1', '#2']);
});

t.test('a generator that throws appends nothing, and its error is handed on', async (t) => {
  const wal = await openLog(t);
  const boom = new Error('boom');
  await t.rejects(
    wal.appendMany(
      (function* () {
        yield 'a';
        throw boom;
      })(),
    ),
    boom,
  );
  t.equal(await wal.append('b'), 1);
});

t.test('keys and values may be empty, binary and hold NUL bytes', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, {}, directory);
  const keys = ['', '\0', '\0\0', 'a\0b', 'a', Buffer.from([0xff, 0, 0xfe]), 'k'.repeat(300)];
  for (const [i, key] of keys.entries()) t.equal(await wal.put(key, `${i}`), i + 1);
  await wal.put('empty value', '');
  await wal.put('binary value', INVALID_UTF8);
  await wal.delete('');
  await wal.delete('a\0b');
  await wal.close();
  const again = await openLog(t, {}, directory);
  const map = new Map<string, Uint8Array>();
  await again.recover(
    {
      set: (key: Uint8Array, value) => map.set(Buffer.from(key).toString('hex'), value),
      delete: (key: Uint8Array) => map.delete(Buffer.from(key).toString('hex')),
      clear: () => map.clear(),
    },
    { keyEncoding: 'buffer' },
  );
  const hex = (key: string | Uint8Array) => Buffer.from(key as Uint8Array).toString('hex');
  t.same([...map].map(([key, value]) => [key, text(value)]).slice(0, 6), [
    [hex('\0'), '1'],
    [hex('\0\0'), '2'],
    [hex('a'), '4'],
    [hex(keys[5]), '5'],
    [hex(keys[6]), '6'],
    [hex('empty value'), ''],
  ]);
  t.same(map.get(hex('binary value')), INVALID_UTF8);
  t.equal(map.size, 7);
});

t.test('clear hides what came before it from a recovery', async (t) => {
  const wal = await openLog(t);
  await wal.put('a', '1');
  await wal.clear();
  await wal.put('b', '2');
  const map = new Map<string, Uint8Array>();
  await wal.recover(map);
  t.same([...map.keys()], ['b']);
});

t.test('a batch takes consecutive LSNs, also amid other appends', async (t) => {
  const wal = await openLog(t);
  const before = wal.append('before');
  const batch = wal.batch([
    { type: 'put', key: 'a', value: '1' },
    { type: 'del', key: 'a' },
    { type: 'put', key: Buffer.from('b'), value: new Uint8Array([2]) },
  ]);
  const after = wal.append('after');
  t.same(await Promise.all([before, batch, after]), [1, { first: 2, last: 4 }, 5]);
  t.same(
    (await collect(wal.read())).map((record) => record.kind),
    ['data', 'put', 'del', 'put', 'data'],
  );
});

t.test('a batch with one bad operation writes none of them', async (t) => {
  const wal = await openLog(t);
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', () =>
    wal.batch([{ type: 'put', key: 'a', value: '1' }, { type: 'put', key: 'b' } as never]),
  );
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', () => wal.appendMany(['a', 1 as never]));
  // biome-ignore lint/suspicious/noSparseArray: that is the fault
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', () => wal.batch([, { type: 'del', key: 'a' }] as never));
  t.equal(await wal.append('x'), 1);
});

t.test('writeWithDurability is put by its first name', async (t) => {
  const wal = await openLog(t);
  t.equal(await wal.writeWithDurability('k', 'v', 'memory'), 1);
  t.equal(await wal.writeWithDurability('k', 'w', 'disk'), 2);
  t.ok(wal.watermark('disk') >= 2);
  const map = new Map<string, Uint8Array>();
  await wal.recover(map);
  t.equal(text(map.get('k')), 'w');
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', () => wal.writeWithDurability('k', 'v', 'ram' as never));
});

t.test('one producer: LSNs in the order of its calls, without gaps, whatever the level', async (t) => {
  const wal = await openLog(t, { segmentBytes: 65536 });
  const levels = ['memory', 'os', 'disk'] as const;
  const lsns = await Promise.all(numbers(1, 3000).map((i) => wal.append(`record ${i}`, { durability: levels[i % 3] })));
  t.same(lsns, numbers(1, 3000));
  await wal.sync();
  t.same(
    payloads(await collect(wal.read())),
    numbers(1, 3000).map((i) => `record ${i}`),
  );
});

t.test('LSNs go on where they were after each reopen', async (t) => {
  const directory = temporaryDirectory(t);
  for (let round = 0; round < 4; round++) {
    const wal = await openLog(t, {}, directory);
    t.equal(wal.recovery.lastLsn, round * 2);
    t.equal(await wal.append('a'), round * 2 + 1);
    t.equal(await wal.append('b', { durability: 'memory' }), round * 2 + 2);
    await wal.close();
  }
});

t.test('a record of exactly maxRecordBytes passes, one more does not, and the log goes on', async (t) => {
  const wal = await openLog(t, { maxRecordBytes: 5000, ringBytes: 65536 });
  t.equal(await wal.append('x'.repeat(5000)), 1);
  await failsWith(t, 'ERR_WAL_RECORD_TOO_LARGE', wal.append('x'.repeat(5001)));
  await failsWith(t, 'ERR_WAL_RECORD_TOO_LARGE', wal.append(Buffer.alloc(5001)));
  await failsWith(t, 'ERR_WAL_RECORD_TOO_LARGE', wal.append('é'.repeat(2501)), 'strings count in UTF-8');
  await failsWith(t, 'ERR_WAL_RECORD_TOO_LARGE', wal.put('key', 'x'.repeat(5000)));
  await failsWith(t, 'ERR_WAL_RECORD_TOO_LARGE', wal.delete('x'.repeat(5001)));
  await failsWith(t, 'ERR_WAL_RECORD_TOO_LARGE', wal.appendMany(['a', 'x'.repeat(5001)]));
  t.equal(await wal.append('y'.repeat(5000)), 2);
  t.equal((await collect(wal.read())).length, 2);
});

t.test('the default limit is a quarter of the ring', async (t) => {
  const wal = await openLog(t, { ringBytes: 256 * 1024, segmentBytes: 65536 });
  t.equal(await wal.append(Buffer.alloc(65536, 1)), 1);
  await failsWith(t, 'ERR_WAL_RECORD_TOO_LARGE', wal.append(Buffer.alloc(65537)));
  const [record] = await collect(wal.read());
  t.equal(record.payload.length, 65536);
  t.ok(record.payload.every((byte) => byte === 1));
});

t.test('an atomic batch over half of the ring is refused whole, and the log goes on', async (t) => {
  const wal = await openLog(t, { ringBytes: 65536 });
  const piece = 'x'.repeat(8000);
  t.same(await wal.appendMany([piece, piece, piece, piece.slice(0, 7000)]), { first: 1, last: 4 });
  const error = await failsWith(t, 'ERR_WAL_RECORD_TOO_LARGE', wal.appendMany([piece, piece, piece, piece, piece]));
  t.match(error.message, /ringBytes/);
  t.equal(await wal.append('next'), 5);
});

t.test('records larger than a segment get a segment that holds them', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { segmentBytes: 65536, ringBytes: 8 * 1024 * 1024 }, directory);
  const sizes = [10, 1024 * 1024, 20, 2 * 1024 * 1024, 300_000, 30];
  for (const [i, size] of sizes.entries()) t.equal(await wal.append(Buffer.alloc(size, i)), i + 1);
  await wal.close();
  const again = await openLog(t, {}, directory);
  const records = await collect(again.read());
  t.same(
    records.map((record) => record.payload.length),
    sizes,
  );
  t.ok(records.every(({ payload }, i) => payload.every((byte) => byte === i)));
});

t.test('big frames that the pool encodes keep their order among small ones', async (t) => {
  const wal = await openLog(t, { ringBytes: 16 * 1024 * 1024, encoders: 2 });
  const sizes = numbers(0, 39).map((i) => (i % 4 === 0 ? 700_000 : i));
  const lsns = await Promise.all(sizes.map((size, i) => wal.append(Buffer.alloc(size, i), { durability: 'os' })));
  t.same(lsns, numbers(1, 40));
  const records = await collect(wal.read());
  t.same(
    records.map((record) => record.payload.length),
    sizes,
  );
  t.ok(records.every(({ payload }, i) => payload.every((byte) => byte === i)));
});

t.test('await using closes the log', async (t) => {
  const directory = temporaryDirectory(t);
  let outside: WriteAheadLog;
  {
    const wal = await WriteAheadLog.open(directory);
    await wal.append('a');
    outside = wal;
    await wal[Symbol.asyncDispose]();
  }
  await failsWith(t, 'ERR_WAL_CLOSED', outside.append('b'));
  const again = await openLog(t, {}, directory);
  t.equal(again.recovery.verdict, 'clean');
});

t.test('both ways of making bytes durable give the same log', async (t) => {
  const directory = temporaryDirectory(t);
  for (const [round, syncMethod] of (['dsync', 'fdatasync', 'dsync'] as const).entries()) {
    const wal = await openLog(t, { syncMethod }, directory);
    t.equal(await wal.append(syncMethod), round * 2 + 1);
    t.equal(await wal.append('os', { durability: 'os' }), round * 2 + 2);
    await wal.close();
  }
  const wal = await openLog(t, {}, directory);
  t.equal(wal.recovery.lastLsn, 6);
});
