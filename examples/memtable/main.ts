import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { claim, inTemporaryDirectory, row } from '../support.js';
import { Store } from './store.js';
import { LANES, LaneModel } from './workload.js';

/**
 * The log below an LSM tree: a store whose process is killed with SIGKILL, over and over, at random and behind each step
 * of a flush and of a merge; each time it must hold all that was acknowledged, and nothing else. `--rounds N` (default 1).
 */
const { values } = parseArgs({ options: { rounds: { type: 'string', default: '1' } } });
const TABLE = ['table written', 'table synced', 'table renamed', 'table durable', 'manifest durable'];
const STEPS = [
  ...TABLE.map((step) => `flush: ${step}`),
  'flush: checkpoint durable',
  'flush: log cleaned up',
  ...TABLE.map((step) => `merge: ${step}`),
  'merge: an old table removed',
];
const AT_RANDOM = 'at random';
const ROUND = [AT_RANDOM, ...STEPS, AT_RANDOM];
const COLUMNS = [
  'killed behind step          ',
  'acknowledged',
  'in flight, there',
  'from the log',
  'tables',
  'removed',
];
const writer = fileURLToPath(new URL('./writer.js', import.meta.url));

await inTemporaryDirectory(async (directory) => {
  const models = Array.from({ length: LANES }, (_, lane) => new LaneModel(lane));
  let kills = 0;
  let wrong = 0;
  console.log(COLUMNS.join('  '));
  for (let round = 1; round <= Number(values.rounds); round++) {
    for (const step of ROUND) {
      const before = models.map((model) => model.steps);
      const acknowledged = await liveAndDie(path.join(directory, 'store'), before, step);
      const store = await Store.open(path.join(directory, 'store'));
      const contents = contentsByLane(store);
      let there = 0;
      models.forEach((model, lane) => {
        model.goTo(acknowledged[lane]);
        if (model.holds(contents[lane])) return;
        // The step that was in flight when the process died may have come through. As a whole, and nothing behind it.
        model.goTo(acknowledged[lane] + 1);
        there++;
        if (!model.holds(contents[lane])) wrong++;
      });
      const steps = acknowledged.reduce((sum, n, lane) => sum + n - before[lane], 0);
      const { replayed, orphans } = store.found;
      console.log(row(COLUMNS, [step, steps, there, replayed, store.tables.length, orphans.length]));
      await store.close();
      kills++;
    }
  }
  console.log();
  claim(wrong === 0, `after ${kills} kills all that was acknowledged was there, atomic groups whole, and nothing else`);
  await showCleanUp(path.join(directory, 'store'), models);
});

/** Lets a writer work until it is killed. Returns how many steps each lane has had acknowledged, since the first of all. */
async function liveAndDie(directory: string, first: number[], step: string): Promise<number[]> {
  const notes = `${directory}.notes`;
  fs.writeFileSync(notes, '');
  const args = [writer, directory, notes, JSON.stringify(first), step, '2'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  const exited = once(child, 'exit');
  if (step === AT_RANDOM) {
    while (fs.statSync(notes).size === 0 && child.exitCode === null) await sleep(5);
    await sleep(20 + Math.floor(Math.random() * 200));
    child.kill('SIGKILL');
  }
  const [, signal] = await exited;
  if (signal !== 'SIGKILL') throw new Error('The writer did not die as it should.');
  const acknowledged = [...first];
  for (const line of fs.readFileSync(notes, 'utf8').split('\n').slice(0, -1)) {
    const [lane, n] = line.split(' ').map(Number);
    acknowledged[lane] = n + 1;
  }
  return acknowledged;
}

function contentsByLane(store: Store): Map<string, string>[] {
  const contents = Array.from({ length: LANES }, () => new Map<string, string>());
  for (const [key, value] of store.entries()) contents[Number(String(key).split(' ')[1])].set(`${key}`, `${value}`);
  return contents;
}

async function showCleanUp(directory: string, models: LaneModel[]): Promise<void> {
  const holds = (store: Store) => contentsByLane(store).every((cells, lane) => models[lane].holds(cells));
  let store = await Store.open(directory);
  await store.flush();
  const { watermarks, segments, firstLsn } = store.wal.stats();
  const tables = store.tables;
  await store.close();
  const files = fs.readdirSync(directory).filter((name) => name.includes('.table'));
  claim(files.length === tables.length, `after a flush there are ${files.length} tables, and no other files`);
  claim(segments <= 3, `of ${watermarks.disk} LSNs the log keeps those from ${firstLsn} on, in ${segments} files`);
  store = await Store.open(directory);
  claim(holds(store), 'the store holds what it held');
  claim(store.found.replayed === 0, 'all of it from tables, and none from the log');
  claim(
    [...models[0].cells].every(([key, value]) => String(store.get(key)) === value),
    'and key by key, too',
  );
  claim(store.get('no such key') === undefined, 'but no key that nobody put');
  await store.close();
}
