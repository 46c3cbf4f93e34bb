/**
 * Slots this many ints apart never share a cache line, nor a pair of lines that a processor fetches together, wherever the
 * memory begins. Between two sockets, each time another processor writes to a line that this one looks at costs 250 ns.
 */
const APART = 32;

/**
 * The memory that every thread of one open log shares: who sleeps, how far the log is, and counters.
 *
 * A slot is written by whoever its comment names, and by the I/O actor alone where it names nobody. All slots are read
 * and written through Atomics, which JavaScript orders sequentially: a thread that saw one value sees everything that
 * was stored before it. Slots that are written at different times, or by different threads, lie apart.
 */
export const Slot = {
  /** Incremented by anyone who left work for the actor; the actor sleeps on it. */
  doorbell: 0,

  /** 1 while the actor sleeps or is about to. Whoever rings looks here, and calls notify only then. */
  actorSleeps: APART,

  // Looked at with each append, and written next to never.
  /**
   * {@link LogPhase}. Written by the actor; by the opening thread only once the actor is gone; by a producer's thread
   * only once the opening thread is gone, and the actor with it.
   */
  phase: 2 * APART,
  /** Bytes of the text in the failure area. Written before `phase` says that the log failed. */
  failureBytes: 2 * APART + 1,
  /** Incremented by the opening thread for each message it posted to the actor's port. */
  commands: 2 * APART + 2,
  /** Bits of levels whose advance the opening thread wants to hear of, and {@link FOLLOWED}. Written by the opening thread. */
  interest: 2 * APART + 3,

  // Written with each group, and looked at by whoever wants to hear of commits.
  /** 1 while a wake-up for the opening thread is on its way. Set by the actor, cleared by that thread. */
  openerWake: 3 * APART,
  /** Odd while the actor updates the commit block below (a seqlock). */
  commitVersion: 3 * APART + 1,

  // Written at most once a group, and looked at once a group.
  /** How long the actor waits for a sync lately, whatever is in it, in microseconds. Written by the actor. */
  syncMicroseconds: 4 * APART,
  /** How many producers appended lately. Written by the actor. */
  activeProducers: 4 * APART + 1,
  /** How much of its time the actor spent on groups lately, in thousandths. Written by the actor. */
  actorLoad: 4 * APART + 2,
} as const;

/** In {@link Slot.interest}: there are readers that follow, and will read from the file what comes next. */
export const FOLLOWED = 1 << 8;

export const LogPhase = { Running: 0, Failed: 1, Closed: 2 } as const;

/** 64-bit counters. */
export const Counter = {
  // The commit block, one of each a level, guarded by commitVersion.
  watermark: 0, // + level
  bytes: 4, // + level: record bytes up to that watermark
  at: 8, // + level: when it advanced last, ms since the epoch
  // Plain counters.
  records: 12,
  groups: 13,
  syncs: 14,
  fileBytes: 15,
  segments: 16,
  segmentId: 17,
  segmentOffset: 18,
  firstLsn: 19,
  /** Bytes that the current segment was prepared with, if it grows; `fileBytes` does not count it then. */
  growing: 20,
} as const;

const INT_SLOTS = 5 * APART;
const COUNTERS = 24;
const FAILURE_BYTES = 4096;
const COUNTERS_AT = INT_SLOTS * 4;
const FAILURE_AT = COUNTERS_AT + COUNTERS * 8;

/** Of {@link Slot.actorLoad}. An actor that always finds the next group ready comes to 900 to 980. */
const BUSY_LOAD = 850;

/** An update takes a microsecond; this many looks take longer than the actor is ever kept from its processor in one. */
const MOST_LOOKS = 1_000_000;

export interface CommitSnapshot {
  lsn: number;
  bytes: number;
  at: number;
}

export class Control {
  readonly memory: SharedArrayBuffer;
  readonly slots: Int32Array;
  readonly #counters: BigInt64Array;
  readonly #failure: Uint8Array;

  constructor(memory = new SharedArrayBuffer(FAILURE_AT + FAILURE_BYTES)) {
    this.memory = memory;
    this.slots = new Int32Array(memory, 0, INT_SLOTS);
    this.#counters = new BigInt64Array(memory, COUNTERS_AT, COUNTERS);
    this.#failure = new Uint8Array(memory, FAILURE_AT, FAILURE_BYTES);
  }

  /** Whether this is memory that a control block can lie in. */
  static fits(memory: unknown): memory is SharedArrayBuffer {
    return memory instanceof SharedArrayBuffer && memory.byteLength === FAILURE_AT + FAILURE_BYTES;
  }

  get(counter: number): number {
    return Number(Atomics.load(this.#counters, counter));
  }

  set(counter: number, value: number): void {
    Atomics.store(this.#counters, counter, BigInt(value));
  }

  add(counter: number, value: number): void {
    Atomics.add(this.#counters, counter, BigInt(value));
  }

  /** Any thread: there is something to do for the actor. */
  ring(): void {
    // The order matters: first the bell, then the look at whether somebody sleeps. The actor does the reverse (first
    // says that it will sleep, then looks at the bell), so at least one of the two sees the other.
    Atomics.add(this.slots, Slot.doorbell, 1);
    if (Atomics.load(this.slots, Slot.actorSleeps) === 1) Atomics.notify(this.slots, Slot.doorbell);
  }

  /** Actor only: the watermark of a level moved. */
  publishCommit(level: number, lsn: number, bytes: number, at: number): void {
    Atomics.add(this.slots, Slot.commitVersion, 1);
    this.set(Counter.watermark + level, lsn);
    this.set(Counter.bytes + level, bytes);
    this.set(Counter.at + level, at);
    Atomics.add(this.slots, Slot.commitVersion, 1);
  }

  /**
   * Any thread: lsn, bytes and time of a level's last commit, taken together. An actor that died in the middle of telling
   * of one leaves the version odd for ever; then they are taken one by one, as they are.
   */
  readCommit(level: number): CommitSnapshot {
    for (let looks = 1; ; looks++) {
      const version = Atomics.load(this.slots, Slot.commitVersion);
      const snapshot = {
        lsn: this.get(Counter.watermark + level),
        bytes: this.get(Counter.bytes + level),
        at: this.get(Counter.at + level),
      };
      const whole = version % 2 === 0 && Atomics.load(this.slots, Slot.commitVersion) === version;
      if (whole || looks === MOST_LOOKS) return snapshot;
    }
  }

  get activeProducers(): number {
    return Atomics.load(this.slots, Slot.activeProducers);
  }

  /** Whether whatever is left to the actor makes everybody wait. */
  get actorIsBusy(): boolean {
    return Atomics.load(this.slots, Slot.actorLoad) >= BUSY_LOAD;
  }

  get syncMs(): number {
    return Atomics.load(this.slots, Slot.syncMicroseconds) / 1000;
  }

  watermark(level: number): number {
    return this.get(Counter.watermark + level);
  }

  /**
   * Whether the phase was Running a moment ago, for the path of millions a second: an Atomics.load is a call in V8 and
   * this is one instruction. Who goes on though it is over meets the phase itself, in order, when its promise is settled.
   */
  get running(): boolean {
    return this.slots[Slot.phase] === LogPhase.Running;
  }

  get phase(): number {
    return Atomics.load(this.slots, Slot.phase);
  }

  /** Whoever may write the phase: the log failed, and this is why. */
  fail(description: string): void {
    const text = new TextEncoder().encode(description).subarray(0, FAILURE_BYTES);
    this.#failure.set(text);
    Atomics.store(this.slots, Slot.failureBytes, text.byteLength);
    Atomics.store(this.slots, Slot.phase, LogPhase.Failed);
  }

  failure(): string {
    const bytes = Atomics.load(this.slots, Slot.failureBytes);
    return new TextDecoder().decode(this.#failure.slice(0, bytes));
  }
}
