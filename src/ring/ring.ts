/**
 * One producer thread's ring: frames on their way to the I/O actor. Single producer, single consumer.
 *
 *   head of 32 ints | descriptors, DESCRIPTORS of 16 ints | data, ringBytes
 *
 * A frame lies in one piece in the data area, header and payload as they will lie in the file, so that the actor
 * writes to the file straight from here. Its descriptor says where. Frame number n uses descriptor n % DESCRIPTORS.
 *
 * Who writes what, and when:
 *  - the producer fills a free descriptor and its frame, then stores the state Encoding or Ready. From then on it leaves
 *    both alone until the counters below say that the frame went through;
 *  - the encoder (a pool thread) owns a frame in state Encoding, and stores Ready when it is done. What it makes of the
 *    records goes behind them, where the producer left room for it; the records stay as they are, so that whoever
 *    comes after an encoder that died can begin anew;
 *  - the actor owns a frame in state Ready, from taking it until it advances `written`. It fills the sequencer's half of
 *    the header, and LSN and outcome in the descriptor, before it advances `sequenced`;
 *  - `sequenced`, `written` and `synced` count frames; the actor alone writes them, in ring order. `written` gives the data
 *    area back, and the producer reuses a descriptor only when it has read everything from it.
 * Each hand-over is an Atomics.store seen by an Atomics.load, so what was written before is seen after.
 */
export const RingSlot = {
  sequenced: 0,
  written: 1,
  synced: 2,
  /** {@link RingPhase}: the producer's thread opens and closes, the actor forgets. */
  phase: 3,
  /** 1: the producer sleeps, post a message when a counter moves. Set by the producer, cleared by the actor. */
  wantsWake: 4,
  /** 1: appends wait in line for room, so wake the producer whenever `written` moves. Set as `wantsWake` is. */
  wantsSpace: 5,
  /** Set by whoever connected the handle, once. */
  connected: 6,
} as const;

export const RingPhase = { Open: 0, Closing: 1, Dropped: 2 } as const;

export const FrameState = { Free: 0, Encoding: 1, Ready: 2, Taken: 3 } as const;

export const Descriptor = {
  state: 0,
  /** Where the frame lies as it is to be written. */
  offset: 1,
  /** Bytes of the frame in the file, padding included. */
  bytes: 2,
  /** {@link FrameFlag} bits. */
  flags: 3,
  lsnLow: 4,
  lsnHigh: 5,
  /** {@link FrameOutcome}, written by the actor. */
  outcome: 6,
  /** Where it lies as the producer made it. An encoder's work is elsewhere, and `offset` and `bytes` then tell where. */
  raw: 7,
} as const;

export const FrameFlag = {
  /** The record checksum is not computed yet: the actor does it. */
  NeedsCrc: 1,
  /** Somebody waits for this level: 2 << level. */
  WantsMemory: 2,
  WantsOs: 4,
  WantsDisk: 8,
  WantsAny: 2 | 4 | 8,
} as const;

export const FrameOutcome = { Written: 0, NoSpace: 1 } as const;

export const DESCRIPTORS = 1024;
const HEAD_INTS = 32;
/** A cache line's: the actor takes one while the producer fills the next. */
const DESCRIPTOR_INTS = 16;
const DATA_AT = (HEAD_INTS + DESCRIPTORS * DESCRIPTOR_INTS) * 4;
const TWO_32 = 4294967296;

export class Ring {
  readonly memory: SharedArrayBuffer;
  readonly dataBytes: number;
  readonly head: Int32Array;
  readonly descriptors: Int32Array;
  /** The data area. A Buffer, because it writes strings straight into shared memory. */
  readonly data: Buffer;
  readonly view: DataView;

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.dataBytes = memory.byteLength - DATA_AT;
    this.head = new Int32Array(memory, 0, HEAD_INTS);
    this.descriptors = new Int32Array(memory, HEAD_INTS * 4, DESCRIPTORS * DESCRIPTOR_INTS);
    this.data = Buffer.from(memory as unknown as ArrayBuffer, DATA_AT, this.dataBytes);
    this.view = new DataView(memory, DATA_AT, this.dataBytes);
  }

  static allocate(dataBytes: number): Ring {
    return new Ring(new SharedArrayBuffer(DATA_AT + dataBytes));
  }

  /** Whether this is memory that a ring can lie in. */
  static fits(memory: unknown): memory is SharedArrayBuffer {
    return memory instanceof SharedArrayBuffer && memory.byteLength > DATA_AT && memory.byteLength % 8 === 0;
  }

  /** Index of the first int of a frame's descriptor. */
  descriptor(frame: number): number {
    return (frame % DESCRIPTORS) * DESCRIPTOR_INTS;
  }

  state(frame: number): number {
    return Atomics.load(this.descriptors, this.descriptor(frame) + Descriptor.state);
  }

  /** Hands a frame over; see the table of owners above. */
  setState(frame: number, state: number): void {
    Atomics.store(this.descriptors, this.descriptor(frame) + Descriptor.state, state);
  }

  setLsn(at: number, lsn: number): void {
    this.descriptors[at + Descriptor.lsnLow] = lsn | 0;
    this.descriptors[at + Descriptor.lsnHigh] = Math.floor(lsn / TWO_32);
  }

  lsn(at: number): number {
    return this.descriptors[at + Descriptor.lsnHigh] * TWO_32 + (this.descriptors[at + Descriptor.lsnLow] >>> 0);
  }

  /** How far a counter of the actor is ahead of `mine`, which counts the same frames. */
  ahead(counter: number, mine: number): number {
    return (Atomics.load(this.head, counter) - mine) | 0;
  }

  /** Actor only. */
  advance(counter: number, frames: number): void {
    if (frames > 0) Atomics.add(this.head, counter, frames);
  }
}
