import { FRAME_HEADER_BYTES, type FrameHeader, frameBytes } from '../format/frame.js';
import { checkFrame, type Expectation } from '../segments/walk.js';
import type { ReadableFile } from './files.js';

/** How much is read from a file at once. */
const CHUNK_BYTES = 512 * 1024;

/** Called for each valid frame: its header, and its payload's place in `bytes`. Returns false to stop behind it. */
export type FrameVisitor = (header: FrameHeader, bytes: Uint8Array, payloadAt: number, offset: number) => boolean;

/**
 * Reads the frames of one segment in order, chunk by chunk, the next chunk while the caller works on this one. Every
 * chunk is memory of its own, so that views into it stay valid.
 */
export class FrameStream {
  readonly #file: ReadableFile;
  readonly #expected: Expectation;
  /** Frames end here at the latest. */
  readonly #end: number;
  /** Of the next frame. */
  #offset: number;
  #bytes: Buffer = Buffer.alloc(0);
  #view: DataView = new DataView(new ArrayBuffer(0));
  /** Where `#bytes` starts in the file. */
  #base: number;
  #ahead: Promise<Buffer> | undefined;
  #finished = false;
  #need = 1;

  constructor(file: ReadableFile, offset: number, end: number, expected: Expectation) {
    this.#file = file;
    this.#offset = offset;
    this.#base = offset;
    this.#end = end;
    this.#expected = { ...expected };
  }

  /** The offset behind the last valid frame so far. */
  get offset(): number {
    return this.#offset;
  }

  /** The LSN that the next frame should start with. */
  get lsn(): number {
    return this.#expected.lsn;
  }

  get lastHeaderCrc(): number {
    return this.#expected.previousCrc;
  }

  /** Visits the frames of the next chunk. Resolves to false when there are no more, or the visitor said stop. */
  async advance(visit: FrameVisitor): Promise<boolean> {
    if (this.#finished || !(await this.#fill())) return this.#stop();
    const bytes = this.#bytes;
    const limit = bytes.byteLength;
    const fileEnd = this.#end - this.#base;
    for (;;) {
      const at = this.#offset - this.#base;
      const header = checkFrame(bytes, this.#view, at, limit, fileEnd, this.#expected);
      if (typeof header === 'number') {
        this.#need = header;
        return true;
      }
      if (header === undefined) return this.#stop();
      const offset = this.#offset;
      this.#offset += frameBytes(header.storedBytes);
      this.#expected.lsn += header.records;
      this.#expected.previousCrc = header.headerCrc;
      if (!visit(header, bytes, at + FRAME_HEADER_BYTES, offset)) return this.#stop();
    }
  }

  /** Must be called before the file is closed: a read may be under way. */
  async settle(): Promise<void> {
    await this.#ahead?.catch(() => undefined);
  }

  #stop(): false {
    this.#finished = true;
    return false;
  }

  /** Moves on to a chunk that begins at the next frame and holds at least `#need` bytes of it. */
  async #fill(): Promise<boolean> {
    const rest = this.#bytes.subarray(this.#offset - this.#base);
    const position = this.#offset + rest.byteLength;
    let more = this.#ahead === undefined ? await this.#read(position, this.#need) : await this.#ahead;
    this.#ahead = undefined;
    if (rest.byteLength + more.byteLength < this.#need) {
      const missing = await this.#read(position + more.byteLength, this.#need - rest.byteLength - more.byteLength);
      more = Buffer.concat([more, missing]);
    }
    if (rest.byteLength + more.byteLength < this.#need) return false;
    this.#bytes = rest.byteLength === 0 ? more : joined(rest, more);
    this.#view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.byteLength);
    this.#base = this.#offset;
    this.#need = 1;
    const next = this.#base + this.#bytes.byteLength;
    if (next < this.#end) this.#ahead = this.#read(next, 0);
    // A read that fails is reported by whoever awaits it, which may be later than the failure.
    this.#ahead?.catch(() => undefined);
    return true;
  }

  async #read(position: number, least: number): Promise<Buffer> {
    const size = Math.max(0, Math.min(Math.max(CHUNK_BYTES, least), this.#end - position));
    const buffer = Buffer.allocUnsafeSlow(size);
    return buffer.subarray(0, await this.#file.read(buffer, position));
  }
}

function joined(rest: Buffer, more: Buffer): Buffer {
  const whole = Buffer.allocUnsafeSlow(rest.byteLength + more.byteLength);
  whole.set(rest, 0);
  whole.set(more, rest.byteLength);
  return whole;
}
