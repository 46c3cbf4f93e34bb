import { operationsOf } from './operations.js';
import { Store } from './store.js';

/** Goes on with the operations where the log ends, tells which were acknowledged, and dies without closing anything. */
const [directory, first, count, flushEvery] = [process.argv[2], ...process.argv.slice(3).map(Number)];
const IN_FLIGHT = 20;

const store = await Store.open(directory);
let flushed = 0;
for (let step = first; step < first + count; ) {
  const under: Promise<void>[] = [];
  for (; under.length < IN_FLIGHT; step++) under.push(apply(step));
  if (step >= first + count) {
    // The end, with twenty operations in flight: no close, no flush, no goodbye.
    await under[0];
    process.send!(step - IN_FLIGHT, () => process.kill(process.pid, 'SIGKILL'));
    break;
  }
  await Promise.all(under);
  if (store.memtableSize >= flushEvery) {
    await store.flush();
    flushed++;
  }
}
console.log(`  wrote up to LSN ${store.wal.watermark('disk')}, ${flushed} memtables flushed; now kill -9`);

function apply(step: number): Promise<void> {
  const operations = operationsOf(step);
  if (operations.length > 1) return store.batch(operations);
  const [operation] = operations;
  const key = String(operation.key);
  return operation.type === 'put' ? store.put(key, String(operation.value)) : store.delete(key);
}
