import fs from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { SyncSlots } from '../src/ring/sync-slots.js';
import { readFully, writeFully } from '../src/storage/fully.js';
import { NodeStorage } from '../src/storage/node-storage.js';
import { ActorSyncer } from '../workers/actor-syncer.js';
import { temporaryDirectory } from './helpers.js';

t.test('with O_DSYNC, sync still covers what no write of this file took along', async (t) => {
  if (fs.constants.O_DSYNC === undefined) return t.comment('this platform has no O_DSYNC: nothing to test');
  const directory = temporaryDirectory(t);
  // Left by an earlier process, perhaps in the page cache alone.
  fs.writeFileSync(path.join(directory, 'file'), 'from an earlier process');
  let syncs = 0;
  const { fdatasyncSync } = fs;
  fs.fdatasyncSync = (fd) => {
    syncs++;
    fdatasyncSync(fd);
  };
  t.teardown(() => {
    fs.fdatasyncSync = fdatasyncSync;
  });
  const file = new NodeStorage(directory, 'dsync').open('file', 'write');
  file.sync();
  t.equal(syncs, 1, 'what was there before');
  file.write([Buffer.from('ours')], 0);
  file.sync();
  t.equal(syncs, 1, 'a write of ours is on stable storage already');
  file.truncate(4);
  file.sync();
  t.equal(syncs, 2, 'a new size');
  file.close();
});

t.test('counts smaller than asked for are neither the end of a write nor of a read', (t) => {
  const disk = Buffer.alloc(64);
  const views = ['one', 'and two', '', 'and three'].map((text) => Buffer.from(text));
  const whole = Buffer.concat(views);
  for (let most = 1; most <= whole.byteLength; most++) {
    disk.fill(0);
    writeFully(views, 5, (rest, at) => Buffer.concat(rest).copy(disk, at, 0, most));
    t.same(disk.subarray(5, 5 + whole.byteLength), whole, `${most} bytes at a time`);
    const target = Buffer.alloc(40);
    const file = disk.subarray(0, 30);
    const count = readFully(target, 5, (rest, at) => file.copy(rest, 0, at, Math.min(at + most, 30)));
    t.equal(count, 25, 'up to the end of the file');
    t.same(target.subarray(0, 25), file.subarray(5));
  }
  t.end();
});

t.test('a disk that takes nothing and says nothing does not have a write tried for ever', (t) => {
  t.throws(() => writeFully([Buffer.alloc(3)], 0, () => 0), { message: /accepted none/ });
  t.end();
});

t.test('a short count of the operating system is made up for', async (t) => {
  const file = new NodeStorage(temporaryDirectory(t)).open('file', 'create');
  const { writeSync, writevSync, readSync } = fs;
  t.teardown(() => Object.assign(fs, { writeSync, writevSync, readSync }));
  Object.assign(fs, {
    writeSync: (fd: number, view: Uint8Array, offset: number, length: number, at: number) =>
      writeSync(fd, view, offset, Math.min(length, 3), at),
    writevSync: (fd: number, views: Uint8Array[], at: number) => writeSync(fd, views[0], 0, 1, at),
    readSync: (fd: number, view: Uint8Array, offset: number, length: number, at: number) =>
      readSync(fd, view, offset, Math.min(length, 2), at),
  });
  file.write([Buffer.from('several'), Buffer.from(' views')], 0);
  const bytes = Buffer.alloc(20);
  t.equal(file.read(bytes, 0), 13);
  t.equal(bytes.toString('utf8', 0, 13), 'several views');
  file.close();
});

t.test('a folder that is not there is empty, and a directory that is not there an error', async (t) => {
  const directory = temporaryDirectory(t);
  t.same(new NodeStorage(directory).list('quarantine'), []);
  t.throws(() => new NodeStorage(path.join(directory, 'nowhere')).list(), { code: 'ENOENT' });
  fs.writeFileSync(path.join(directory, 'file'), '');
  t.throws(() => new NodeStorage(directory).list('file'), { code: 'ENOTDIR' }, 'nor is a file a folder');
});

t.test('a file whose writes are synced already is not handed to another thread to sync', async (t) => {
  if (fs.constants.O_DSYNC === undefined) return t.comment('this platform has no O_DSYNC: nothing to test');
  const directory = temporaryDirectory(t);
  fs.writeFileSync(path.join(directory, 'file'), '');
  let started = 0;
  const syncer = new ActorSyncer(new SyncSlots().memory, () => started++);
  const dsync = new NodeStorage(directory, 'dsync').open('file', 'write');
  t.equal(syncer.begin(dsync), false);
  t.equal(started, 0, 'nobody is started for it');
  const plain = new NodeStorage(directory).open('file', 'write');
  t.equal(syncer.begin(plain), false, 'not yet');
  t.equal(started, 1);
  for (const file of [dsync, plain]) file.close();
});
