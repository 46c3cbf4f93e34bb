import fs from 'node:fs';
import { workerData } from 'node:worker_threads';
import type { SyncerData } from '../src/coordinator/messages.js';
import { Control } from '../src/ring/control.js';
import { SyncSlot, SyncSlots } from '../src/ring/sync-slots.js';

/**
 * Syncs files for the I/O actor, which writes on meanwhile. The descriptor is the actor's: descriptors belong to the
 * process, and the actor closes none while a sync is under way.
 */
const data = workerData as SyncerData;
const sync = new SyncSlots(data.sync);
const control = new Control(data.control);
const { slots } = sync;

function syncOnce(): string | undefined {
  try {
    fs.fdatasyncSync(Atomics.load(slots, SyncSlot.descriptor));
    return undefined;
  } catch (error) {
    return String(error);
  }
}

let asked = Atomics.load(slots, SyncSlot.done);
Atomics.store(slots, SyncSlot.alive, 1);
while (Atomics.load(slots, SyncSlot.stop) === 0) {
  Atomics.wait(slots, SyncSlot.asked, asked);
  if (Atomics.load(slots, SyncSlot.asked) === asked || Atomics.load(slots, SyncSlot.stop) === 1) continue;
  asked++;
  const before = performance.now();
  const failure = syncOnce();
  sync.answer(failure, performance.now() - before);
  // The actor may sleep on its bell; if it is awake it looks at `done` in its next step.
  control.ring();
}
