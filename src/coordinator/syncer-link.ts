import { Worker } from 'node:worker_threads';
import type { Control } from '../ring/control.js';
import { SyncSlot, SyncSlots } from '../ring/sync-slots.js';
import type { SyncerData } from './messages.js';

/** The opening thread's part in the thread that syncs for the I/O actor: starts it, ends it, notices its death. */
export class SyncerLink {
  readonly #control: Control;
  readonly #sync = new SyncSlots();
  #worker: Worker | undefined;
  #exited: Promise<void> = Promise.resolve();

  constructor(control: Control) {
    this.#control = control;
  }

  get memory(): SharedArrayBuffer {
    return this.#sync.memory;
  }

  /** It keeps nothing alive: whoever waits for a sync holds the actor. Called once: the actor does not ask again. */
  start(): void {
    const workerData: SyncerData = { control: this.#control.memory, sync: this.#sync.memory };
    const worker = new Worker(new URL('../../workers/syncer.js', import.meta.url), {
      name: 'ringwal-sync',
      workerData,
      execArgv: [],
    });
    this.#worker = worker;
    worker.unref();
    worker.on('error', () => {});
    this.#exited = new Promise((resolve) => {
      worker.once('exit', () => {
        this.#gone();
        resolve();
      });
    });
  }

  /** The actor has ended and asks for nothing any more. */
  async close(): Promise<void> {
    if (this.#worker === undefined) return;
    const { slots } = this.#sync;
    Atomics.store(slots, SyncSlot.stop, 1);
    Atomics.add(slots, SyncSlot.asked, 1);
    Atomics.notify(slots, SyncSlot.asked);
    this.#worker.ref();
    await this.#exited;
  }

  /** Nobody answers any more but this thread. What a sync that was under way did is not known: that is a failed sync. */
  #gone(): void {
    Atomics.store(this.#sync.slots, SyncSlot.alive, 0);
    if (!this.#sync.busy) return;
    this.#sync.answer('the thread that syncs died', 0);
    this.#control.ring();
  }
}
