import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { cli, outcomeOf, sha256, startCli } from './cli-helpers.js';
import { temporaryDirectory } from './helpers.js';

/** Every file below a directory, with the hash of its bytes. */
function everything(directory: string): [string, string][] {
  return fs
    .readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .filter((name) => fs.statSync(path.join(directory, name)).isFile())
    .sort()
    .map((name) => [name, sha256(fs.readFileSync(path.join(directory, name)))]);
}

t.test('bench measures beside the log in DIR, which it leaves alone, and leaves nothing behind', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await WriteAheadLog.open(directory, { segmentBytes: 65_536 });
  await log.append('mine');
  await log.close();
  const before = everything(directory);
  const { code, stdout, stderr } = await cli(['bench', directory, '--json', '--seconds', '1']);
  t.equal(code, 0, stderr);
  t.equal(stderr, '');
  t.same(everything(directory), before);

  const result = JSON.parse(stdout);
  t.equal(result.durability, 'disk');
  t.ok(result.works.length >= 5);
  for (const { name, recordsPerCall, inFlight, ringwal, raw, ratio } of result.works) {
    for (const figures of [ringwal, raw]) {
      t.ok(figures.recordsPerSecond > 0, `${name}: records/s`);
      t.ok(figures.p50Ms > 0 && figures.p50Ms <= figures.p99Ms, `${name}: latency`);
      // Whoever did not sync at least once for all that was in flight acknowledged what was not durable.
      t.ok(
        figures.syncsPerRecord * recordsPerCall * inFlight >= 0.9,
        `${name}: ${figures.syncsPerRecord} syncs a record`,
      );
    }
    t.ok(ratio > 0, `${name}: ratio`);
  }
});

t.test('bench at os makes a directory that is not there, and removes it', async (t) => {
  const directory = temporaryDirectory(t);
  const { code, stdout } = await cli(['bench', path.join(directory, 'a', 'b'), '--seconds', '1', '--durability', 'os']);
  t.equal(code, 0);
  t.match(stdout, /1,000 in flight, 100 B, os\n {2}raw loop +[\d,]+ .*\n {2}ringwal +[\d,]+ .* ratio \d+\.\d\d\n/);
  t.same(fs.readdirSync(directory), []);
});

t.test('bench that is interrupted cleans up', { skip: process.platform === 'win32' && 'needs signals' }, async (t) => {
  const directory = temporaryDirectory(t);
  const child = startCli('bench', directory, '--seconds', '120');
  const outcome = outcomeOf(child);
  await once(child.stdout, 'data');
  t.not(fs.readdirSync(directory).length, 0, 'it is at work');
  child.kill('SIGINT');
  const { code, stderr } = await outcome;
  t.equal(code, 130, stderr);
  t.same(fs.readdirSync(directory), []);
});

t.test('bench refuses what it cannot do', async (t) => {
  const directory = temporaryDirectory(t);
  const file = path.join(directory, 'file');
  fs.writeFileSync(file, 'mine');
  const wrong = [
    ['bench'],
    ['bench', file],
    ['bench', path.join(file, 'below')],
    ['bench', directory, '--seconds', '0'],
    ['bench', directory, '--seconds', '1.5'],
    ['bench', directory, '--durability', 'memory'],
    ['bench', directory, 'more'],
  ];
  for (const { args, code, stdout, stderr } of await Promise.all(
    wrong.map(async (args) => ({ args, ...(await cli(args)) })),
  )) {
    t.equal(code, 2, args.join(' '));
    t.equal(stdout, '');
    t.match(stderr, /^ringwal[ :].{10,}\n$/);
  }
  t.same(fs.readdirSync(directory), ['file']);
  t.equal(fs.readFileSync(file, 'utf8'), 'mine');
});
