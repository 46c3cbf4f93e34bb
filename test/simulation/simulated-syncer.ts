import type { Syncer } from '../../src/sequencer/syncer.js';
import type { StorageFile } from '../../src/storage/storage.js';
import type { Random } from './random.js';
import type { PendingSync, SimulatedDisk } from './simulated-disk.js';

/** What a sync takes that is told of at once, by the clock of nobody. */
const MS = 1;

/**
 * The thread that syncs for the actor, without a thread: what it was asked to sync is on the platter only once it is over,
 * which is some turns later, or when somebody waits for it, or never, because the log is gone before. Now and then it is
 * not there, or busy starting.
 */
export class SimulatedSyncer implements Syncer {
  readonly #disk: SimulatedDisk;
  readonly #random: () => Random;
  #pending: PendingSync | undefined;
  #turns = 0;
  /** Called when it begins, and when it is over. */
  onBegin: () => void = () => undefined;
  onOver: () => void = () => undefined;

  constructor(disk: SimulatedDisk, random: () => Random) {
    this.#disk = disk;
    this.#random = random;
  }

  get busy(): boolean {
    return this.#pending !== undefined;
  }

  /** The next process has one of its own. */
  reset(): void {
    this.#pending = undefined;
  }

  begin(file: StorageFile): boolean {
    if (this.#random().oneIn(8)) return false;
    this.#pending = this.#disk.beginSync(file);
    this.#turns = this.#random().oneIn(4) ? Number.POSITIVE_INFINITY : this.#random().between(0, 5);
    this.onBegin();
    return true;
  }

  over(): number | undefined {
    return this.#turns-- > 0 ? undefined : this.finish();
  }

  finish(): number {
    const pending = this.#pending!;
    this.#pending = undefined;
    pending();
    this.onOver();
    return MS;
  }
}
