import { once } from 'node:events';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { cli, outcomeOf, startCli } from './cli-helpers.js';
import { firstRecordsAt, temporaryDirectory } from './helpers.js';

const COMMANDS = ['ingest', 'dump', 'inspect', 'verify'];

/** Three segments, all kinds of records, a checkpoint. */
async function makeLog(directory: string): Promise<void> {
  const log = await WriteAheadLog.open(directory, { segmentBytes: 65_536 });
  await log.append('data');
  await log.put('key', 'välue');
  await log.rotate();
  await log.delete('key');
  await log.clear();
  await log.rotate();
  await log.append(Buffer.of(0xff, 0x00, 0x0a));
  await log.checkpoint(1);
  await log.close();
}

function segments(directory: string): string[] {
  return fs
    .readdirSync(directory)
    .filter((name) => name.endsWith('.wal'))
    .sort();
}

function flip(file: string, offset: number): void {
  const bytes = fs.readFileSync(file);
  bytes[offset] ^= 1;
  fs.writeFileSync(file, bytes);
}

function jsonLines(stdout: string): Record<string, unknown>[] {
  t.ok(stdout.endsWith('\n'));
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
}

t.test('help and version', async (t) => {
  const help = await cli(['--help']);
  t.equal(help.code, 0);
  for (const command of COMMANDS) {
    t.match(help.stdout, `ringwal ${command} DIR`);
    const { code, stdout, stderr } = await cli([command, '--help']);
    t.equal(code, 0);
    t.equal(stderr, '');
    t.match(stdout, `Usage: ringwal ${command} DIR`);
    t.match(stdout, '--json');
  }
  const version = await cli(['--version']);
  t.equal(version.code, 0);
  t.equal(version.stdout.trim(), createRequire(import.meta.url)('ringwal/package.json').version);
});

t.test('dump prints every kind of record as a line of JSON', async (t) => {
  const log = path.join(temporaryDirectory(t), 'log');
  await makeLog(log);
  const timestamp = Number;
  const { code, stdout } = await cli(['dump', log]);
  t.equal(code, 0);
  const lines = jsonLines(stdout);
  t.match(lines, [
    { lsn: 1, kind: 'data', payload: 'data', timestamp },
    { lsn: 2, kind: 'put', key: 'key', value: 'välue', timestamp },
    { lsn: 3, kind: 'del', key: 'key', timestamp },
    { lsn: 4, kind: 'clear', timestamp },
    { lsn: 5, kind: 'data', payload: '\ufffd\u0000\n', timestamp },
  ]);
  t.same(Object.keys(lines[1]), ['lsn', 'kind', 'key', 'value', 'timestamp']);
  t.same(Object.keys(lines[2]), ['lsn', 'kind', 'key', 'timestamp']);
  t.same(Object.keys(lines[3]), ['lsn', 'kind', 'timestamp']);

  const some = async (...args: string[]) => jsonLines((await cli(['dump', log, ...args])).stdout);
  t.match(await some('--encoding', 'hex', '--from', '5'), [{ lsn: 5, payload: 'ff000a' }]);
  t.match(await some('--encoding', 'base64', '--from', '2', '--to', '3'), [
    { key: 'a2V5', value: 'dsOkbHVl' },
    { lsn: 3 },
  ]);
  t.same(
    (await some('--from', '2', '--limit', '2', '--json')).map(({ lsn }) => lsn),
    [2, 3],
  );
  for (const args of [
    ['--limit', '0'],
    ['--from', '6'],
    ['--from', '4', '--to', '3'],
    ['--to', '0'],
  ]) {
    t.match(await cli(['dump', log, ...args]), { code: 0, stdout: '', stderr: '' }, args.join(' '));
  }
});

t.test('dump into a reader that has seen enough ends quietly', async (t) => {
  const log = path.join(temporaryDirectory(t), 'log');
  const writing = await WriteAheadLog.open(log);
  await Promise.all(Array.from({ length: 20_000 }, (_, i) => writing.append(`record ${i} ${'.'.repeat(100)}`)));
  await writing.close();
  const child = startCli('dump', log);
  const outcome = outcomeOf(child);
  await once(child.stdout, 'data');
  child.stdout.destroy();
  t.match(await outcome, { code: 0, signal: null, stderr: '' });
});

t.test('verify: exit code 0 when sound, 1 when damaged, and where', async (t) => {
  const log = path.join(temporaryDirectory(t), 'log');
  await makeLog(log);
  const sound = await cli(['verify', log, '--json']);
  t.equal(sound.code, 0);
  t.equal(sound.stderr, '');
  t.same(JSON.parse(sound.stdout), {
    verdict: 'clean',
    segments: 3,
    records: 5,
    firstLsn: 1,
    lastLsn: 5,
    damage: [],
    lost: [],
  });
  t.match(await cli(['verify', log]), { code: 0, stdout: /^sound: 5 records \(LSN 1 to 5\) in 3 segments/ });

  const [, second] = segments(log);
  const frame = firstRecordsAt(path.join(log, second));
  flip(path.join(log, second), frame + 64);
  const damaged = await cli(['verify', log, '--json']);
  t.equal(damaged.code, 1);
  t.match(JSON.parse(damaged.stdout), {
    verdict: 'corrupt',
    records: 4,
    damage: [{ segment: second, offset: frame, lsn: 3, reason: String }],
  });
  const told = await cli(['verify', log]);
  t.equal(told.code, 1);
  t.match(told.stdout, new RegExp(`DAMAGED[^]*${second} at byte ${frame.toLocaleString('en-US')}, LSN 3: `));
});

t.test('inspect shows segments, checkpoint and what recovery would say', async (t) => {
  const log = path.join(temporaryDirectory(t), 'log');
  await makeLog(log);
  const names = segments(log);
  const { code, stdout, stderr } = await cli(['inspect', log, '--json']);
  t.equal(code, 0);
  t.equal(stderr, '');
  const bytes = names.map((name) => fs.statSync(path.join(log, name)).size);
  t.match(JSON.parse(stdout), {
    logId: /^[0-9a-f]{32}$/,
    formatVersion: 1,
    checkpoint: 1,
    segments: [
      { file: names[0], firstLsn: 1, lastLsn: 2, bytes: bytes[0], state: 'sealed' },
      { file: names[1], firstLsn: 3, lastLsn: 4, bytes: bytes[1], state: 'sealed' },
      { file: names[2], firstLsn: 5, lastLsn: 5, bytes: bytes[2], state: 'sealed' },
    ],
    subscriptions: [],
    recovery: { verdict: 'clean', records: 5, firstLsn: 1, lastLsn: 5 },
  });
  const told = await cli(['inspect', log]);
  for (const name of names) t.match(told.stdout, name);
  t.match(told.stdout, 'opening it would find: clean, 5 records, LSN 1 to 5');
});

t.test('inspect of a damaged log says what recovery would say, and shows the rest', async (t) => {
  const log = path.join(temporaryDirectory(t), 'log');
  await makeLog(log);
  const [first, second, third] = segments(log);
  flip(path.join(log, second), 50);
  const { code, stdout } = await cli(['inspect', log, '--json']);
  t.equal(code, 0);
  t.match(JSON.parse(stdout), {
    segments: [
      { file: first, firstLsn: 1, lastLsn: 2 },
      { file: second, firstLsn: null, state: 'sealed' },
      { file: third, firstLsn: 5, lastLsn: 5 },
    ],
    recovery: { verdict: 'corrupt', message: String, segment: second, offset: 0 },
  });
  t.match((await cli(['inspect', log])).stdout, /opening it would find: corrupt\. /);
  const refused = await cli(['dump', log]);
  t.equal(refused.code, 2);
  t.match(refused.stderr, /^ringwal: .*\(ERR_WAL_CORRUPT\)\n$/);
});

t.test('a log that was opened and never written has nothing to show, and is sound', async (t) => {
  const log = path.join(temporaryDirectory(t), 'log');
  await (await WriteAheadLog.open(log)).close();
  t.match(JSON.parse((await cli(['inspect', log, '--json'])).stdout), { segments: [], recovery: { verdict: 'empty' } });
  t.match(await cli(['verify', log]), { code: 0 });
  t.match(await cli(['dump', log]), { code: 0, stdout: '' });
});
