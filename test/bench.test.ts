import fs from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { countOf } from '../bench/compare/events.js';
import { HandOver } from '../bench/compare/hand-over.js';
import { countSyncs } from '../bench/compare/strace.js';
import { output, runTask } from '../bench/compare/task.js';
import { isBad, judge } from '../bench/guard-verdict.js';
import { figure, fillIn, tablesOf } from '../bench/report/tables.js';
import { ringwal, workOf } from '../src/cli/bench/contenders.js';
import { Gathering } from '../src/cli/bench/gathering.js';
import { RawLoop } from '../src/cli/bench/raw-loop.js';
import { failure, temporaryDirectory } from './helpers.js';

/** That the benchmarks measure what they say; how fast anything is, is nobody's business here. */

t.test('the guard: a ratio that fell by more than the tolerance is bad, and so is one that is missing', async (t) => {
  const ratios = { fell: 2, held: 2, edge: 2, rose: 2, missing: 2, none: 2 };
  const measured = { fell: 1.39, held: 1.9, edge: 1.41, rose: 3, none: Number.NaN, added: 1 };
  const verdicts = judge(measured, { ratios, tolerance: 0.3 });
  t.same(Object.fromEntries(verdicts.map(({ name, state }) => [name, state])), {
    fell: 'fell',
    held: 'held',
    edge: 'held',
    rose: 'rose',
    missing: 'not measured',
    none: 'not measured',
    added: 'new',
  });
  t.same(
    verdicts.filter(isBad).map(({ name }) => name),
    ['fell', 'missing', 'none'],
  );
});

t.test('syncs in a trace: calls that sync, and writes to files that sync by themselves', async (t) => {
  const trace = [
    '10 openat(AT_FDCWD, "plain", O_RDWR|O_CREAT, 0664) = 5',
    '10 openat(AT_FDCWD, "meta", O_WRONLY|O_DSYNC|O_CLOEXEC) = 6',
    '11 openat(AT_FDCWD, "other", O_WRONLY|O_SYNC <unfinished ...>',
    '10 pwrite64(5, "x", 1, 0) = 1',
    '11 <... openat resumed>)             = 7',
    '10 fdatasync(5 <unfinished ...>',
    '11 pwrite64(6, "x", 1, 0) = 1',
    '10 <... fdatasync resumed>)          = 0',
    '11 writev(7, [{iov_base="x", iov_len=1}], 1) = 1',
    '10 close(6) = 0',
    '10 openat(AT_FDCWD, "plain too", O_RDWR) = 6',
    '10 write(6, "fsync(5)", 8) = 8',
    '10 fsync(5) = 0',
    '',
  ].join('\n');
  t.equal(countSyncs(trace), 4);
});

t.test(
  'a gathering commits what is pending in one go, in order, and tells of a failure whom it concerns',
  async (t) => {
    const commits: number[][] = [];
    const gathering = new Gathering<number>(async (items) => {
      commits.push(items);
      await new Promise((resolve) => setImmediate(resolve));
      if (items.includes(3)) throw new Error('full');
    });
    const first = gathering.append(1);
    await new Promise((resolve) => setImmediate(resolve));
    const rest = [2, 3].map((item) => gathering.append(item));
    await first;
    const failed = await Promise.all(rest.map((one) => failure(one)));
    await gathering.append(4);
    t.same(commits, [[1], [2, 3], [4]]);
    t.same(
      failed.map((error) => (error as Error).message),
      ['full', 'full'],
    );
  },
);

t.test('the raw loop writes every byte, and syncs each group once', async (t) => {
  const directory = temporaryDirectory(t);
  const gathering = new RawLoop(directory, true, true);
  await Promise.all(['a', 'bc', ''].map((text) => gathering.append(Buffer.from(text))));
  await gathering.append(Buffer.from('d'));
  gathering.close();
  t.equal(fs.readFileSync(`${directory}/raw`, 'utf8'), 'abcd');
  t.equal(gathering.syncs, 2);

  const each = new RawLoop(directory, true, false);
  await Promise.all([each.append(Buffer.from('a')), each.append(Buffer.from('b'))]);
  t.equal(each.syncs, 2);
  each.close();

  const asked = new RawLoop(directory, false, true);
  await asked.append(Buffer.from('a'));
  await Promise.all([asked.append(Buffer.from('b')), asked.append(Buffer.from('c'), true)]);
  await asked.append(Buffer.from('d'));
  asked.close();
  t.equal(asked.syncs, 1, 'only for the group of which one asked for it');
});

t.test('the raw loop over old blocks begins again where its file is full', async (t) => {
  const directory = temporaryDirectory(t);
  const loop = new RawLoop(directory, true, false, 4);
  for (const text of ['ab', 'cd', 'e']) await loop.append(Buffer.from(text));
  loop.close();
  t.equal(fs.readFileSync(`${directory}/raw`, 'utf8'), 'ebcd');
});

t.test(
  'a hand-over writes every record and syncs it before it answers, at the end of a file or over old blocks',
  async (t) => {
    const groups = 100;
    for (const [inFlight, fileBytes] of [
      [3, undefined],
      [600, undefined],
      [3, 4096],
    ] as const) {
      const directory = temporaryDirectory(t);
      const handOver = await HandOver.open(workOf(inFlight, 10, 'disk'), directory, fileBytes);
      for (let group = 1; group <= groups; group++) {
        await Promise.all(Array.from({ length: inFlight }, () => handOver.append()));
        t.ok(handOver.syncs() >= group, 'synced');
      }
      await handOver.close();
      const content = fs.readFileSync(`${directory}/handed-over`, 'latin1');
      const written = content.split('x').length - 1;
      if (fileBytes === undefined) t.equal(written, groups * inFlight * 10);
      else t.equal(content.length, fileBytes);
      t.ok(written >= Math.min(groups * inFlight * 10, (fileBytes ?? 0) / 2));
    }
  },
);

t.test('a log that is checkpointed behind each segment is cleaned up, as the work says', async (t) => {
  const directory = temporaryDirectory(t);
  const contender = await ringwal({ ...workOf(8, 1024 * 1024, 'disk'), checkpoints: true }, directory);
  for (let i = 0; i < 25; i++) await Promise.all(Array.from({ length: 8 }, () => contender.append()));
  const isThere = () => fs.existsSync(`${directory}/0000000000000001.wal`);
  while (isThere()) await new Promise((resolve) => setTimeout(resolve, 10));
  await contender.close();
  t.notOk(isThere(), 'the first segment is gone');
});

t.test('what a report tells of a contender that failed says nothing of the machine', async (t) => {
  const error = await failure(output(process.execPath, ['-e', 'console.error("why"); process.exit(3)']));
  const [first, ...rest] = (error as Error).message.split('\n');
  t.equal(first, 'node ended with 3');
  t.match(rest.join('\n'), /process\.exit.*why/s);
});

t.test('a peer whose syncs cannot be counted costs the run nothing but that count', async (t) => {
  const trouble: string[] = [];
  const directory = path.join(temporaryDirectory(t), 'absent');
  const settings = { rounds: 1, seconds: 0.05, directory, strace: true, onTrouble: (why: string) => trouble.push(why) };
  const work = workOf(1, 100, 'disk');
  const counted = await countOf({ name: 'some work', work, runners: ['lmdb'] }, 'lmdb', settings);
  t.same(counted, { syncs: Number.NaN, countedBy: 'nobody' });
  t.match(trouble, [/^syncs of lmdb.* at 'some work': not counted, /]);
});

t.test('what ringwal did is counted: records and syncs, from one thread and from two', async (t) => {
  const work = workOf(8, 100, 'disk');
  for (const threads of [undefined, [1, 2].map(() => ({ level: 'disk', inFlight: 8 }) as const)]) {
    const directory = temporaryDirectory(t);
    const loaded = await runTask({ op: 'load', contender: 'ringwal', work, seconds: 0.05, directory, threads });
    t.ok(loaded.records > 0 && loaded.allRecords > loaded.records, `${loaded.records} of ${loaded.allRecords}`);
    // At most all that is in flight shares a sync.
    t.ok(loaded.syncsPerRecord >= 0.9 / (threads === undefined ? 8 : 16), `${loaded.syncsPerRecord}`);
    t.equal(loaded.threads?.length, threads?.length);
    t.ok(loaded.cpuMicrosPerRecord > 0);
  }
});

t.test('the report: every table has its place in docs/BENCHMARKS.md, and what is around them stays', async (t) => {
  const page = fs.readFileSync(new URL('../../docs/BENCHMARKS.md', import.meta.url), 'utf8');
  const result = JSON.parse(fs.readFileSync(new URL('../../bench/results.json', import.meta.url), 'utf8'));
  const filled = fillIn(page, tablesOf(result));
  t.equal(filled, page, 'the page shows the result that lies beside it: npm run bench:report');
  const tables = Object.fromEntries(Object.keys(tablesOf(result)).map((name) => [name, 'new']));
  const replaced = fillIn(page, tables);
  t.equal(replaced.split('\n\nnew\n\n').length - 1, Object.keys(tables).length);
  t.ok(replaced.startsWith(page.slice(0, page.indexOf('<!-- figures'))));
  t.throws(() => fillIn('nothing', { goals: '' }), /no place for 'goals'/);
});

t.test('figures have three digits that count, and no more', async (t) => {
  t.same(
    [1234567, 123.4567, 1.23456, 0.00123456, 0, undefined, Number.NaN].map((value) => figure(value)),
    ['1,234,567', '123', '1.23', '0.00123', '0', '–', '–'],
  );
});
