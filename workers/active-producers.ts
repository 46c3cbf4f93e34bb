import { type Control, Slot } from '../src/ring/control.js';
import type { Member } from '../src/sequencer/member.js';

/** How many groups are looked at together: some milliseconds of a busy log. */
const GROUPS = 32;

/** Counts the producers that appended lately. Each of them decides by it how to wait for its commits. */
export class ActiveProducers {
  readonly #control: Control;
  /** How much was taken from each when they were counted last. */
  readonly #taken = new Map<Member, number>();
  #groups = 0;

  constructor(control: Control) {
    this.#control = control;
  }

  add(member: Member): void {
    this.#taken.set(member, member.taken);
  }

  forget(member: Member): void {
    this.#taken.delete(member);
  }

  /** A group was written. */
  note(): void {
    if (++this.#groups % GROUPS !== 0) return;
    let active = 0;
    for (const [member, before] of this.#taken) {
      if (member.taken !== before) active++;
      this.#taken.set(member, member.taken);
    }
    Atomics.store(this.#control.slots, Slot.activeProducers, active);
  }
}
