import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { type EncryptionKey, verifyLog, WriteAheadLog } from 'ringwal';
import t from 'tap';
import { changeUnseen, recordFrames } from './forging.js';
import { collect, failsWith, openLog, segmentFiles, snapshot, temporaryDirectory, text } from './helpers.js';

const FIRST: [number, Uint8Array] = [1, randomBytes(32)];
const SECOND: [number, Uint8Array] = [2, randomBytes(32)];
const SMALL = { segmentBytes: 65_536, autoCleanup: false };

/** Keys by number; the last is the one to write with. */
function keysOf(...keys: [number, Uint8Array][]): EncryptionKey {
  return (id = keys.at(-1)![0]) => {
    const found = keys.find(([number]) => number === id);
    return found && { id, key: found[1] };
  };
}

/** A closed log of a segment for each key, and one in plain before them. In each a record is replaced by the next one's. */
async function logOfKeys(t: Parameters<typeof openLog>[0]): Promise<string> {
  const directory = temporaryDirectory(t);
  const write = async (encryptionKey: EncryptionKey | undefined, name: string) => {
    const wal = await WriteAheadLog.open(directory, { ...SMALL, encryptionKey });
    await wal.put('replaced', `${name} text`);
    await wal.append(`opaque ${name}`);
    const tx = wal.transaction();
    tx.put('in a transaction', `${name} text`);
    tx.put(`only ${name}`, `${name} text`);
    await tx.commit();
    await wal.close();
  };
  await write(undefined, 'zero');
  await write(keysOf(FIRST), 'one');
  await write(keysOf(FIRST, SECOND), 'two');
  await write(keysOf(FIRST, SECOND), 'three');
  return directory;
}

function contentOf(directory: string): Buffer {
  return Buffer.concat(fs.readdirSync(directory).map((name) => readIfFile(path.join(directory, name))));
}

function readIfFile(file: string): Buffer {
  return fs.statSync(file).isFile() ? fs.readFileSync(file) : Buffer.alloc(0);
}

async function stateOf(wal: WriteAheadLog): Promise<Record<string, string>> {
  const map = new Map<string, Uint8Array>();
  await wal.recover(map);
  return Object.fromEntries([...map].map(([key, value]) => [key, text(value)]));
}

const STATE = {
  replaced: 'three text',
  'in a transaction': 'three text',
  'only zero': 'zero text',
  'only one': 'one text',
  'only two': 'two text',
  'only three': 'three text',
};

t.test('segments of several keys, and of none, are compacted into one of the current key', async (t) => {
  const directory = await logOfKeys(t);
  const encryptionKey = keysOf(FIRST, SECOND);
  const wal = await openLog(t, { ...SMALL, encryptionKey }, directory);
  t.equal((await wal.compact()).removed, 6);
  t.same(await stateOf(wal), STATE);
  t.equal((await collect(wal.read())).length, 10);
  const tx = (await collect(wal.read())).find(({ key }) => key && text(key) === 'only one')!;
  t.ok(tx.transaction);
  await wal.close();
  t.notOk(contentOf(directory).includes(' text'), 'what was in plain is not any more');
  const withKey = await verifyLog(directory, { encryptionKey });
  t.match(withKey, { verdict: 'clean', records: 10, unchecked: undefined });
  t.match(await verifyLog(directory), { verdict: 'clean', records: 10 }, 'counted without a key');
  await failsWith(t, 'ERR_WAL_KEY', WriteAheadLog.open(directory, SMALL));
  await failsWith(t, 'ERR_WAL_KEY', WriteAheadLog.open(directory, { ...SMALL, encryptionKey: keysOf([2, FIRST[1]]) }));
});

t.test('a segment whose key is not given any more stays as it is, and the others are compacted', async (t) => {
  const directory = await logOfKeys(t);
  const [, ofFirst] = segmentFiles(directory);
  const before = snapshot(directory)[ofFirst];
  const wal = await openLog(t, { ...SMALL, encryptionKey: keysOf(SECOND) }, directory);
  t.equal((await wal.compact()).removed, 4);
  await wal.close();
  t.equal(snapshot(directory)[ofFirst], before);
  const again = await openLog(t, { ...SMALL, encryptionKey: keysOf(FIRST, SECOND) }, directory);
  t.same(await stateOf(again), STATE);
});

t.test(
  'an encrypted frame that was changed, with all checksums made good, ends a compaction before anything is changed',
  async (t) => {
    const directory = await logOfKeys(t);
    const name = segmentFiles(directory)[2];
    const file = path.join(directory, name);
    const [frame] = recordFrames(file);
    changeUnseen(file, frame.offset + 64 + 30);
    const before = snapshot(directory);
    const wal = await openLog(t, { ...SMALL, encryptionKey: keysOf(FIRST, SECOND) }, directory);
    await t.rejects(wal.compact(), { code: 'ERR_WAL_CORRUPT', segment: name, offset: frame.offset, lsn: 9 });
    const names = segmentFiles(directory).slice(0, 4);
    t.same(
      names.map((name) => snapshot(directory)[name]),
      names.map((name) => before[name]),
    );
  },
);

t.test(
  'after a rotation a compaction writes with the new key, and what is left needs the old one no more',
  async (t) => {
    const directory = temporaryDirectory(t);
    let current = 1;
    const keys = new Map([FIRST, SECOND]);
    const encryptionKey: EncryptionKey = (id = current) => ({ id, key: keys.get(id)! });
    const wal = await openLog(t, { ...SMALL, encryptionKey }, directory);
    await wal.put('a', '1');
    await wal.append('opaque');
    await wal.rotate();
    current = 2;
    await wal.put('a', '2');
    await wal.rotate();
    await wal.put('a', '3');
    await wal.rotate();
    t.equal((await wal.compact()).removed, 2);
    t.same(await stateOf(wal), { a: '3' });
    await wal.close();
    const again = await openLog(t, { ...SMALL, encryptionKey: keysOf(SECOND) }, directory);
    t.same(
      (await collect(again.read())).map(({ payload }) => text(payload)),
      ['opaque', '3'],
      'key 1 is needed no more',
    );
  },
);
