import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { outcomeOf, startCli } from './cli-helpers.js';
import { nextEvent, numbers, openLog, segmentFiles, temporaryDirectory } from './helpers.js';

interface Line {
  lsn: number;
  kind: string;
  payload: string;
}

/** `ringwal tail` as the lines that it prints, as they come. */
function startTail(...args: string[]) {
  const child = startCli('tail', ...args);
  const outcome = outcomeOf(child);
  const lines: Line[] = [];
  const waiting = new Set<() => void>();
  createInterface({ input: child.stdout }).on('line', (line) => {
    lines.push(JSON.parse(line));
    for (const look of waiting) look();
  });
  /** Resolves once `count` lines have come. */
  const printed = (count: number) =>
    new Promise<void>((resolve, reject) => {
      const look = () => {
        if (lines.length < count) return;
        waiting.delete(look);
        resolve();
      };
      waiting.add(look);
      look();
      void outcome.then(({ stderr, code }) => reject(new Error(`tail ended with ${code}: ${stderr}`)));
    });
  return { child, lines, printed, outcome };
}

const TIMEOUT = 120_000;

t.test('every record arrives once and in order, through rotations, recycling and clean-ups', async (t) => {
  t.setTimeout(TIMEOUT);
  const directory = temporaryDirectory(t);
  const log = await openLog(t, { segmentBytes: 128 * 1024, autoCleanup: false }, directory);
  await log.append('line 1');
  const tail = startTail(directory);
  t.teardown(() => tail.child.kill('SIGKILL'));
  await tail.printed(1);

  const removed: string[] = [];
  let rotations = 0;
  log.on('rotate', () => rotations++);
  let last = 1;
  for (let round = 0; round < 20; round++) {
    const before = segmentFiles(directory);
    const appends: Promise<number>[] = [];
    for (let i = 0; i < 300; i++) appends.push(log.append(`line ${++last} ${'.'.repeat(i)}`));
    await Promise.all(appends);
    await log.rotate();
    // What has been printed may go, while the tail is busy with what has not.
    const seen = tail.lines.at(-1)!.lsn;
    await log.checkpoint(seen);
    await log.cleanup();
    const after = segmentFiles(directory);
    removed.push(...before.filter((name) => !after.includes(name)));
  }
  await tail.printed(last);
  t.same(
    tail.lines.map(({ lsn }) => lsn),
    numbers(1, last),
  );
  t.ok(
    tail.lines.every(({ lsn, payload }) => payload.startsWith(`line ${lsn}`)),
    'and is what was written',
  );
  t.ok(rotations >= 16, `${rotations} rotations`);
  t.ok(removed.length > 5, `${removed.length} segments went while it ran`);
  tail.child.kill('SIGTERM');
  t.match(await tail.outcome, { code: 0, stderr: '' });
});

t.test('it begins where it is told, follows a log that is opened again, and ends quietly', async (t) => {
  t.setTimeout(TIMEOUT);
  const directory = temporaryDirectory(t);
  const first = await WriteAheadLog.open(directory);
  for (const line of ['one', 'two', 'three']) await first.append(line);
  const tail = startTail(directory, '--from', '2', '--encoding', 'hex', '--level', 'os');
  t.teardown(() => tail.child.kill('SIGKILL'));
  await tail.printed(2);
  await first.close();
  const second = await openLog(t, {}, directory);
  await second.append('four', { durability: 'os' });
  await tail.printed(3);
  t.same(
    tail.lines.map(({ lsn, payload }) => [lsn, Buffer.from(payload, 'hex').toString()]),
    [
      [2, 'two'],
      [3, 'three'],
      [4, 'four'],
    ],
  );
  tail.child.kill('SIGINT');
  t.match(await tail.outcome, { code: 0, stderr: '' });
});

t.test('it ends when nobody reads any more, also while it waits', async (t) => {
  t.setTimeout(TIMEOUT);
  const directory = temporaryDirectory(t);
  const log = await openLog(t, {}, directory);
  await log.append('a record');
  const child = startCli('tail', directory);
  t.teardown(() => child.kill('SIGKILL'));
  const ended = once(child, 'exit');
  let stderr = '';
  child.stderr.on('data', (data) => {
    stderr += data;
  });
  await once(child.stdout, 'data');
  child.stdout.destroy();
  const committed = nextEvent(log, 'commit:disk');
  await log.append('nobody reads this');
  await committed;
  t.same(await ended, [0, null]);
  t.equal(stderr, '');
});
