import fs from 'node:fs';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { connect, type OpenOptions, WAL_ERROR_CODES, type WalError, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { crc32 } from '../src/format/checksum.js';
import {
  collect,
  failsWith,
  failure,
  firstRecordsAt,
  fixture,
  nextEvent,
  numbers,
  openLog,
  segmentFiles,
  snapshot,
  startChild,
  temporaryDirectory,
} from './helpers.js';

const INVALID = 'ERR_WAL_INVALID_ARGUMENT';

t.test('the codes are those of the documentation', async (t) => {
  t.equal(WAL_ERROR_CODES.length, 14);
  t.ok(WAL_ERROR_CODES.every((code) => code.startsWith('ERR_WAL_')));
});

t.test('wrong types and ranges of every option of open', async (t) => {
  const directory = path.join(temporaryDirectory(t), 'log');
  const wrong: Record<string, unknown[]> = {
    durability: ['ram', 1, '', {}],
    segmentBytes: [0, -1, 65535, 1.5, '1', 2 ** 40, Number.NaN],
    ringBytes: [0, 1000, 1.5, '65536', 2 ** 40, Number.POSITIVE_INFINITY],
    maxRecordBytes: [0, -1, 1.5, '1', 16 * 1024 * 1024],
    frameBytes: [0, 1, 1.5, '1', 2 ** 40],
    encoders: [0, -1, 1.5, 'many', 1000],
    compression: ['lzma', 1],
    encryptionKey: [1, 'x'.repeat(32), null, {}, new Uint8Array(31), new Uint8Array(33), new Uint8Array(0)],
    syncMethod: ['fsync', 1, true],
    flushIntervalMs: [-1, 0.5, '1', Number.NaN],
    recoveryMode: ['lenient', 1],
    createIfMissing: ['yes', 1],
    readOnly: ['no', 0],
    autoCleanup: ['no', 0],
    signal: [{}, 'abort', new AbortController()],
    replica: ['host:1234'],
    sgmentBytes: [65536],
    toString: [1],
  };
  for (const [name, values] of Object.entries(wrong)) {
    for (const value of values) {
      const error = await failsWith(t, INVALID, WriteAheadLog.open(directory, { [name]: value }), `${name}: ${value}`);
      t.ok(error.message.includes(name), `the message names ${name}: ${error.message}`);
    }
  }
  for (const options of [null, 1, 'x', true]) {
    await failsWith(t, INVALID, WriteAheadLog.open(directory, options as unknown as OpenOptions), String(options));
  }
  t.notOk(fs.existsSync(directory), 'and nothing was made');
});

t.test('wrong directories', async (t) => {
  const parent = temporaryDirectory(t);
  for (const directory of ['', 'with\0nul', 1, null, undefined, {}, Buffer.from(parent)]) {
    await failsWith(t, INVALID, () => WriteAheadLog.open(directory as string), String(directory));
  }
  const file = path.join(parent, 'file');
  fs.writeFileSync(file, 'precious');
  await failsWith(t, INVALID, WriteAheadLog.open(file), 'a file');
  await failsWith(t, INVALID, WriteAheadLog.open(path.join(file, 'log')), 'below a file');
  await failsWith(t, INVALID, WriteAheadLog.open(path.join(file, 'deep', 'log')), 'deep below a file');
  await failsWith(t, INVALID, WriteAheadLog.open(file, { readOnly: true }), 'a file, to read');
  t.equal(fs.readFileSync(file, 'utf8'), 'precious');
});

t.test('a log that is not there: made, or ERR_WAL_NOT_FOUND', async (t) => {
  const parent = temporaryDirectory(t);
  const missing = path.join(parent, 'a', 'b', 'c');
  await failsWith(t, 'ERR_WAL_NOT_FOUND', WriteAheadLog.open(missing, { createIfMissing: false }));
  await failsWith(t, 'ERR_WAL_NOT_FOUND', WriteAheadLog.open(missing, { readOnly: true }));
  await failsWith(t, 'ERR_WAL_NOT_FOUND', WriteAheadLog.open(parent, { createIfMissing: false }), 'an empty directory');
  await failsWith(
    t,
    'ERR_WAL_NOT_FOUND',
    WriteAheadLog.open(parent, { readOnly: true }),
    'an empty directory, to read',
  );
  t.same(fs.readdirSync(parent), [], 'nothing was made');
  const wal = await openLog(t, {}, missing);
  t.equal(wal.directory, missing);
  await wal.append('x');
  await wal.close();
  const again = await openLog(t, { createIfMissing: false }, missing);
  t.equal(again.recovery.lastLsn, 1);
});

t.test('a directory without permission', async (t) => {
  const parent = temporaryDirectory(t);
  if (process.getuid?.() === 0) {
    t.comment('Run by root, to whom no directory is closed: not tried.');
    return;
  }
  fs.chmodSync(parent, 0o500);
  t.teardown(() => fs.chmodSync(parent, 0o700));
  const error = await failsWith(t, 'ERR_WAL_FAILED', WriteAheadLog.open(path.join(parent, 'log')));
  t.match(error, { message: /permission/, cause: { code: 'EACCES' } });
  await failsWith(t, 'ERR_WAL_FAILED', WriteAheadLog.open(parent));
});

t.test('wrong arguments of every method leave the log usable', async (t) => {
  const wal = await openLog(t);
  const any = wal as unknown as Record<string, (...args: unknown[]) => unknown>;
  const wrong: [string, unknown[][]][] = [
    [
      'append',
      [[], [undefined], [null], [1], [{}], [['a']], [new ArrayBuffer(1)], [new Uint16Array(1)], [Symbol('s')]],
    ],
    [
      'append',
      [
        ['x', null],
        ['x', 'disk'],
        ['x', 1],
        ['x', []],
        ['x', { durability: 'ram' }],
        ['x', { signal: 1 }],
      ],
    ],
    ['appendMany', [[], [null], ['abc'], [1], [{}], [[1]], [['a', undefined]], [['a'], { durability: null }]]],
    [
      'appendMany',
      [
        [[], { durability: 'ram' }],
        [['a'], { signal: {} }],
        [['a'], 7],
      ],
    ],
    ['put', [[], ['k'], ['k', 1], [1, 'v'], [null, 'v'], ['k', null], ['k', 'v', { durability: 3 }]]],
    ['delete', [[], [1], [null], ['k', 'disk']]],
    ['clear', [['disk'], [null], [{ durability: 'all' }]]],
    [
      'batch',
      [[], [null], ['x'], [{}], [[1]], [[null]], [[{ type: 'set', key: 'k', value: 'v' }]], [[{ type: 'del' }]]],
    ],
    ['batch', [[[{ type: 'put', key: 'k' }]], [[{ type: 'put', value: 'v' }]], [[], { durability: 'ram' }]]],
    [
      'writeWithDurability',
      [
        ['k', 'v', 'ram'],
        ['k', 'v', 2],
        [1, 'v', 'disk'],
      ],
    ],
    [
      'waitFor',
      [[], [0, 'disk'], [1.5, 'disk'], ['1', 'disk'], [1, 'ram'], [1], [1, 'disk', null], [1, 'disk', { signal: 1 }]],
    ],
    ['watermark', [[], ['ram'], [1]]],
    ['read', [[null], [1], [{ from: 0 }], [{ from: '1' }], [{ to: -1 }], [{ to: 1.5 }], [{ signal: 1 }]]],
    ['replay', [['x'], [{ from: 0 }], [() => {}, { to: 'x' }], [() => {}, null]]],
    ['recover', [[], [null], [{}], [[]], [new Set()], [new Map(), { keyEncoding: 'hex' }], [new Map(), { from: -1 }]]],
    ['checkpoint', [[], [-1], [1.5], ['1'], [1]]],
  ];
  for (const [method, calls] of wrong) {
    for (const args of calls) {
      await failsWith(t, INVALID, () => any[method](...args), `${method}(${args.map((arg) => typeof arg)})`);
    }
  }
  t.equal(await wal.append('x'), 1, 'no LSN was spent');
  t.equal((await collect(wal.read())).length, 1);
});

t.test('connect takes nothing but a handle', async (t) => {
  for (const handle of [undefined, null, 1, {}, { ringwal: 1 }, { ringwal: 1, ring: new ArrayBuffer(8), control: 1 }]) {
    await failsWith(t, INVALID, () => connect(handle as never), JSON.stringify(handle));
  }
});

t.test('a checkpoint ahead of the log or behind the last one', async (t) => {
  const wal = await openLog(t);
  await wal.appendMany(['1', '2', '3']);
  await failsWith(t, INVALID, wal.checkpoint(4));
  await wal.checkpoint(2);
  await wal.checkpoint(2);
  await failsWith(t, INVALID, wal.checkpoint(1));
  t.equal(wal.stats().checkpoint, 2);
});

t.test('a second open, in the same process, another thread or another process, is refused', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, {}, directory);
  await failsWith(t, 'ERR_WAL_LOCKED', WriteAheadLog.open(directory));
  await failsWith(
    t,
    'ERR_WAL_LOCKED',
    WriteAheadLog.open(`${directory}/../${path.basename(directory)}`),
    'by another name',
  );
  t.equal(await wal.append('still works'), 1);

  const worker = new Worker(fixture('holder'), { workerData: directory });
  const error = await new Promise<WalError>((resolve) => worker.once('error', resolve as (error: unknown) => void));
  t.equal(error.code, 'ERR_WAL_LOCKED', 'from another thread');
  const child = await startChild(t, 'holder', [directory]).ended;
  t.match(child.stderr, /ERR_WAL_LOCKED/, 'from another process');
  t.not(child.code, 0);

  await wal.close();
  const again = await openLog(t, {}, directory);
  t.equal(again.recovery.lastLsn, 1);
});

t.test('a lock held by another process or thread, until it closes or dies', async (t) => {
  const directory = temporaryDirectory(t);
  for (const end of ['close', 'kill'] as const) {
    const child = startChild(t, 'holder', [directory]);
    await child.message((message) => message === 'open');
    await failsWith(t, 'ERR_WAL_LOCKED', WriteAheadLog.open(directory), `before ${end}`);
    if (end === 'kill') child.process.kill('SIGKILL');
    else child.process.send('close');
    await child.ended;
    await (await WriteAheadLog.open(directory)).close();
  }
  for (const end of ['close', 'terminate'] as const) {
    const worker = new Worker(fixture('holder'), { workerData: directory });
    await new Promise((resolve) => worker.once('message', resolve));
    await failsWith(t, 'ERR_WAL_LOCKED', WriteAheadLog.open(directory), `before ${end}`);
    if (end === 'terminate') await worker.terminate();
    else {
      worker.postMessage('close');
      await new Promise((resolve) => worker.once('exit', resolve));
    }
    await (await WriteAheadLog.open(directory)).close();
  }
});

t.test('after close every method says ERR_WAL_CLOSED', async (t) => {
  const wal = await openLog(t);
  const handle = wal.producer();
  await wal.append('x');
  await wal.close();
  await wal.close();
  const calls: [string, () => unknown][] = [
    ['append', () => wal.append('x')],
    ['append with a signal', () => wal.append('x', { signal: new AbortController().signal })],
    ['appendMany', () => wal.appendMany(['x'])],
    ['appendMany of nothing', () => wal.appendMany([])],
    ['put', () => wal.put('k', 'v')],
    ['delete', () => wal.delete('k')],
    ['clear', () => wal.clear()],
    ['batch', () => wal.batch([{ type: 'del', key: 'k' }])],
    ['writeWithDurability', () => wal.writeWithDurability('k', 'v', 'os')],
    ['sync', () => wal.sync()],
    ['waitFor', () => wal.waitFor(1, 'disk')],
    ['read', () => collect(wal.read())],
    ['replay', () => collect(wal.replay())],
    ['replay with a handler', () => wal.replay(() => {})],
    ['recover', () => wal.recover(new Map())],
    ['producer', () => wal.producer()],
    ['rotate', () => wal.rotate()],
    ['checkpoint', () => wal.checkpoint(1)],
    ['cleanup', () => wal.cleanup()],
    ['connect', () => connect(handle)],
  ];
  for (const [what, call] of calls) await failsWith(t, 'ERR_WAL_CLOSED', call, what);
  t.equal(wal.watermark('disk'), 1, 'a watermark is a memory of it');
  t.equal(wal.recovery.verdict, 'empty');
});

t.test('a read-only log refuses every write', async (t) => {
  const directory = temporaryDirectory(t);
  const writer = await openLog(t, {}, directory);
  await writer.put('k', 'v');
  await writer.close();
  const before = snapshot(directory);
  const wal = await openLog(t, { readOnly: true, segmentBytes: undefined }, directory);
  const calls: [string, () => unknown][] = [
    ['append', () => wal.append('x')],
    ['appendMany', () => wal.appendMany(['x'])],
    ['put', () => wal.put('k', 'v')],
    ['delete', () => wal.delete('k')],
    ['clear', () => wal.clear()],
    ['batch', () => wal.batch([])],
    ['writeWithDurability', () => wal.writeWithDurability('k', 'v', 'os')],
    ['sync', () => wal.sync()],
    ['producer', () => wal.producer()],
    ['rotate', () => wal.rotate()],
    ['checkpoint', () => wal.checkpoint(1)],
    ['cleanup', () => wal.cleanup()],
  ];
  for (const [what, call] of calls) await failsWith(t, 'ERR_WAL_READ_ONLY', call, what);
  t.equal((await collect(wal.read())).length, 1);
  t.equal(wal.watermark('disk'), 1);
  await wal.close();
  await failsWith(t, 'ERR_WAL_CLOSED', () => wal.append('x'));
  t.same(snapshot(directory), before, 'and nothing was touched');
});

/** A closed log of three segments: 60 records of a kilobyte. Made once, copied for each test. */
const sound = temporaryDirectory(t);
const made = (async () => {
  const wal = await WriteAheadLog.open(sound, { segmentBytes: 65536 });
  for (const part of numbers(1, 3)) {
    await wal.appendMany(numbers(1, 20).map((i) => `${part}.${i} ${'x'.repeat(1000)}`));
    if (part < 3) await wal.rotate();
  }
  await wal.close();
})();

async function makeLog(t: Test): Promise<{ directory: string; files: string[] }> {
  await made;
  const directory = temporaryDirectory(t);
  fs.cpSync(sound, directory, { recursive: true });
  return { directory, files: segmentFiles(directory) };
}

/** Opening fails with ERR_WAL_CORRUPT, writing or reading, and touches nothing. */
async function refused(t: Test, directory: string, place: Partial<WalError>): Promise<void> {
  const before = snapshot(directory);
  for (const options of [{}, { readOnly: true }]) {
    const error = await failsWith(
      t,
      'ERR_WAL_CORRUPT',
      WriteAheadLog.open(directory, options),
      JSON.stringify(options),
    );
    t.match(error, place, 'where');
    t.equal(typeof error.offset, 'number');
  }
  const after = snapshot(directory);
  delete after.LOCK;
  delete before.LOCK;
  t.same(after, before, 'nothing was touched');
}

t.test('a segment file that is not one', async (t) => {
  const damages: [string, (file: string) => void][] = [
    ['alien', (file) => fs.writeFileSync(file, 'Dear diary, '.repeat(1000))],
    ['of zero length', (file) => fs.writeFileSync(file, '')],
    ['truncated within its header', (file) => fs.truncateSync(file, 100)],
    ['all zeros', (file) => fs.writeFileSync(file, Buffer.alloc(65536))],
    ['with a flipped bit in its header', (file) => flip(file, 60)],
    ['with a flipped bit in its state', (file) => flip(file, 130)],
    ['with bytes behind its state', (file) => flip(file, 4000)],
  ];
  for (const [what, damage] of damages) {
    // The first, one in the middle, the last.
    for (const which of what === 'alien' || what === 'of zero length' ? [0, 1, 2] : [0, 2]) {
      await t.test(`${what}: segment ${which + 1} of 3`, async (t) => {
        const { directory, files } = await makeLog(t);
        damage(path.join(directory, files[which]));
        await refused(t, directory, { segment: files[which], offset: 0 });
      });
    }
  }
});

function flip(file: string, offset: number): void {
  const bytes = fs.readFileSync(file);
  bytes[offset] ^= 1;
  fs.writeFileSync(file, bytes);
}

t.test('a segment file of which only the first bytes are left', async (t) => {
  for (const which of [0, 1, 2]) {
    const { directory, files } = await makeLog(t);
    fs.truncateSync(path.join(directory, files[which]), 200);
    await refused(t, directory, { segment: files[which] });
  }
});

t.test('a renamed or copied segment file', async (t) => {
  const renamed = await makeLog(t);
  fs.renameSync(path.join(renamed.directory, renamed.files[2]), path.join(renamed.directory, '0000000000000009.wal'));
  await refused(t, renamed.directory, { segment: '0000000000000009.wal', offset: 0 });
  const copied = await makeLog(t);
  fs.copyFileSync(path.join(copied.directory, copied.files[0]), path.join(copied.directory, '0000000000000004.wal'));
  await refused(t, copied.directory, { segment: '0000000000000004.wal', offset: 0 });
});

t.test('a segment of another log', async (t) => {
  const one = await makeLog(t);
  const other = temporaryDirectory(t);
  const wal = await openLog(t, {}, other);
  for (let i = 0; i < 3; i++) {
    await wal.append('x');
    await wal.rotate();
  }
  await wal.close();
  fs.copyFileSync(path.join(other, one.files[2]), path.join(one.directory, one.files[2]));
  await refused(t, one.directory, { segment: one.files[2], offset: 0 });
});

t.test('a missing segment', async (t) => {
  const middle = await makeLog(t);
  fs.rmSync(path.join(middle.directory, middle.files[1]));
  await refused(t, middle.directory, { segment: middle.files[2] });
  const first = await makeLog(t);
  fs.rmSync(path.join(first.directory, first.files[0]));
  await refused(t, first.directory, { segment: first.files[1], lsn: 1 });
});

t.test('a segment in the middle that lost its end', async (t) => {
  const { directory, files } = await makeLog(t);
  const file = path.join(directory, files[1]);
  const { size } = fs.statSync(file);
  fs.truncateSync(file, size - 8);
  await refused(t, directory, { segment: files[1], offset: size - 8 });
});

t.test('a last segment that lost its end after a clean close', async (t) => {
  const { directory, files } = await makeLog(t);
  const file = path.join(directory, files[2]);
  fs.truncateSync(file, fs.statSync(file).size - 8);
  await refused(t, directory, { segment: files[2] });
});

t.test('damage inside a sealed segment is met by a read, with its place; the log goes on', async (t) => {
  const { directory, files } = await makeLog(t);
  const frame = firstRecordsAt(path.join(directory, files[1]));
  flip(path.join(directory, files[1]), frame + 64 + 5000);
  const wal = await openLog(t, {}, directory);
  const seen: number[] = [];
  const error = await failsWith(t, 'ERR_WAL_CORRUPT', async () => {
    for await (const { lsn } of wal.read()) seen.push(lsn);
  });
  t.match(error, { segment: files[1], offset: frame, lsn: 21 });
  t.same(seen, numbers(1, 20), 'everything before it was delivered');
  t.equal((await collect(wal.read({ from: 41 }))).length, 20, 'and what is behind it can be read');
  await failsWith(t, 'ERR_WAL_CORRUPT', wal.recover(new Map()));
  t.equal(await wal.append('x'), 61);
});

t.test('a log of a newer format is left alone', async (t) => {
  for (const [field, value] of [
    [8, 2],
    [8, 1000],
    [20, 1],
  ]) {
    const { directory, files } = await makeLog(t);
    const file = path.join(directory, files[2]);
    const bytes = fs.readFileSync(file);
    bytes.writeUInt32LE(value, field);
    bytes.writeUInt32LE(crc32(bytes.subarray(0, 124)), 124);
    fs.writeFileSync(file, bytes);
    const before = snapshot(directory);
    for (const options of [{}, { readOnly: true }]) {
      const error = await failsWith(t, 'ERR_WAL_VERSION', WriteAheadLog.open(directory, options));
      t.match(error.message, /[Uu]pgrade/);
    }
    t.same(snapshot(directory), before, 'nothing was touched');
  }
});

t.test('files that are none of the log are left alone', async (t) => {
  const { directory } = await makeLog(t);
  for (const name of ['notes.txt', '1.wal', '0000000000000004.wal.bak', 'wal']) {
    fs.writeFileSync(path.join(directory, name), name);
  }
  const wal = await openLog(t, {}, directory);
  await wal.append('x');
  await wal.rotate();
  await wal.append('y');
  await wal.checkpoint(61);
  await wal.cleanup();
  t.equal((await collect(wal.read())).length, 1);
  for (const name of ['notes.txt', '1.wal', '0000000000000004.wal.bak', 'wal']) {
    t.equal(fs.readFileSync(path.join(directory, name), 'utf8'), name);
  }
});

t.test('reading what was cleaned up', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { autoCleanup: false }, directory);
  for (let i = 0; i < 3; i++) {
    await wal.appendMany(['x', 'x']);
    await wal.rotate();
  }
  await wal.append('last');
  await wal.checkpoint(4);
  await wal.cleanup();
  for (const from of [1, 4]) {
    const error = await failsWith(t, 'ERR_WAL_TRUNCATED', collect(wal.read({ from })));
    t.equal(error.lsn, from);
  }
  t.equal((await collect(wal.read({ from: 5 }))).length, 3);
  t.equal((await collect(wal.read())).length, 3, 'without bounds: from the first that there is');
  await wal.close();
  const again = await openLog(t, { readOnly: true }, directory);
  await failsWith(t, 'ERR_WAL_TRUNCATED', collect(again.read({ from: 1 })));
});

t.test('an error of the filesystem is the cause of the WalError', async (t) => {
  const parent = temporaryDirectory(t);
  fs.mkdirSync(path.join(parent, 'LOCK'));
  const error = (await failure(WriteAheadLog.open(parent))) as WalError;
  t.match(error, { code: 'ERR_WAL_FAILED', name: 'WalError', cause: { code: 'EISDIR' } });
});

t.test('a failing background task is told by error and harms nobody', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, {}, directory);
  await wal.append('x');
  await wal.rotate();
  await wal.append('y');
  // A directory in the place of a file that clean-up is about to remove.
  const [first] = segmentFiles(directory);
  fs.rmSync(path.join(directory, first));
  fs.mkdirSync(path.join(directory, first));
  const told = nextEvent(wal, 'error');
  await wal.checkpoint(1);
  t.match(await told, { name: 'WalError' });
  t.equal(await wal.append('z'), 3);
});
