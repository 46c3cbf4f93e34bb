import { fork } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { claim, inTemporaryDirectory } from '../support.js';
import { modelUpTo } from './operations.js';
import { Store } from './store.js';

/**
 * The log below an LSM tree: a store whose process is killed three times, each time with operations in flight, and that
 * comes back each time from its sorted tables and the log. Then it flushes, checkpoints and cleans up by itself.
 */
const LIVES = 3;
const OPERATIONS_PER_LIFE = 4_000;
const FLUSH_EVERY = 400;
const writer = fileURLToPath(new URL('./writer.js', import.meta.url));

await inTemporaryDirectory(async (directory) => {
  let next = 0;
  for (let life = 1; life <= LIVES; life++) {
    console.log(`life ${life}`);
    const acknowledged = await live(directory, next);
    const store = await Store.open(directory);
    const { verdict, lastLsn, firstLsn, checkpoint, segments } = store.wal.recovery;
    console.log(
      `  recovered (${verdict}): LSN ${firstLsn} to ${lastLsn} in ${segments} segments, checkpoint ${checkpoint},`,
    );
    console.log(
      `  so ${lastLsn - checkpoint} operations came from the log and the rest from ${tables(directory)} tables`,
    );
    const model = modelUpTo(lastLsn);
    claim(model.whole, 'no batch is there in part');
    claim(model.steps > acknowledged, `all ${acknowledged} acknowledged operations are there (${model.steps} in all)`);
    claim(
      same(store.contents(), model.contents),
      `${model.contents.length} keys have the values that they should have`,
    );
    next = model.steps;
    await store.wal.close();
  }

  const store = await Store.open(directory);
  const before = store.contents();
  const { segments, bytes } = store.wal.stats();
  await store.flush();
  const after = store.wal.stats();
  console.log(
    `flush, checkpoint, clean-up: ${segments} segments with ${bytes} bytes became ${after.segments} with ${after.bytes}`,
  );
  claim(after.firstLsn > after.checkpoint, 'the log holds nothing below the checkpoint any more');
  claim(same(store.contents(), before), 'the store holds what it held');
  await store.wal.close();
  const again = await Store.open(directory);
  claim(same(again.contents(), before), 'and after closing and opening it, too, from its tables alone');
  await again.wal.close();
});

/** Lets the writer work until it kills itself. Returns how many steps, since the first of all, it had acknowledged. */
async function live(directory: string, first: number): Promise<number> {
  const child = fork(writer, [directory, first, OPERATIONS_PER_LIFE, FLUSH_EVERY].map(String));
  let acknowledged = -1;
  child.on('message', (step) => {
    acknowledged = Number(step);
  });
  const [, signal] = await once(child, 'exit');
  if (signal !== 'SIGKILL' || acknowledged < 0) throw new Error('The writer did not die as it should.');
  return acknowledged;
}

function tables(directory: string): number {
  return fs.readdirSync(directory).filter((name) => name.endsWith('.table')).length;
}

function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
