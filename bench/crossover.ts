import { crc32 as zlibCrc32 } from 'node:zlib';
import CRC32 from 'crc-32';
import { Piscina } from 'piscina';
import { median } from '../src/cli/bench/load.js';

/**
 * The two crossovers of checksumming: from which size on zlib beats the table in JavaScript, and from which size on a
 * frame is cheaper to hand to the pool than to checksum where it is. The constants NATIVE_CRC_BYTES and POOL_FRAME_BYTES
 * are set by this.
 */
const memory = new SharedArrayBuffer(16 * 1024 * 1024);
const bytes = new Uint8Array(memory).fill(7);

function nanoseconds(work: (bytes: Uint8Array) => unknown, size: number): number {
  const view = bytes.subarray(0, size);
  const rounds = Math.max(20, Math.floor(5_000_000 / (size + 500)));
  const once = () => {
    const before = performance.now();
    for (let i = 0; i < rounds; i++) work(view);
    return ((performance.now() - before) * 1e6) / rounds;
  };
  once();
  return median([once(), once(), once(), once(), once()]);
}

console.log('     bytes   crc-32 ns   zlib ns');
for (const size of [32, 64, 128, 192, 256, 384, 512, 1024, 4096, 16384]) {
  const table = nanoseconds((view) => CRC32.buf(view), size);
  const native = nanoseconds((view) => zlibCrc32(view), size);
  console.log(`${String(size).padStart(10)} ${table.toFixed(0).padStart(11)} ${native.toFixed(0).padStart(9)}`);
}

// The task is the real one's shape: a name of shared memory in, nothing out.
const pool = new Piscina({
  filename: new URL('./crossover-task.js', import.meta.url).href,
  minThreads: 1,
  maxThreads: 1,
});
for (let i = 0; i < 200; i++) await pool.run({ memory, size: 1024 });

console.log('\n     bytes   here us   pool: thread us   pool: round trip us');
for (const size of [16, 64, 128, 256, 512, 1024, 4096].map((kib) => kib * 1024)) {
  const here = nanoseconds((view) => zlibCrc32(view), size) / 1000;
  const cost: number[] = [];
  const trip: number[] = [];
  for (let i = 0; i < 200; i++) {
    const before = performance.now();
    const done = pool.run({ memory, size });
    cost.push(performance.now() - before);
    await done;
    trip.push(performance.now() - before);
  }
  const us = (values: number[]) => (median(values) * 1000).toFixed(1);
  console.log(
    `${String(size).padStart(10)} ${here.toFixed(1).padStart(9)} ${us(cost).padStart(17)} ${us(trip).padStart(21)}`,
  );
}
await pool.destroy();
