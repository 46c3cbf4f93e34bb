import { SyncSlots } from '../src/ring/sync-slots.js';
import type { Syncer } from '../src/sequencer/syncer.js';
import type { StorageFile } from '../src/storage/storage.js';

/** The I/O actor's end of the line to the thread that syncs for it, which is started the first time it is wanted. */
export class ActorSyncer implements Syncer {
  readonly #slots: SyncSlots;
  readonly #start: () => void;
  #wanted = false;

  constructor(memory: SharedArrayBuffer, start: () => void) {
    this.#slots = new SyncSlots(memory);
    this.#start = start;
  }

  begin({ descriptor }: StorageFile): boolean {
    if (descriptor === undefined) return false;
    if (!this.#slots.alive) {
      // One that died is not replaced: the actor can do it, and something is wrong here.
      if (!this.#wanted) this.#start();
      this.#wanted = true;
      return false;
    }
    this.#slots.ask(descriptor);
    return true;
  }

  over(): number | undefined {
    return this.#slots.busy ? undefined : this.#outcome();
  }

  finish(): number {
    this.#slots.wait();
    return this.#outcome();
  }

  #outcome(): number {
    const failure = this.#slots.failure();
    if (failure !== undefined) throw new Error(failure);
    return this.#slots.ms;
  }
}
