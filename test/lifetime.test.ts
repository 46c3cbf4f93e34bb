import { WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { numbers, startChild, temporaryDirectory } from './helpers.js';

/** Runs a case of the fixture to its end; what it printed, and the log's last LSN afterwards. */
async function run(t: Test, what: string): Promise<{ lines: string[]; lastLsn: number }> {
  const directory = temporaryDirectory(t);
  const { code, signal, stdout, stderr } = await startChild(t, 'lifetime', [directory, what]).ended;
  t.same({ code, signal, stderr }, { code: 0, signal: null, stderr: '' }, 'it ended by itself');
  const wal = await WriteAheadLog.open(directory);
  const { lastLsn } = wal.recovery;
  await wal.close();
  return { lines: stdout.split('\n').filter(Boolean), lastLsn };
}

t.jobs = 2;

t.test('an open log with nothing in flight does not keep the process alive', async (t) => {
  t.match(await run(t, 'idle'), { lastLsn: 1 });
});

t.test('nor does a producer handle that nobody connected', async (t) => {
  t.match(await run(t, 'handle'), { lastLsn: 0 });
});

t.test('nor does somebody who waits for a record that was never appended', async (t) => {
  t.match(await run(t, 'endless waiter'), { lastLsn: 0 });
});

t.test('nor do idle threads of the pool', async (t) => {
  t.match(await run(t, 'pool'), { lines: ['done'], lastLsn: 3 });
});

t.test('appends in flight do, until they are as durable as was asked', async (t) => {
  t.same(await run(t, 'appends'), { lines: numbers(1, 500).map(String), lastLsn: 500 });
});

t.test("an append at 'memory' is written before the process ends", async (t) => {
  t.same(await run(t, 'memory'), { lines: ['1'], lastLsn: 1 });
});

t.test('who listens hears of the last commit before the process ends', async (t) => {
  t.same(await run(t, 'events'), { lines: ['event 1'], lastLsn: 1 });
});

t.test('who waits for a record that is on its way gets it', async (t) => {
  t.same(await run(t, 'waiter'), { lines: ['durable'], lastLsn: 1 });
});

t.test('rotation, checkpoint and clean-up under way are finished', async (t) => {
  t.same(await run(t, 'maintenance'), { lines: ['checkpoint'], lastLsn: 2 });
});

t.test('after close nothing is left that keeps the process alive', async (t) => {
  t.same(await run(t, 'closed'), { lines: ['closed'], lastLsn: 3 });
});
