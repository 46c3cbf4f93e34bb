import fs from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { NodeStorage } from '../src/storage/node-storage.js';
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
