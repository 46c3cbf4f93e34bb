import fs from 'node:fs';
import { Store } from './store.js';
import { LANES, stepOf } from './workload.js';

/**
 * The process that dies. Its lanes write as quickly as they can, and note each step in the moment in which it was
 * acknowledged: what stands in the file survives a SIGKILL, because the kernel has it.
 */
const [directory, notesFile, firstSteps, dieAt, occurrence] = process.argv.slice(2);
const notes = fs.openSync(notesFile, 'a');
let left = Number(occurrence);

const store = await Store.open(directory, {
  memtableBytes: 32 * 1024,
  segmentBytes: 128 * 1024,
  onStep: (step) => {
    if (step === dieAt && --left === 0) process.kill(process.pid, 'SIGKILL');
  },
});
const starts: number[] = JSON.parse(firstSteps);
await Promise.all(Array.from({ length: LANES }, (_, lane) => work(lane)));

async function work(lane: number): Promise<never> {
  for (let n = starts[lane]; ; n++) {
    const { atomic, operations } = stepOf(lane, n);
    const [first] = operations;
    if (atomic !== undefined) await store[atomic](operations);
    else if (first.type === 'put') await store.put(first.key, first.value);
    else await store.delete(first.key);
    fs.writeSync(notes, `${lane} ${n}\n`);
  }
}
