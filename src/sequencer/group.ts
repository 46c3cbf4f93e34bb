import type { Ring } from '../ring/ring.js';

/**
 * The views of one group's frames, in file order. Frames that lie side by side in a ring become one view, so that a
 * group from one producer is one write of one view.
 */
export class Group {
  readonly views: Uint8Array[] = [];
  bytes = 0;
  frames = 0;
  /** {@link FrameFlag} bits of what is waited for among its frames. */
  flags = 0;
  #ring: Ring | undefined;
  #start = 0;
  #end = 0;

  add(ring: Ring, offset: number, bytes: number): void {
    if (ring !== this.#ring || offset !== this.#end) {
      this.#closeView();
      this.#ring = ring;
      this.#start = offset;
    }
    this.#end = offset + bytes;
    this.bytes += bytes;
    this.frames++;
  }

  /** No more frames: `views` is complete. */
  finish(): void {
    this.#closeView();
    this.#ring = undefined;
  }

  clear(): void {
    this.views.length = 0;
    this.bytes = 0;
    this.frames = 0;
    this.flags = 0;
    this.#ring = undefined;
  }

  #closeView(): void {
    if (this.#ring !== undefined) this.views.push(this.#ring.data.subarray(this.#start, this.#end));
  }
}
