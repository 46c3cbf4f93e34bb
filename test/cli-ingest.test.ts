import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { acksIn, cli, dumped, isMergeOf, outcomeOf, sha256, startCli } from './cli-helpers.js';
import { temporaryDirectory } from './helpers.js';

/** Distinct lines of odd bytes: each begins with its number. */
function oddLines(count: number): Buffer[] {
  const tails = [
    Buffer.from(' plain'),
    Buffer.from(' with CR\r'),
    Buffer.of(0x20, 0x00, 0x00, 0x01),
    Buffer.of(0x20, 0xff, 0xfe, 0xc3, 0x28),
    Buffer.from(' üñí çødé 🦀'),
    Buffer.from(' {"a":"\\n"}\x1b[31m'),
    Buffer.alloc(3000, 'long '),
  ];
  return Array.from({ length: count }, (_, i) => Buffer.concat([Buffer.from(String(i)), tails[i % tails.length]]));
}

function joined(lines: Buffer[]): Buffer {
  return Buffer.concat(lines.flatMap((line) => [line, Buffer.from('\n')]));
}

t.test('every line comes back byte for byte, in the order of its producer', async (t) => {
  const directory = temporaryDirectory(t);
  const log = path.join(directory, 'log');
  const files = [path.join(directory, 'one'), path.join(directory, 'two')];
  const lines = oddLines(6000);
  fs.writeFileSync(files[0], joined(lines.slice(0, 4000)));
  // The last line has no LF.
  fs.writeFileSync(files[1], joined(lines.slice(4000)).subarray(0, -1));

  const { code, stdout, stderr } = await cli(['ingest', log, ...files, '--json', '--segment-bytes', '1048576']);
  t.equal(code, 0, stderr);
  const summary = JSON.parse(stdout);
  const bytes = lines.reduce((sum, line) => sum + line.byteLength, 0);
  t.match(summary, { records: 6000, bytes, firstLsn: 1, lastLsn: 6000 });
  for (const key of ['commits', 'syncs', 'seconds', 'recordsPerSecond']) t.type(summary[key], 'number', key);
  t.ok(summary.latencyMs.p50 > 0 && summary.latencyMs.p50 <= summary.latencyMs.p99);

  const records = await dumped(log);
  t.same(
    records.map(({ lsn }) => lsn),
    lines.map((_, i) => i + 1),
  );
  const numbers = records.map(({ payload }) => Number.parseInt(payload.toString(), 10));
  t.ok(records.every(({ payload }, i) => payload.equals(lines[numbers[i]])));
  t.equal(new Set(numbers).size, 6000);
  t.ok(isMergeOf(numbers, 4), 'four producers, each in order');
  t.equal((await cli(['verify', log])).code, 0);
});

t.test('one producer keeps the order of the input; empty lines are records, empty files are none', async (t) => {
  const directory = temporaryDirectory(t);
  const log = path.join(directory, 'log');
  const empty = path.join(directory, 'empty');
  const file = path.join(directory, 'file');
  fs.writeFileSync(empty, '');
  fs.writeFileSync(file, '\n\na\r\n\r\n \nlast');
  const { code, stdout } = await cli([
    'ingest',
    log,
    empty,
    file,
    empty,
    '--producers',
    '1',
    '--durability',
    'os',
    '--json',
  ]);
  t.equal(code, 0);
  t.match(JSON.parse(stdout), { records: 6, firstLsn: 1, lastLsn: 6 });
  t.same(
    (await dumped(log)).map(({ payload }) => payload.toString()),
    ['', '', 'a\r', '\r', ' ', 'last'],
  );
});

t.test('standard input without a line leaves a log without records', async (t) => {
  const log = path.join(temporaryDirectory(t), 'log');
  const { code, stdout } = await cli(['ingest', log, '--json'], '');
  t.equal(code, 0);
  t.match(JSON.parse(stdout), { records: 0, bytes: 0, firstLsn: 0, lastLsn: 0, latencyMs: { p50: 0, p99: 0 } });
  t.same(await dumped(log), []);
});

t.test('a line that has arrived is acknowledged while standard input is still open', async (t) => {
  const directory = temporaryDirectory(t);
  const log = path.join(directory, 'log');
  const acks = path.join(directory, 'acks');
  fs.writeFileSync(acks, '{"lsn":1,"sh');
  const child = startCli('ingest', log, '--acks', acks);
  const outcome = outcomeOf(child);
  const watcher = fs.watch(acks);
  child.stdin.write('first\nsecond\nunfin');
  while (acksIn(acks).size < 2) await once(watcher, 'change');
  watcher.close();
  t.same([...acksIn(acks).values()].sort(), [sha256(Buffer.from('first')), sha256(Buffer.from('second'))].sort());
  child.stdin.end('ished');
  t.equal((await outcome).code, 0);
  t.equal((await dumped(log)).length, 3);
  t.match(acksIn(acks).get(3), sha256(Buffer.from('unfinished')));
  t.ok(fs.readFileSync(acks, 'utf8').startsWith('{"lsn":1,"sh\n{"lsn":1,'), 'a line cut short earlier stays apart');
});

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  t.test(`${signal} finishes what was read, closes the log cleanly and says what was done`, async (t) => {
    const directory = temporaryDirectory(t);
    const log = path.join(directory, 'log');
    const acks = path.join(directory, 'acks');
    fs.writeFileSync(acks, '');
    const child = startCli('ingest', log, '--acks', acks, '--json');
    const outcome = outcomeOf(child);
    const watcher = fs.watch(acks);
    child.stdin.on('error', () => {});
    child.stdin.write('a\nb\nc\nnot fin');
    while (acksIn(acks).size < 3) await once(watcher, 'change');
    watcher.close();
    child.kill(signal);
    const { code: exitCode, stdout, stderr } = await outcome;
    t.equal(exitCode, code);
    t.equal(stderr, '');
    t.match(JSON.parse(stdout), { records: 3, firstLsn: 1, lastLsn: 3 });
    const { stdout: inspected } = await cli(['inspect', log, '--json']);
    t.match(JSON.parse(inspected), { recovery: { verdict: 'clean', records: 3 }, segments: [{ state: 'sealed' }] });
  });
}

t.test(
  'a line that is too long for a record is refused with its place; the lines before it are in the log',
  async (t) => {
    const directory = temporaryDirectory(t);
    for (const [name, ending] of [
      ['ended', '\n'],
      ['endless', ''],
    ]) {
      const log = path.join(directory, name);
      const { code, stderr } = await cli(
        ['ingest', log, '--ring-bytes', '65536'],
        `fits\n${'x'.repeat(100_000)}${ending}`,
      );
      t.equal(code, 2);
      t.match(stderr, /^ringwal: the line at byte 5 of standard input is longer than 16384 bytes.*--ring-bytes.*\n$/);
      t.equal(stderr.split('\n').length, 2);
      t.equal((await cli(['verify', log])).code, 0);
      t.match(await dumped(log), [{ payload: Buffer.from('fits') }]);
    }
  },
);

t.test('a second ingest goes on where the first ended; one beside another is refused', async (t) => {
  const directory = temporaryDirectory(t);
  const log = path.join(directory, 'log');
  const acks = path.join(directory, 'acks');
  fs.writeFileSync(acks, '');
  t.match(JSON.parse((await cli(['ingest', log, '--json'], 'a\nb\n')).stdout), { firstLsn: 1, lastLsn: 2 });
  const child = startCli('ingest', log, '--json', '--acks', acks);
  const outcome = outcomeOf(child);
  const watcher = fs.watch(acks);
  child.stdin.write('c\n');
  while (acksIn(acks).size < 1) await once(watcher, 'change');
  watcher.close();
  const refused = await cli(['ingest', log], 'd\n');
  t.equal(refused.code, 2);
  t.match(refused.stderr, /^ringwal: .*\(ERR_WAL_LOCKED\)\n$/);
  // Readers are let in.
  t.equal((await dumped(log)).length, 3);
  t.match(JSON.parse((await cli(['verify', log, '--json'])).stdout), { records: 3, damage: [] });
  t.match(JSON.parse((await cli(['inspect', log, '--json'])).stdout), { segments: [{ lastLsn: 2 }, { lastLsn: 3 }] });
  child.stdin.end();
  t.match(JSON.parse((await outcome).stdout), { records: 1, firstLsn: 3, lastLsn: 3 });
});
