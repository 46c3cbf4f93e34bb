import fs from 'node:fs';
import path from 'node:path';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { inDirectory, median } from '../src/cli/bench/load.js';
import { pageAligned } from '../src/storage/direct-io.js';

/**
 * What the zeros cost that segments are prepared with: one thread writes groups of 56 KiB through over blocks that exist, as the
 * I/O thread does, while a second fills a new file of 64 MiB whenever the first has written as much, and a third is at work, as
 * the one that appends. No log that makes its blocks by writing them comes nearer to one whose blocks exist than this.
 *
 *     node dist/bench/zeros.js [directory]
 */
const KIB = 1024;
const SEGMENT_BYTES = 64 * KIB * KIB;
const GROUP_BYTES = 56 * KIB;
const GROUPS = Math.floor(SEGMENT_BYTES / GROUP_BYTES);
/** Segments of one measurement. */
const SEGMENTS = 3;
const ROUNDS = 5;
const PIECES_KIB = [0, 64, 256, 1024];
const { O_RDWR, O_CREAT, O_EXCL, O_DIRECT, O_DSYNC } = fs.constants;

/** `asked` and `pieceBytes` are written by the main thread, the piece first; `done` by the one that fills. */
const Slot = { asked: 0, done: 1, pieceBytes: 2 } as const;

interface FillData {
  slots: Int32Array;
  directory: string;
}

function fill({ slots, directory }: FillData): void {
  const zeros = pageAligned(Math.max(...PIECES_KIB) * KIB);
  for (let done = 0; ; ) {
    Atomics.wait(slots, Slot.asked, done);
    const pieceBytes = slots[Slot.pieceBytes];
    const file = path.join(directory, `filled-${done % 2}`);
    fs.rmSync(file, { force: true });
    const fd = fs.openSync(file, O_RDWR | O_CREAT | O_EXCL | O_DIRECT);
    for (let at = 0; at < SEGMENT_BYTES; at += pieceBytes) fs.writeSync(fd, zeros, 0, pieceBytes, at);
    fs.fdatasyncSync(fd);
    fs.closeSync(fd);
    Atomics.store(slots, Slot.done, ++done);
  }
}

/** MB/s of one thread that writes groups through, beside fills in pieces of this size; 0: beside none. */
function write(fd: number, slots: Int32Array, pieceBytes: number): number {
  const group = pageAligned(GROUP_BYTES).fill(1);
  const filling = () => Atomics.load(slots, Slot.done) !== Atomics.load(slots, Slot.asked);
  slots[Slot.pieceBytes] = pieceBytes;
  const before = performance.now();
  for (let segment = 0; segment < SEGMENTS; segment++) {
    if (pieceBytes > 0) {
      Atomics.add(slots, Slot.asked, 1);
      Atomics.notify(slots, Slot.asked);
    }
    for (let i = 0; i < GROUPS; i++) fs.writeSync(fd, group, 0, GROUP_BYTES, i * GROUP_BYTES);
    // A log whose next segment is not there has to wait for it.
    while (filling());
  }
  return (SEGMENTS * GROUPS * GROUP_BYTES) / 1000 / (performance.now() - before);
}

async function main(directory: string): Promise<void> {
  const file = path.join(directory, 'written');
  fs.writeFileSync(file, Buffer.alloc(SEGMENT_BYTES), { flush: true });
  const fd = fs.openSync(file, O_RDWR | O_DIRECT | O_DSYNC);
  const slots = new Int32Array(new SharedArrayBuffer(12));
  const workers = [
    new Worker(new URL(import.meta.url), { workerData: { slots, directory } satisfies FillData }),
    new Worker('for (;;);', { eval: true }),
  ];
  const rates = PIECES_KIB.map((): number[] => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, kib] of PIECES_KIB.entries()) rates[i].push(write(fd, slots, kib * KIB));
  }
  for (const [i, kib] of PIECES_KIB.entries()) {
    const what = kib === 0 ? 'no zeros' : `zeros in pieces of ${kib} KiB`;
    const ratio = median(rates[i].map((rate, round) => rate / rates[0][round]));
    console.log(`${what.padEnd(28)} ${median(rates[i]).toFixed(0).padStart(5)} MB/s  ${ratio.toFixed(2)}`);
  }
  fs.closeSync(fd);
  await Promise.all(workers.map((worker) => worker.terminate()));
}

if (O_DIRECT === undefined) console.log('There is no way past the page cache on this platform.');
else if (isMainThread) await inDirectory(process.argv[2], main);
else fill(workerData as FillData);
