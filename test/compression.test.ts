import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import zlib from 'node:zlib';
import { type CodecName, connect, type OpenOptions, verifyLog, type WalRecord, WriteAheadLog } from 'ringwal';
import t from 'tap';
import { CODEC_NAMES, Codec, decompress, isAvailable, MAX_RAW_BYTES } from '../src/format/codec.js';
import { Field } from '../src/format/frame.js';
import { forge, recordFrames } from './forging.js';
import { collect, failsWith, numbers, openLog, payloads, segmentFiles, temporaryDirectory, text } from './helpers.js';

const CODECS = CODEC_NAMES.filter((name, codec) => name !== 'none' && isAvailable(codec)) as CodecName[];

/** Lines as a program writes them: much alike, no two the same. */
function line(i: number): string {
  return `10.0.${i % 7}.${i % 251} - - [17/May/2015:10:05:${i % 60}] "GET /images/item-${i}.png HTTP/1.1" 200 ${i * 31}`;
}

async function closed(
  t: Test,
  directory: string,
  options: OpenOptions,
  fill: (wal: WriteAheadLog) => Promise<unknown>,
) {
  const wal = await openLog(t, options, directory);
  await fill(wal);
  await wal.close();
}

type Test = Parameters<typeof openLog>[0];

function filesOf(directory: string): string[] {
  return segmentFiles(directory).map((name) => path.join(directory, name));
}

// With encoders asked for, the pool compresses; without, it depends on the machine.
const WAYS: OpenOptions[] = CODECS.flatMap((compression) => [{ compression }, { compression, encoders: 2 }]);

for (const { compression = 'none', encoders } of WAYS) {
  const by = encoders === undefined ? '' : ', by the pool';
  t.test(`${compression}${by}: every kind of record comes back byte for byte, and takes less room`, async (t) => {
    const directory = temporaryDirectory(t);
    const options = { compression, ringBytes: 4 * 1024 * 1024, ...(encoders && { encoders }) };
    const wal = await openLog(t, options, directory);
    const expected: [string, string, string][] = [];
    const all: Promise<unknown>[] = [];
    for (const i of numbers(1, 2000)) {
      all.push(wal.append(line(i)), wal.put(`key ${i}`, line(i)), wal.delete(`key ${i - 1}`));
      expected.push(['data', '', line(i)], ['put', `key ${i}`, line(i)], ['del', `key ${i - 1}`, '']);
    }
    all.push(wal.clear(), wal.append(''), wal.put('', ''), wal.append('\0'.repeat(700_000)));
    expected.push(['clear', '', ''], ['data', '', ''], ['put', '', ''], ['data', '', '\0'.repeat(700_000)]);
    all.push(wal.appendMany(numbers(1, 3000).map(line)));
    for (const i of numbers(1, 3000)) expected.push(['data', '', line(i)]);
    await Promise.all(all);
    const plain = ({ kind, key, payload }: WalRecord) => [kind, text(key), text(payload)];
    t.same((await collect(wal.read())).map(plain), expected);
    t.same(plain(await wal.get(4711)), expected[4710], 'and one at a time');
    await wal.close();
    const frames = filesOf(directory).flatMap(recordFrames);
    t.ok(frames.some(({ codec }) => codec === CODEC_NAMES.indexOf(compression)));
    const raw = frames.reduce((sum, frame) => sum + frame.rawBytes, 0);
    const stored = frames.reduce((sum, frame) => sum + frame.storedBytes, 0);
    t.ok(stored * 5 < raw, `${stored} bytes of ${raw}`);
    const again = await openLog(t, {}, directory);
    t.same((await collect(again.read())).map(plain), expected, 'whatever the option says now');
    t.equal(await again.append('next'), expected.length + 1);
  });
}

t.test('one log holds frames of every kind, by whatever it was opened with', async (t) => {
  const directory = temporaryDirectory(t);
  const expected: string[] = [];
  for (const compression of ['none', ...CODECS, 'none'] as CodecName[]) {
    const lines = numbers(1, 400).map((i) => `${compression} ${line(i)}`);
    expected.push(...lines);
    await closed(t, directory, { compression }, (wal) => wal.appendMany(lines));
  }
  const kinds = filesOf(directory)
    .flatMap(recordFrames)
    .map(({ codec }) => codec);
  t.same([...new Set(kinds)].sort(), [0, ...CODECS.map((name) => CODEC_NAMES.indexOf(name))]);
  const reader = await openLog(t, { readOnly: true }, directory);
  t.same(payloads(await collect(reader.read())), expected);
  t.match(await verifyLog(directory), { verdict: 'clean', records: expected.length });
});

t.test('what does not get smaller, and what is small, is stored as it is', async (t) => {
  const directory = temporaryDirectory(t);
  const noise = [randomBytes(100_000), randomBytes(300_000), randomBytes(5000)];
  await closed(t, directory, { compression: 'brotli' }, async (wal) => {
    for (const record of noise) await wal.append(record);
    await wal.append('x'.repeat(2000));
  });
  const frames = filesOf(directory).flatMap(recordFrames);
  t.same(
    frames.map(({ codec }) => codec),
    [0, 0, 0, 0],
  );
  t.ok(frames.every(({ storedBytes, rawBytes }) => storedBytes === rawBytes));
  const again = await openLog(t, {}, directory);
  const read = await collect(again.read());
  t.ok(noise.every((record, i) => record.equals(read[i].payload)));
});

t.test('producers compress in their own thread what they append', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { compression: 'deflate' }, directory);
  const producer = await connect(wal.producer());
  const lsns = await Promise.all(numbers(1, 3000).map((i) => producer.append(line(i))));
  t.same(lsns, numbers(1, 3000));
  await producer.appendMany(numbers(1, 5000).map(line));
  await producer.close();
  t.same(payloads(await collect(wal.read({ to: 3000 }))), numbers(1, 3000).map(line));
  t.same(payloads(await collect(wal.read({ from: 3001 }))), numbers(1, 5000).map(line));
  await wal.close();
  t.ok(
    filesOf(directory)
      .flatMap(recordFrames)
      .some(({ codec }) => codec === Codec.Deflate),
  );
});

t.test('followers, subscriptions, replays and cuts see through compression', async (t) => {
  const wal = await openLog(t, { compression: 'brotli' });
  const following = wal.read({ follow: true, to: 2000 });
  const followed = collect(following);
  await wal.appendMany(numbers(1, 1000).map(line));
  await wal.appendMany(numbers(1001, 2000).map(line));
  t.same(payloads(await followed), numbers(1, 2000).map(line));
  // In the middle of a frame.
  await wal.truncateAfter(1500);
  t.same(payloads(await collect(wal.read())), numbers(1, 1500).map(line));
  t.equal(await wal.put('key', line(1).repeat(100)), 1501);
  const map = new Map<string, Uint8Array>();
  await wal.recover(map);
  t.equal(text(map.get('key')), line(1).repeat(100));
  const subscription = await wal.subscribe('s', { from: 1499 });
  const seen: number[] = [];
  for await (const { lsn } of subscription) {
    seen.push(lsn);
    if (lsn === 1501) break;
  }
  t.same(seen, [1499, 1500, 1501]);
});

t.test('a piece of a file that unpacks to very much is read bit by bit', async (t) => {
  const wal = await openLog(t, { compression: 'brotli', ringBytes: 16 * 1024 * 1024 });
  for (let i = 0; i < 40; i++) await wal.append(Buffer.alloc(1024 * 1024, i));
  let most = 0;
  let count = 0;
  for await (const batch of wal.read().batches()) {
    most = Math.max(most, batch.length);
    for (const { payload } of batch) if (payload[7] !== count++) t.fail(`record ${count}`);
  }
  t.equal(count, 40);
  t.ok(most <= 5, `at most ${most} MiB at once, though 40 lie in one piece of the file`);
  t.equal((await wal.get(33)).payload[0], 32);
});

t.test('a frame that unpacks to more, or less, than its header says is damage with its place', async (t) => {
  for (const compression of CODECS) {
    for (const lie of [
      (n: number) => n - 1,
      (n: number) => n + 1,
      () => 0,
      () => 1,
      () => MAX_RAW_BYTES + 1,
      () => 2 ** 32 - 1,
    ]) {
      const directory = temporaryDirectory(t);
      await closed(t, directory, { compression }, async (wal) => {
        await wal.append('first');
        await wal.appendMany(numbers(1, 300).map(line));
        await wal.append('last');
      });
      const [file] = filesOf(directory);
      const frame = recordFrames(file).find(({ codec }) => codec !== 0)!;
      forge(file, (bytes) => bytes.writeUInt32LE(lie(frame.rawBytes), frame.offset + Field.rawBytes));
      const what = `${compression}, ${lie(frame.rawBytes)} for ${frame.rawBytes}`;
      const reader = await openLog(t, { readOnly: true }, directory);
      t.same(payloads(await collect(reader.read({ to: 1 }))), ['first']);
      const error = await failsWith(t, 'ERR_WAL_CORRUPT', collect(reader.read()), what);
      t.match(error, { segment: path.basename(file), offset: frame.offset, lsn: 2 });
      const { verdict, damage } = await verifyLog(directory);
      t.equal(verdict, 'corrupt', what);
      t.match(damage, [{ offset: frame.offset, lsn: 2, reason: /cannot be decoded/ }]);
      const salvaged = await openLog(t, { recoveryMode: 'salvage' }, directory);
      t.same(payloads(await collect(salvaged.read())), ['first', 'last'], what);
      await reader.close();
      await salvaged.close();
    }
  }
});

t.test('a bomb is not unpacked', async (t) => {
  const directory = temporaryDirectory(t);
  await closed(t, directory, { compression: 'brotli' }, (wal) => wal.appendMany(numbers(1, 2000).map(line)));
  const [file] = filesOf(directory);
  const [frame] = recordFrames(file);
  const bomb = zlib.brotliCompressSync(Buffer.alloc(128 * 1024 * 1024), {
    params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 5 },
  });
  t.ok(bomb.byteLength < frame.storedBytes);
  forge(file, (bytes) => bytes.set(bomb, frame.offset + 64));
  const reader = await openLog(t, { readOnly: true }, directory);
  const before = process.memoryUsage().arrayBuffers;
  await failsWith(t, 'ERR_WAL_CORRUPT', collect(reader.read()));
  t.ok(process.memoryUsage().arrayBuffers - before < 64 * 1024 * 1024);
});

t.test('bytes that were never compressed are refused, whatever they are', async (t) => {
  for (let round = 0; round < 300; round++) {
    const bytes = randomBytes(round);
    for (const codec of [Codec.Brotli, Codec.Deflate, ...(isAvailable(Codec.Zstd) ? [Codec.Zstd] : [])]) {
      const raw = decompress(codec, bytes, 1000);
      if (raw !== undefined && raw.byteLength !== 1000) t.fail(`${codec}: ${bytes.toString('hex')}`);
    }
  }
  t.equal(decompress(Codec.Brotli, Buffer.alloc(0), 1), undefined);
  t.throws(() => decompress(9, Buffer.alloc(1), 1), { code: 'ERR_WAL_VERSION' });
});

t.test('every byte of a compressed frame that flips is noticed', async (t) => {
  const directory = temporaryDirectory(t);
  await closed(t, directory, { compression: 'brotli' }, (wal) => wal.appendMany(numbers(1, 100).map(line)));
  const [file] = filesOf(directory);
  const [frame] = recordFrames(file);
  const sound = fs.readFileSync(file);
  for (let at = frame.offset; at < frame.offset + 64 + frame.storedBytes; at += 3) {
    const bytes = Buffer.from(sound);
    bytes[at] ^= 1 << (at % 8);
    fs.writeFileSync(file, bytes);
    const { verdict } = await verifyLog(directory);
    if (verdict !== 'corrupt') t.fail(`byte ${at} of ${file}: ${verdict}`);
  }
  t.pass();
});

t.test('zstd where Node.js lacks it: refused as an option, and no damage when it is met', async (t) => {
  if (isAvailable(Codec.Zstd)) return t.comment('this Node.js has it');
  const directory = temporaryDirectory(t);
  const error = await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', WriteAheadLog.open(directory, { compression: 'zstd' }));
  t.match(error.message, /22\.15/);
  await closed(t, directory, { compression: 'brotli' }, (wal) => wal.appendMany(numbers(1, 300).map(line)));
  const [file] = filesOf(directory);
  const [frame] = recordFrames(file);
  forge(file, (bytes) => {
    bytes[frame.offset + Field.codec] = Codec.Zstd;
  });
  const wal = await openLog(t, {}, directory);
  const read = await failsWith(t, 'ERR_WAL_VERSION', collect(wal.read()));
  t.match(read.message, /zstd.*22\.15/);
  await wal.close();
  t.match(await verifyLog(directory), { verdict: 'clean', unchecked: 300 });
});

t.test('a codec of a later version is said to be one', async (t) => {
  const directory = temporaryDirectory(t);
  await closed(t, directory, {}, (wal) => wal.append('x'));
  const [file] = filesOf(directory);
  const [frame] = recordFrames(file);
  forge(file, (bytes) => {
    bytes[frame.offset + Field.codec] = 77;
  });
  const wal = await openLog(t, { readOnly: true }, directory);
  await failsWith(t, 'ERR_WAL_VERSION', collect(wal.read()));
});

for (const encryptionKey of [undefined, randomBytes(32)]) {
  const encoding = encryptionKey === undefined ? 'compressed' : 'compressed and encrypted';
  t.test(`the largest batch that a ring takes goes through it ${encoding}, wherever the ring stands`, async (t) => {
    const options: OpenOptions = {
      compression: 'brotli',
      ringBytes: 64 * 1024,
      encoders: 1,
      ...(encryptionKey && { encryptionKey }),
    };
    const wal = await openLog(t, options);
    const value = randomBytes(8000);
    let largest = 0;
    for (let count = 1; largest === 0; count++) {
      const batch = numbers(1, count).map(() => value);
      await wal.appendMany(batch).catch((error) => {
        t.equal(error.code, 'ERR_WAL_RECORD_TOO_LARGE');
        largest = count - 1;
      });
    }
    t.ok(largest * value.length > 20_000, `${largest} records`);
    for (const i of numbers(1, 20)) {
      const batch = numbers(1, largest).map(() => value);
      const [, { first }] = await Promise.all([
        wal.append(randomBytes(i * 371)),
        wal.appendMany(batch),
        wal.append('x'),
      ]);
      t.same(
        (await collect(wal.read({ from: first, to: first + largest - 1 }))).map(({ payload }) => value.equals(payload)),
        numbers(1, largest).map(() => true),
      );
    }
  });
}

t.test('a small ring, small frames and large batches, compressed', async (t) => {
  const small = { ringBytes: 64 * 1024, frameBytes: 4096, segmentBytes: 65536 };
  const wal = await openLog(t, { compression: 'brotli', encoders: 1, ...small });
  const all = numbers(1, 3000).map((i) => wal.append(line(i), { durability: i % 3 === 0 ? 'memory' : 'disk' }));
  await Promise.all(all);
  await wal.appendMany(numbers(1, 200).map(line));
  t.same(payloads(await collect(wal.read())), [...numbers(1, 3000), ...numbers(1, 200)].map(line));
});
