import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { temporaryDirectory } from './helpers.js';

const START = fileURLToPath(new URL('../examples/start.js', import.meta.url));

function start(tmpdir: string, ...args: string[]) {
  return spawnSync(process.execPath, [START, ...args], { encoding: 'utf8', env: { ...process.env, TMPDIR: tmpdir } });
}

t.test('npm start with files: everything comes back, and nothing is left behind', async (t) => {
  const directory = temporaryDirectory(t);
  const tmpdir = temporaryDirectory(t);
  const file = path.join(directory, 'file');
  fs.writeFileSync(file, Buffer.concat([Buffer.from('one\n\ntwo\r\n'), Buffer.of(0xff, 0x00), Buffer.from('\nlast')]));
  const { status, stdout, stderr } = start(tmpdir, file, file);
  t.equal(status, 0, stderr);
  t.match(stdout, '10 lines, 10 records, all the same byte for byte');
  t.same(fs.readdirSync(tmpdir), []);
});

t.test('npm start without a file: an access log of 300,000 lines, and --keep keeps the log', async (t) => {
  const tmpdir = temporaryDirectory(t);
  const { status, stdout, stderr } = start(tmpdir, '--keep');
  t.equal(status, 0, stderr);
  t.match(stdout, 'clean: 300,000 records');
  t.match(stdout, '300,000 lines, 300,000 records, all the same byte for byte');
  const [kept] = fs.readdirSync(tmpdir);
  t.match(stdout, `The log is in ${path.join(tmpdir, kept, 'log')}`);
  t.equal(fs.readFileSync(path.join(tmpdir, kept, 'access.log'), 'utf8').split('\n').length, 300_001);
});

t.test('npm start with a file that is not there says so', async (t) => {
  const tmpdir = temporaryDirectory(t);
  const { status, stderr } = start(tmpdir, path.join(tmpdir, 'nowhere'));
  t.equal(status, 1);
  t.match(stderr, /ENOENT.*nowhere/);
  t.equal(stderr.trim().split('\n').length, 1);
  t.same(fs.readdirSync(tmpdir), []);
});
