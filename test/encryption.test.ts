import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { inspect } from 'node:util';
import { Worker } from 'node:worker_threads';
import {
  connect,
  type EncryptionKey,
  type OpenOptions,
  repairLog,
  type VerifyReport,
  verifyLog,
  type WalRecord,
  WriteAheadLog,
} from 'ringwal';
import t from 'tap';
import { Field, FRAME_HEADER_BYTES, type FrameHeader } from '../src/format/frame.js';
import { decodePayload, type PayloadKeys, writeEncryptedFields } from '../src/format/frame-payload.js';
import { KeyRing, keySourceOf } from '../src/format/key-ring.js';
import { decodeState } from '../src/format/state.js';
import { changeUnseen, forge, recordFrames } from './forging.js';
import {
  collect,
  failsWith,
  failure,
  fixture,
  numbers,
  openLog,
  payloads,
  segmentFiles,
  snapshot,
  temporaryDirectory,
  text,
} from './helpers.js';

const KEY = randomBytes(32);
const WRONG = randomBytes(32);

type Scope = Parameters<typeof openLog>[0];

/** A closed log with these records, each in a frame of its own. */
async function logWith(t: Scope, records: string[], options: OpenOptions = { encryptionKey: KEY }): Promise<string> {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, options, directory);
  for (const record of records) await wal.append(record);
  await wal.close();
  return directory;
}

function filesOf(directory: string): string[] {
  return segmentFiles(directory).map((name) => path.join(directory, name));
}

function contentOf(directory: string): Buffer {
  return Buffer.concat(filesOf(directory).map((file) => fs.readFileSync(file)));
}

/** Keys by number; the last is the one to write with. */
function keysOf(...keys: [number, Uint8Array][]): EncryptionKey {
  return async (id = keys.at(-1)![0]) => {
    const found = keys.find(([number]) => number === id);
    return found && { id, key: found[1] };
  };
}

t.test('every kind of record comes back, and nothing of it can be seen in the files', async (t) => {
  for (const compression of ['none', 'brotli'] as const) {
    const directory = temporaryDirectory(t);
    const wal = await openLog(t, { encryptionKey: KEY, compression }, directory);
    const secret = 'secret and somewhat confidential';
    await wal.append(secret);
    await wal.put('confidential key', secret);
    await wal.delete('confidential key');
    await wal.clear();
    await wal.append('');
    await wal.appendMany(numbers(1, 500).map((i) => `${secret} ${i}`));
    await wal.append(secret.repeat(10_000));
    await Promise.all(numbers(1, 2000).map((i) => wal.append(`${secret} ${i}`)));
    const plain = ({ kind, key, payload }: WalRecord) => [kind, text(key), text(payload)];
    const expected = [
      ['data', '', secret],
      ['put', 'confidential key', secret],
      ['del', 'confidential key', ''],
      ['clear', '', ''],
      ['data', '', ''],
      ...numbers(1, 500).map((i) => ['data', '', `${secret} ${i}`]),
      ['data', '', secret.repeat(10_000)],
      ...numbers(1, 2000).map((i) => ['data', '', `${secret} ${i}`]),
    ];
    t.same((await collect(wal.read())).map(plain), expected);
    t.same(plain(await wal.get(2)), expected[1]);
    await wal.close();
    const bytes = contentOf(directory);
    for (const word of ['confidential', 'secret', KEY]) t.equal(bytes.indexOf(word), -1);
    t.ok(
      filesOf(directory)
        .flatMap(recordFrames)
        .every(({ encryption }) => encryption === 1),
    );
    const again = await openLog(t, { encryptionKey: new Uint8Array(KEY) }, directory);
    t.same((await collect(again.read())).map(plain), expected);
    t.match(await verifyLog(directory, { encryptionKey: KEY }), { verdict: 'clean', encrypted: true });
    t.notOk('unchecked' in (await verifyLog(directory, { encryptionKey: KEY })));
  }
});

t.test('without the key, or with another, every way in says ERR_WAL_KEY, and nothing is touched', async (t) => {
  const directory = await logWith(t, ['one', 'two', 'three']);
  const before = snapshot(directory);
  for (const encryptionKey of [undefined, WRONG, () => undefined, () => WRONG, keysOf([2, KEY])]) {
    const ways: [string, () => Promise<unknown>][] = [
      ['open', () => WriteAheadLog.open(directory, { encryptionKey })],
      ['open, strict', () => WriteAheadLog.open(directory, { encryptionKey, recoveryMode: 'strict' })],
      ['open, point-in-time', () => WriteAheadLog.open(directory, { encryptionKey, recoveryMode: 'point-in-time' })],
      ['readOnly', () => WriteAheadLog.open(directory, { encryptionKey, readOnly: true })],
      ['salvage', () => WriteAheadLog.open(directory, { encryptionKey, recoveryMode: 'salvage' })],
      ['repair', () => repairLog(directory, { encryptionKey })],
      ['repair, dry', () => repairLog(directory, { encryptionKey, dryRun: true })],
    ];
    if (encryptionKey !== undefined) ways.push(['verify', () => verifyLog(directory, { encryptionKey })]);
    for (const [name, way] of ways) await failsWith(t, 'ERR_WAL_KEY', way, `${name}, ${typeof encryptionKey}`);
  }
  t.same(snapshot(directory), before);
  const wal = await openLog(t, { encryptionKey: KEY }, directory);
  t.same(payloads(await collect(wal.read())), ['one', 'two', 'three']);
});

t.test('a damaged end does not make a wrong key look like damage, nor the other way round', async (t) => {
  const directory = await logWith(t, ['one', 'two', 'three']);
  const [file] = filesOf(directory);
  fs.truncateSync(file, recordFrames(file)[2].offset + 70);
  await failsWith(t, 'ERR_WAL_KEY', WriteAheadLog.open(directory, { encryptionKey: WRONG }));
  await failsWith(t, 'ERR_WAL_CORRUPT', WriteAheadLog.open(directory, { encryptionKey: KEY }));
  t.match(await repairLog(directory, { encryptionKey: KEY }), { verdict: 'repaired', kept: 2 });
  const wal = await openLog(t, { encryptionKey: KEY }, directory);
  t.same(payloads(await collect(wal.read())), ['one', 'two']);
});

t.test('what is no key is ERR_WAL_INVALID_ARGUMENT, wherever it is given', async (t) => {
  const directory = await logWith(t, ['one']);
  const none = [new Uint8Array(31), new Uint8Array(0), 'x'.repeat(32), 32, {}, () => 'x', () => new Uint8Array(16)];
  const odd = [() => ({ id: 0, key: KEY }), () => ({ id: 2 ** 32, key: KEY }), () => ({ id: 1.5, key: KEY })];
  for (const encryptionKey of [...none, ...odd] as EncryptionKey[]) {
    await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', WriteAheadLog.open(directory, { encryptionKey }));
    await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', verifyLog(directory, { encryptionKey }));
    await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', repairLog(directory, { encryptionKey }));
  }
  const failing = () => {
    throw new Error('the key service is down');
  };
  const error = await failsWith(t, 'ERR_WAL_KEY', WriteAheadLog.open(directory, { encryptionKey: failing }));
  t.match(error.cause, { message: 'the key service is down' });
  const fresh = WriteAheadLog.open(temporaryDirectory(t), { encryptionKey: failing });
  t.match((await failsWith(t, 'ERR_WAL_KEY', fresh)).message, 'asked for the key to write with');
  const other = () => ({ id: 7, key: KEY });
  await failsWith(t, 'ERR_WAL_KEY', WriteAheadLog.open(directory, { encryptionKey: other }));
});

t.test('the key is copied at once, and nothing shows it', async (t) => {
  const mine = new Uint8Array(KEY);
  const directory = temporaryDirectory(t);
  const opening = WriteAheadLog.open(directory, { encryptionKey: mine });
  mine.fill(0);
  const wal = await opening;
  await wal.append('x');
  const shown = inspect(wal, { depth: 20, showHidden: true }) + inspect(wal.stats()) + inspect(wal.recovery);
  const error = (await failure(WriteAheadLog.open(directory, { encryptionKey: WRONG, readOnly: true }))) as Error;
  const told = shown + inspect(error, { depth: 20 }) + JSON.stringify(wal);
  for (const key of [KEY, WRONG]) {
    t.notMatch(told, new RegExp(key.toString('hex')));
    t.notOk(told.includes(key.toString('base64')));
    t.notOk(told.includes([...key.subarray(0, 6)].join(', ')));
  }
  await wal.close();
  const again = await openLog(t, { encryptionKey: KEY }, directory);
  t.same(payloads(await collect(again.read())), ['x']);
});

t.test('a plain log that is opened with a key goes on encrypted, and is then closed to those without', async (t) => {
  const directory = await logWith(t, ['plain 1', 'plain 2'], {});
  const wal = await openLog(t, { encryptionKey: KEY }, directory);
  await wal.append('hidden 3');
  t.same(payloads(await collect(wal.read())), ['plain 1', 'plain 2', 'hidden 3']);
  await wal.close();
  const bytes = contentOf(directory);
  t.not(bytes.indexOf('plain 1'), -1);
  t.equal(bytes.indexOf('hidden 3'), -1);
  await failsWith(t, 'ERR_WAL_KEY', WriteAheadLog.open(directory));
  t.match(await verifyLog(directory), { verdict: 'clean', records: 3, encrypted: true, unchecked: 1 });
});

t.test('a key that was opened with and never written with leaves the log as it was', async (t) => {
  const directory = await logWith(t, ['plain'], {});
  await (await WriteAheadLog.open(directory, { encryptionKey: KEY })).close();
  const wal = await openLog(t, {}, directory);
  t.same(payloads(await collect(wal.read())), ['plain']);
});

t.test('keys are rotated by open and by rotate, and old segments stay readable', async (t) => {
  const [first, second, third] = [randomBytes(32), randomBytes(32), randomBytes(32)];
  const directory = await logWith(t, ['a'], { encryptionKey: first });
  let current = { id: 2, key: second };
  const asked: (number | undefined)[] = [];
  const encryptionKey: EncryptionKey = (id) => {
    asked.push(id);
    if (id === undefined) return current;
    return { 1: first, 2: second, 3: third }[id];
  };
  const wal = await openLog(t, { encryptionKey }, directory);
  t.same(asked, [1, undefined, undefined].slice(0, asked.length), 'the keys that are known, and the one to go on with');
  const producer = await connect(wal.producer());
  await wal.append('b');
  await producer.append('b, elsewhere');
  current = { id: 3, key: third };
  await wal.rotate();
  await wal.append('c');
  while (!keysIn(directory).includes(3)) await producer.append('c, elsewhere');
  const written = payloads(await collect(wal.read()));
  t.match(written.slice(0, 4), ['a', 'b', 'b, elsewhere', 'c']);
  await producer.close();
  await wal.close();
  t.same([...new Set(keysIn(directory))], [1, 2, 3]);
  const keys = keysOf([1, first], [2, second], [3, third]);
  for (const options of [{ readOnly: true }, { recoveryMode: 'salvage' }, {}] as OpenOptions[]) {
    const again = await openLog(t, { ...options, encryptionKey: keys }, directory);
    t.same(payloads(await collect(again.read())), written);
    await again.close();
  }
  t.match(await verifyLog(directory, { encryptionKey: keys }), { verdict: 'clean', encrypted: true });
  await failsWith(t, 'ERR_WAL_KEY', WriteAheadLog.open(directory, { encryptionKey: first }), 'the last one is missing');
  const reused = keysOf([1, first], [2, second], [3, WRONG]);
  await failsWith(t, 'ERR_WAL_KEY', WriteAheadLog.open(directory, { encryptionKey: reused }), 'the last one is wrong');

  // A retired key: the log opens, and what needs it says so.
  const without = await openLog(t, { encryptionKey: keysOf([2, second], [3, third]) }, directory);
  const error = await failsWith(t, 'ERR_WAL_KEY', collect(without.read()));
  t.match(error.message, /key 1/);
  t.same(payloads(await collect(without.read({ from: 2 }))), written.slice(1));
});

/** Ids of the keys that the frames name. */
function keysIn(directory: string): number[] {
  return filesOf(directory).flatMap((file) => recordFrames(file).map(({ payload }) => payload.readUInt32LE(0)));
}

t.test('a rotation with a wrong key changes nothing, and the log goes on with the old one', async (t) => {
  let answer: unknown = { id: 1, key: KEY };
  const directory = temporaryDirectory(t);
  const encryptionKey = ((id) => (id === undefined ? answer : KEY)) as EncryptionKey;
  const wal = await openLog(t, { encryptionKey }, directory);
  await wal.append('one');
  for (const [wrong, code] of [
    [{ id: 1, key: WRONG }, 'ERR_WAL_KEY'],
    [undefined, 'ERR_WAL_KEY'],
    [{ id: 2, key: 'short' }, 'ERR_WAL_INVALID_ARGUMENT'],
  ] as const) {
    answer = wrong;
    await failsWith(t, code, wal.rotate());
    await wal.append('more');
  }
  await wal.close();
  const again = await openLog(t, { encryptionKey: KEY }, directory);
  t.same(payloads(await collect(again.read())), ['one', 'more', 'more', 'more']);
});

t.test('a reader beside the writer follows it over a rotation of keys', async (t) => {
  const [first, second] = [randomBytes(32), randomBytes(32)];
  let id = 1;
  const directory = temporaryDirectory(t);
  const encryptionKey: EncryptionKey = (asked = id) => ({ id: asked, key: asked === 1 ? first : second });
  const wal = await openLog(t, { encryptionKey }, directory);
  await wal.append('one');
  const reader = await openLog(t, { readOnly: true, encryptionKey: keysOf([2, second], [1, first]) }, directory);
  const followed = collect(reader.read({ follow: true, to: 3 }));
  id = 2;
  await wal.rotate();
  await wal.append('two');
  await wal.append('three');
  t.same(payloads(await followed), ['one', 'two', 'three']);
});

t.test('a byte that flips in an encrypted frame is never read as data', async (t) => {
  const records = ['one', 'two', 'three'];
  const directory = await logWith(t, records);
  const [file] = filesOf(directory);
  const frame = recordFrames(file)[1];
  const sound = fs.readFileSync(file);
  for (let at = frame.offset; at < frame.offset + 64 + frame.storedBytes; at++) {
    const bytes = Buffer.from(sound);
    bytes[at] ^= 1 << (at % 8);
    fs.writeFileSync(file, bytes);
    const reader = await WriteAheadLog.open(directory, { readOnly: true, encryptionKey: KEY });
    const error = await failure(collect(reader.read()));
    await reader.close();
    if ((error as WalError).code !== 'ERR_WAL_CORRUPT') t.fail(`byte ${at}: ${error}`);
  }
  t.pass();
});

type WalError = { code?: string };

t.test('a byte that is changed on purpose, with all checksums made good, is not authentic', async (t) => {
  const records = ['one', 'two', 'three', 'four'];
  const directory = await logWith(t, records);
  const [file] = filesOf(directory);
  const frame = recordFrames(file)[1];
  const sound = fs.readFileSync(file);
  // What is not the position, the length or a checksum of the frame: with those it is no frame at this place.
  const fixed = new Set([...numbers(0, 3), ...numbers(8, 11), ...numbers(16, 47), ...numbers(56, 63)]);
  for (let at = 0; at < 64 + frame.storedBytes; at++) {
    if (fixed.has(at) && !(at >= Field.durableLsn && at < Field.salt)) continue;
    fs.writeFileSync(file, sound);
    forge(file, (bytes) => {
      bytes[frame.offset + at] ^= 1 << (at % 8);
    });
    const reader = await WriteAheadLog.open(directory, { readOnly: true, encryptionKey: KEY });
    const error = await failure(reader.get(2));
    await reader.close();
    const expected = at === Field.encryption ? ['ERR_WAL_CORRUPT', 'ERR_WAL_VERSION'] : ['ERR_WAL_CORRUPT'];
    // Another key's number is no forgery but a key that is missing.
    if (at >= 64 && at < 68) expected.push('ERR_WAL_KEY');
    if (at === Field.type || at === Field.codec) expected.push('ERR_WAL_VERSION', 'ERR_WAL_NOT_FOUND');
    if (!expected.includes(`${(error as WalError).code}`)) t.fail(`byte ${at}: ${error}`);
  }
  t.pass();
});

t.test('a frame that is not authentic is damage for verify, and repair puts a gap in its place', async (t) => {
  for (const which of [1, 3]) {
    const records = ['one', 'two', 'three', 'four'];
    const directory = await logWith(t, records);
    const [file] = filesOf(directory);
    const frame = recordFrames(file)[which];
    changeUnseen(file, frame.offset + 64 + 30);
    t.match(await verifyLog(directory), { verdict: 'clean', unchecked: 4 }, 'only the key tells');
    const report: VerifyReport = await verifyLog(directory, { encryptionKey: KEY });
    t.match(report, { verdict: 'corrupt', records: 3 });
    t.match(report.damage, [{ offset: frame.offset, lsn: which + 1, reason: /authentic/ }]);
    const rest = records.filter((_, i) => i !== which);
    const salvaged = await openLog(t, { recoveryMode: 'salvage', encryptionKey: KEY }, directory);
    t.same(payloads(await collect(salvaged.read())), rest);
    await salvaged.close();
    const repaired = await repairLog(directory, { encryptionKey: KEY });
    t.match(repaired, { verdict: 'repaired', kept: 3, lost: [{ firstLsn: which + 1, lastLsn: which + 1 }] });
    const wal = await openLog(t, { encryptionKey: KEY }, directory);
    t.same(payloads(await collect(wal.read())), rest);
    t.equal(await wal.append('five'), 5);
    await wal.close();
  }
});

t.test('what stands behind a frame that was exchanged is not authentic either: the chain is', async (t) => {
  const directory = await logWith(t, ['one', 'two', 'three', 'four']);
  const [file] = filesOf(directory);
  const frame = recordFrames(file)[1];
  forge(file, (bytes) => {
    bytes[frame.offset + 64 + 30] ^= 1;
  });
  const wal = await openLog(t, { readOnly: true, encryptionKey: KEY }, directory);
  t.same(payloads([await wal.get(1)]), ['one']);
  for (const lsn of [2, 3]) await failsWith(t, 'ERR_WAL_CORRUPT', wal.get(lsn));
});

t.test('frames that change places, or logs, are not authentic', async (t) => {
  const [one, other] = [await logWith(t, ['aaaa', 'bbbb', 'cccc']), await logWith(t, ['xxxx', 'yyyy', 'zzzz'])];
  const [file] = filesOf(one);
  const frames = recordFrames(file);
  const [foreign] = filesOf(other).map(recordFrames);
  const sound = fs.readFileSync(file);
  for (const payload of [frames[0].payload, frames[2].payload, foreign[1].payload]) {
    fs.writeFileSync(file, sound);
    const copy = Buffer.from(payload);
    forge(file, (bytes) => bytes.set(copy, frames[1].offset + 64));
    const reader = await WriteAheadLog.open(one, { readOnly: true, encryptionKey: KEY });
    await failsWith(t, 'ERR_WAL_CORRUPT', collect(reader.read()));
    await reader.close();
  }
});

t.test('a segment that lost its header still knows its keys after a repair', async (t) => {
  const directory = await logWith(t, ['plain'], {});
  const wal = await openLog(t, { encryptionKey: keysOf([5, KEY]) }, directory);
  await wal.append('hidden');
  await wal.close();
  const last = filesOf(directory).at(-1)!;
  const bytes = fs.readFileSync(last);
  bytes[200] ^= 1;
  bytes[50] ^= 1;
  fs.writeFileSync(last, bytes);
  const repaired = await repairLog(directory, { encryptionKey: keysOf([5, KEY]) });
  t.match(repaired, { verdict: 'repaired', kept: 2 });
  const again = await openLog(t, { encryptionKey: keysOf([5, KEY]) }, directory);
  t.same(payloads(await collect(again.read())), ['plain', 'hidden']);
  await again.close();
  await failsWith(t, 'ERR_WAL_KEY', WriteAheadLog.open(directory));
});

t.test('no nonce is used twice, over many frames, producers, rotations and openings', async (t) => {
  const directory = temporaryDirectory(t);
  const seen = new Set<string>();
  let frames = 0;
  for (let opening = 0; opening < 4; opening++) {
    const wal = await openLog(t, { encryptionKey: KEY, durability: 'os', encoders: 2 }, directory);
    const producers = await Promise.all(numbers(1, 3).map(() => connect(wal.producer())));
    for (let round = 0; round < 20; round++) {
      await Promise.all([
        wal.append('x'),
        wal.append(Buffer.alloc(200_000, round)),
        ...producers.map((producer) => producer.append(`p${round}`)),
      ]);
      if (round === 10) await wal.rotate();
    }
    for (const producer of producers) await producer.close();
    await wal.close();
  }
  for (const { payload } of filesOf(directory).flatMap(recordFrames)) {
    seen.add(payload.subarray(4, 28).toString('hex'));
    frames++;
  }
  t.ok(frames > 300, `${frames} frames`);
  t.equal(seen.size, frames);
});

t.test('producers in other threads encrypt too', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { encryptionKey: KEY, compression: 'deflate' }, directory);
  const workerData = { handle: wal.producer(), name: 'far', count: 300, window: 50, bytes: 3000 };
  const worker = new Worker(fixture('producer'), { workerData });
  await new Promise((resolve) => worker.once('exit', resolve));
  t.equal((await collect(wal.read())).length, 300);
  await wal.close();
  t.equal(contentOf(directory).indexOf('far.'), -1);
  t.ok(
    filesOf(directory)
      .flatMap(recordFrames)
      .every(({ encryption }) => encryption === 1),
  );
});

t.test('keys that were handed on to another thread read the same log', async (t) => {
  const logId = randomBytes(16);
  const mine = new KeyRing(keySourceOf(KEY));
  const { id, checkValue } = (await mine.forWriting(logId, undefined))!;
  const keys = new Map(structuredClone(mine.exported()).map((handed) => [handed.id, handed.key]));
  const theirs = new KeyRing((asked = 0) => keys.get(asked));
  await theirs.unlock(logId, { current: id, logId: Buffer.from(logId).toString('base64'), keys: { [id]: checkValue } });
  const salt = randomBytes(16);
  t.same(theirs.find(1)?.subkey(salt), mine.find(1)?.subkey(salt));
  t.not(Buffer.compare(mine.find(1)!.subkey(salt), mine.find(1)!.subkey(randomBytes(16))), 0);
});

t.test('a state that says nonsense about keys is damage, and asks nobody for a key', async (t) => {
  const encode = (encryption: unknown) => Buffer.from(JSON.stringify({ checkpoint: 0, low: 1, encryption }));
  const logId = randomBytes(16).toString('base64');
  const none = [null, 1, 'x', [], {}, { logId }, { logId, current: 1 }, { logId, current: 1, keys: null }];
  const ids = [undefined, 1, '', logId.slice(4)].map((id) => ({ logId: id, current: 1, keys: { 1: 'x' } }));
  const keys = [{ 2: 'x' }, { 1: 5 }, { 1: 'x', '-1': 'x' }].map((each) => ({ logId, current: 1, keys: each }));
  for (const encryption of [...none, ...ids, ...keys]) {
    t.throws(() => decodeState(encode(encryption)), { code: 'ERR_WAL_CORRUPT' }, JSON.stringify(encryption));
  }
  t.ok(decodeState(encode({ logId, current: 1, keys: { 1: 'x' } })).encryption);
});

t.test('records at the limits of ring, frame and batch, encrypted', async (t) => {
  const wal = await openLog(t, { encryptionKey: KEY, ringBytes: 64 * 1024, segmentBytes: 65536 });
  const largest = Buffer.alloc(16 * 1024, 7);
  for (let i = 0; i < 20; i++) await wal.append(largest);
  await Promise.all(numbers(1, 500).map((i) => wal.append('z'.repeat(i % 300))));
  await wal.appendMany([largest.subarray(0, 15_000), largest.subarray(0, 15_000)]);
  await failsWith(t, 'ERR_WAL_RECORD_TOO_LARGE', wal.appendMany([largest, largest]));
  await failsWith(t, 'ERR_WAL_RECORD_TOO_LARGE', wal.append(Buffer.alloc(16 * 1024 + 1)));
  const records = await collect(wal.read());
  t.equal(records.length, 522);
  t.ok(records.slice(0, 20).every(({ payload }) => largest.equals(payload)));
});

t.test('what claims to be encrypted and cannot be is damage, or asks for its key', (t) => {
  const header = { type: 1, codec: 0, encryption: 1, firstLsn: 5, records: 1 } as FrameHeader;
  const decode = (storedBytes: number, keys?: PayloadKeys) => () => {
    const bytes = new Uint8Array(FRAME_HEADER_BYTES + storedBytes);
    return decodePayload({ ...header, storedBytes, rawBytes: 4 }, bytes, FRAME_HEADER_BYTES, keys, { lsn: 5 });
  };
  const keyWith = (known: boolean): PayloadKeys => ({
    find: () => ({ known, headerKey: KEY, subkey: () => KEY }),
  });
  t.throws(decode(10, keyWith(true)), { code: 'ERR_WAL_CORRUPT', lsn: 5, message: 'too short to be encrypted' });
  t.throws(decode(200), { code: 'ERR_WAL_KEY' }, 'no key');
  t.throws(decode(200, keyWith(true)), { code: 'ERR_WAL_CORRUPT', message: 'not authentic' });
  t.throws(decode(200, keyWith(false)), { code: 'ERR_WAL_KEY' }, 'a key that nothing vouches for is more likely wrong');
  t.end();
});

t.test('a frame that is encrypted with a key which the log was not told of is not written', (t) => {
  const bytes = new Uint8Array(256);
  const fields = [1, 0, { low: 1, high: 2 }, 0, 0, 0] as const;
  const write = () => writeEncryptedFields(new Map(), new DataView(bytes.buffer), bytes, 0, ...fields);
  t.throws(write, { message: 'a key that the log does not know' });
  t.end();
});

t.test('a log of more salts than keys are kept for is read all the same', async (t) => {
  const key = KeyRing.of([{ id: 1, key: KEY }], new Uint8Array(16)).find(1)!;
  const salts = numbers(0, 300).map((i) => Uint8Array.of(i & 0xff, i >> 8, ...new Uint8Array(14)));
  const subkeys = salts.map((salt) => Buffer.from(key.subkey(salt)).toString('hex'));
  t.equal(new Set(subkeys).size, salts.length);
  t.same(
    salts.map((salt) => Buffer.from(key.subkey(salt)).toString('hex')),
    subkeys,
  );
});
