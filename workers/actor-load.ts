import { type Control, Slot } from '../src/ring/control.js';

/** Long enough for some hundred groups of a quick disk, short enough to notice when the load changes. */
const WINDOW_MS = 20;

/** Tells the producers how much of its time the actor spends on groups. */
export class ActorLoad {
  readonly #slots: Int32Array;
  #since = performance.now();
  #busyMs = 0;

  constructor(control: Control) {
    this.#slots = control.slots;
  }

  /** A group took from `startedAt` to `now`. */
  note(startedAt: number, now: number): void {
    this.#busyMs += now - startedAt;
    const elapsed = now - this.#since;
    if (elapsed < WINDOW_MS) return;
    Atomics.store(this.#slots, Slot.actorLoad, Math.round((1000 * this.#busyMs) / elapsed));
    this.#since = now;
    this.#busyMs = 0;
  }
}
