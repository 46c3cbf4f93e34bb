import fs from 'node:fs';
import path from 'node:path';
import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { inspectLog } from '../src/recovery/recover.js';
import { NodeStorage } from '../src/storage/node-storage.js';
import type { StorageFile } from '../src/storage/storage.js';
import { untilStamped } from './forging.js';
import { temporaryDirectory } from './helpers.js';

/** A directory to which `change` happens between two calls of whoever reads it: before the n-th read of a file. */
class ChangingStorage extends NodeStorage {
  readonly #change: () => void;
  #reads: number;

  constructor(directory: string, reads: number, change: () => void) {
    super(directory);
    this.#reads = reads;
    this.#change = change;
  }

  override open(name: string, mode: 'read' | 'write' | 'create'): StorageFile {
    const file = super.open(name, mode);
    const read = file.read.bind(file);
    file.read = (target, position) => {
      if (this.#reads-- === 0) this.#change();
      return read(target, position);
    };
    return file;
  }
}

t.test('a writer that goes on while the log is opened beside it is not taken for damage', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await WriteAheadLog.open(directory, { segmentBytes: 8 * 1024 * 1024 });
  t.teardown(() => log.close());
  for (let i = 0; i < 3; i++) await log.append('before');
  const name = path.join(directory, fs.readdirSync(directory).find((file) => file.endsWith('.wal'))!);
  const before = fs.readFileSync(name);
  // Each of these is synced before the next: the last frame says that the first was on disk.
  for (let i = 0; i < 3; i++) await log.append('after');
  const after = fs.readFileSync(name);

  for (let read = 1; read < 8; read++) {
    fs.writeFileSync(name, before);
    const changing = new ChangingStorage(directory, read, () => fs.writeFileSync(name, after));
    t.match(inspectLog(changing, 'tolerate-torn-tail').report, { verdict: 'clean' }, `before read ${read}`);
  }
  fs.writeFileSync(name, after);
});

t.test('damage that stays is reported to a reader beside a writer, too', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await WriteAheadLog.open(directory);
  t.teardown(() => log.close());
  for (let i = 0; i < 3; i++) await log.append('record');
  const name = fs.readdirSync(directory).find((file) => file.endsWith('.wal'))!;
  // What the log writes next begins with the block in which it ends.
  await untilStamped(path.join(directory, name));
  const file = fs.openSync(path.join(directory, name), 'r+');
  fs.writeSync(file, 'X', 8192 + 70);
  fs.closeSync(file);
  await t.rejects(WriteAheadLog.open(directory, { readOnly: true }), {
    code: 'ERR_WAL_CORRUPT',
    segment: name,
    offset: 8192,
    lsn: 1,
  });
});

t.test('a file that is cleaned up while the log is opened beside its writer is no error', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await WriteAheadLog.open(directory);
  await log.append('first');
  await log.rotate();
  await log.append('second');
  await log.checkpoint(1);
  await log.cleanup();
  await log.close();
  const gone = '0000000000000001.wal';
  let listed = 0;
  class Late extends NodeStorage {
    override list(folder?: string): string[] {
      const names = super.list(folder);
      return folder === undefined && listed++ === 0 ? [gone, ...names] : names;
    }
  }
  t.match(inspectLog(new Late(directory), 'tolerate-torn-tail').report, { verdict: 'clean', lastLsn: 2 });
});
