import fs from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { GROUPS, type HandOverData, Shared } from './hand-over.js';

/** The other side of a hand-over: writes the groups at the end of a file, and syncs it if that is wanted. */
const { slots, bytes: ring, file, syncs, fileBytes } = workerData as HandOverData;
const memory = new Uint8Array(ring);
const LOOKS = 20_000;
const fd = fs.openSync(file, 'w');
if (fileBytes !== undefined) {
  fs.writeFileSync(fd, Buffer.alloc(fileBytes));
  fs.fdatasyncSync(fd);
}
parentPort!.postMessage('ready');

/** How many groups were handed over, once it is more than `done`; undefined when it is over. */
function next(done: number): number | undefined {
  for (let looks = 1; Atomics.load(slots, Shared.over) === 0; looks++) {
    const handedOver = Atomics.load(slots, Shared.handedOver);
    if (handedOver !== done) return handedOver;
    if (looks % LOOKS !== 0) continue;
    Atomics.store(slots, Shared.sleeps, 1);
    Atomics.wait(slots, Shared.handedOver, handedOver, 100);
    Atomics.store(slots, Shared.sleeps, 0);
  }
  return undefined;
}

function write(views: Uint8Array[], position: number): number {
  const bytes = views.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const at = position + bytes > (fileBytes ?? Number.POSITIVE_INFINITY) ? 0 : position;
  const written = fs.writevSync(fd, views, at);
  if (written !== bytes) throw new Error(`Of ${bytes} bytes ${written} were written.`);
  return at + bytes;
}

let position = 0;
let done = 0;
for (let handedOver = next(done); handedOver !== undefined; handedOver = next(done)) {
  const views: Uint8Array[] = [];
  for (let group = done; group < handedOver; group++) {
    const place = Shared.places + 2 * (group % GROUPS);
    views.push(memory.subarray(slots[place], slots[place] + slots[place + 1]));
  }
  position = write(views, position);
  if (syncs) fs.fdatasyncSync(fd);
  done = handedOver;
  Atomics.store(slots, Shared.done, done);
}
fs.closeSync(fd);
