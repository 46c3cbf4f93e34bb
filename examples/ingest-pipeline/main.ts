import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { WriteAheadLog } from 'ringwal';
import { claim, inTemporaryDirectory, mib, row } from '../support.js';
import { fill } from './fill.js';

/**
 * Five threads append at `disk` through rings that are too small for what they have in flight, so the disk sets their
 * pace. A sink reads what is durable, more slowly than it comes, and checkpoints what it has dealt with. What the sink
 * has not got to lies in files; memory stays as it is.
 */
const THREADS = 5;
const RECORDS = 6_000;
const RECORD_BYTES = 8 * 1024;
const EXPECTED = THREADS * RECORDS;
/** Two thirds of what is written. The heaps of the five threads are in it, each of which is collected when it likes. */
const MEMORY_LIMIT = 160 * 1024 * 1024;
/** Garbage of reading comes and goes in waves; collected before each sample, what is in use remains. */
setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;
const COLUMNS = ['   ms', 'durable LSN', 'sink is behind by', 'log files, MiB', 'ring used', 'queue', 'memory, MiB'];

await inTemporaryDirectory(async (directory) => {
  const wal = await WriteAheadLog.open(directory, { ringBytes: 256 * 1024, segmentBytes: 16 * 1024 * 1024 });
  const waits = { began: 0, ended: 0 };
  wal.on('backpressure', () => waits.began++);
  wal.on('drain', () => waits.ended++);

  const startedAt = performance.now();
  const sink = { lsn: 0, outOfOrder: 0, next: new Array<number>(THREADS).fill(0) };
  const memory: number[] = [];
  const sample = () => {
    const { watermarks, bytes, ring, queueDepth } = wal.stats();
    collectGarbage();
    const resident = process.memoryUsage.rss();
    // From then on: by a quarter of the way all threads have started, and have the heap that they work with.
    if (watermarks.disk > EXPECTED / 4) memory.push(resident);
    const ringUse = `${Math.round((100 * ring.used) / ring.bytes)} %`;
    const cells = [watermarks.disk, watermarks.disk - sink.lsn, mib(bytes), ringUse, queueDepth, mib(resident)];
    console.log(row(COLUMNS, [Math.round(performance.now() - startedAt), ...cells]));
  };

  // This thread is a source like the others; its ring and its queue are the ones that `stats` shows.
  const sources = [fill(wal, 0, RECORDS, RECORD_BYTES)];
  for (let id = 1; id < THREADS; id++) sources.push(sourceInWorker(wal, id));
  console.log(COLUMNS.join('  '));
  sample();
  const sampler = setInterval(sample, 200);

  while (sink.lsn < EXPECTED) {
    await wal.waitFor(sink.lsn + 1, 'disk');
    for await (const records of wal.read({ from: sink.lsn + 1, to: wal.watermark('disk') }).batches()) {
      for (const { payload, lsn } of records) {
        const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
        if (view.getUint32(4, true) !== sink.next[view.getUint32(0, true)]++) sink.outOfOrder++;
        sink.lsn = lsn;
      }
      await sleep(3); // The sink's own slowness.
    }
    // What the sink has dealt with is safe elsewhere: segments that hold nothing else may go.
    await wal.checkpoint(sink.lsn);
  }
  await Promise.all(sources);
  clearInterval(sampler);
  sample();

  const seconds = (performance.now() - startedAt) / 1000;
  const bytes = EXPECTED * RECORD_BYTES;
  const { syncs, recordsPerSync, latencyMs } = wal.stats();
  const growth = Math.max(...memory) - memory[0];
  await wal.close();

  console.log(`
${EXPECTED} records, ${mib(bytes)} MiB from ${THREADS} threads in ${seconds.toFixed(1)} s:
${Math.round(EXPECTED / seconds)} records/s, ${mib(bytes / seconds)} MiB/s, ${syncs} syncs, ${recordsPerSync.toFixed(1)} records per sync;
from append to disk in this thread ${latencyMs.disk.p50.toFixed(1)} ms in the median, ${latencyMs.disk.p99.toFixed(1)} ms for 99 %
`);
  claim(sink.lsn === EXPECTED, `the sink got all ${EXPECTED} records`);
  claim(sink.outOfOrder === 0, "each thread's records came in the order in which it appended them");
  claim(
    waits.began > 0 && waits.began === waits.ended,
    `${waits.began} times appends waited for the disk, and went on`,
  );
  claim(growth < MEMORY_LIMIT, `memory grew by ${mib(growth)} MiB at most over the last three quarters of it`);
});

/** Starts a source in a thread of its own; resolves when it has written everything. */
function sourceInWorker(wal: WriteAheadLog, id: number): Promise<void> {
  const workerData = { handle: wal.producer(), id, records: RECORDS, recordBytes: RECORD_BYTES };
  const worker = new Worker(new URL('./source.js', import.meta.url), { workerData });
  return new Promise((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', () => resolve());
  });
}
