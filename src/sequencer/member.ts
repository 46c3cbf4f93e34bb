import { Field, FRAME_HEADER_BYTES, frameBytes } from '../format/frame.js';
import { DESCRIPTORS, Descriptor, FrameState, type Ring, RingPhase, RingSlot } from '../ring/ring.js';

/** A producer's ring as the actor sees it: how far it took frames from it, and who must be told of what. */
export class Member {
  readonly id: number;
  readonly ring: Ring;
  /** Posts a message to the producer's thread. Its content does not matter. */
  readonly post: () => void;
  /** Frames taken from the ring, counted since it was made. */
  taken = 0;
  /** Frames taken but not yet counted as written or synced. */
  unwritten = 0;
  unsynced = 0;
  /** Of the unsynced, those that the sync under way will have synced. */
  syncing = 0;
  /** {@link FrameFlag} bits of what is waited for among them. */
  waiting = 0;

  constructor(id: number, ring: Ring, post: () => void) {
    this.id = id;
    this.ring = ring;
    this.post = post;
  }

  /**
   * Wakes the producer if it sleeps. It stores wantsWake = 1 and then looks at the counters once more before it sleeps;
   * the counters were advanced before this exchange. So either it sees them, or its 1 is seen here.
   */
  wake(): void {
    if (Atomics.load(this.ring.head, RingSlot.wantsWake) === 0) return;
    if (Atomics.exchange(this.ring.head, RingSlot.wantsWake, 0) === 1) this.post();
  }

  /** Whether appends wait for room in the ring. */
  get wantsSpace(): boolean {
    return Atomics.load(this.ring.head, RingSlot.wantsSpace) === 1;
  }

  /** How many frames in a row are ready to be taken. */
  ready(): number {
    let frames = 0;
    while (frames < DESCRIPTORS && this.ring.state(this.taken + frames) === FrameState.Ready) frames++;
    return frames;
  }

  /**
   * Bytes of the next frame in the file. Throws when its descriptor and its header do not agree, or leave the ring: that
   * frame would make what follows it in the file unreadable, records of other producers included.
   */
  nextBytes(): number {
    const { ring } = this;
    const at = ring.descriptor(this.taken);
    const offset = ring.descriptors[at + Descriptor.offset];
    const bytes = ring.descriptors[at + Descriptor.bytes];
    const inRing = offset >= 0 && bytes >= FRAME_HEADER_BYTES && offset + bytes <= ring.dataBytes;
    if (!inRing || frameBytes(ring.view.getUint32(offset + Field.storedBytes, true)) !== bytes) {
      throw new Error(
        `A producer's ring is damaged: its frame ${this.taken} cannot be of ${bytes} bytes at ${offset}.`,
      );
    }
    return bytes;
  }

  get closing(): boolean {
    return Atomics.load(this.ring.head, RingSlot.phase) !== RingPhase.Open;
  }
}
