/**
 * The memory between the I/O actor and the thread that syncs on its behalf: one file at a time, because the actor waits
 * for an answer before it asks again.
 */
export const SyncSlot = {
  /** How many syncs were asked for. Written by the actor, behind `descriptor`; the syncer sleeps on it. */
  asked: 0,
  /** How many of them are over. Written by the syncer, behind `failureBytes`; by the opening thread once that one is gone. */
  done: 1,
  /** The file to sync. Written by the actor, before `asked`. */
  descriptor: 2,
  /** Bytes of the text that says why a sync failed; 0: it did not. Whoever writes `done`. */
  failureBytes: 3,
  /** How long the last one took, in microseconds. Whoever writes `done`, before it. */
  microseconds: 6,
  /** 1: the syncer takes requests. Set by the syncer, cleared by the opening thread once that one is gone. */
  alive: 4,
  /** 1: it shall end. Written by the opening thread, which then counts `asked` up though nothing is asked: the actor is gone. */
  stop: 5,
} as const;

const INT_SLOTS = 8;
const FAILURE_AT = INT_SLOTS * 4;
const FAILURE_BYTES = 1024;

export class SyncSlots {
  readonly memory: SharedArrayBuffer;
  readonly slots: Int32Array;
  readonly #failure: Uint8Array;

  constructor(memory = new SharedArrayBuffer(FAILURE_AT + FAILURE_BYTES)) {
    this.memory = memory;
    this.slots = new Int32Array(memory, 0, INT_SLOTS);
    this.#failure = new Uint8Array(memory, FAILURE_AT, FAILURE_BYTES);
  }

  get alive(): boolean {
    return Atomics.load(this.slots, SyncSlot.alive) === 1;
  }

  get busy(): boolean {
    return Atomics.load(this.slots, SyncSlot.done) !== Atomics.load(this.slots, SyncSlot.asked);
  }

  /** Actor only, while not busy. */
  ask(descriptor: number): void {
    Atomics.store(this.slots, SyncSlot.descriptor, descriptor);
    Atomics.add(this.slots, SyncSlot.asked, 1);
    Atomics.notify(this.slots, SyncSlot.asked);
  }

  /** Actor only: sleeps until the answer is there. */
  wait(): void {
    for (;;) {
      const done = Atomics.load(this.slots, SyncSlot.done);
      if (done === Atomics.load(this.slots, SyncSlot.asked)) return;
      Atomics.wait(this.slots, SyncSlot.done, done);
    }
  }

  /** The syncer, or the opening thread when that one is gone: the answer to the request under way. */
  answer(failure: string | undefined, ms: number): void {
    const text = new TextEncoder().encode(failure ?? '').subarray(0, FAILURE_BYTES);
    this.#failure.set(text);
    Atomics.store(this.slots, SyncSlot.failureBytes, text.byteLength);
    Atomics.store(this.slots, SyncSlot.microseconds, Math.round(ms * 1000));
    Atomics.add(this.slots, SyncSlot.done, 1);
    Atomics.notify(this.slots, SyncSlot.done);
  }

  /** How long the last sync took. Actor only, while not busy. */
  get ms(): number {
    return Atomics.load(this.slots, SyncSlot.microseconds) / 1000;
  }

  /** Why the last sync failed; undefined: it did not. Actor only, while not busy. */
  failure(): string | undefined {
    const bytes = Atomics.load(this.slots, SyncSlot.failureBytes);
    return bytes === 0 ? undefined : new TextDecoder().decode(this.#failure.slice(0, bytes));
  }
}
