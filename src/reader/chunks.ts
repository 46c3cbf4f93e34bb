/** Where a {@link FrameStream} gets the memory for its chunks. */
export interface ChunkMemory {
  /** `size` bytes, whose content does not matter. */
  take(size: number): Buffer;
}

/** Every chunk is memory of its own, so that views into it stay valid for as long as somebody holds them. */
export const freshMemory: ChunkMemory = { take: (size) => Buffer.allocUnsafeSlow(size) };

/**
 * A few buffers that take turns: for those who are done with a chunk when they ask for the next one but one. Fresh
 * memory costs a page fault for every 4 KiB, which is about what the checksum costs.
 */
export class RecycledMemory implements ChunkMemory {
  readonly #buffers: Buffer[] = [];
  #turn = 0;

  take(size: number): Buffer {
    // Three: one being looked at, one being filled, and one that still holds the beginning of a frame.
    const turn = this.#turn++ % 3;
    let buffer = this.#buffers[turn];
    if (buffer === undefined || buffer.byteLength < size) {
      buffer = Buffer.allocUnsafeSlow(size);
      this.#buffers[turn] = buffer;
    }
    return buffer.subarray(0, size);
  }
}
