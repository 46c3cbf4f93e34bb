import { FRAME_HEADER_BYTES, type FrameHeader, frameBytes, isOfLaterVersion, laterVersion } from '../format/frame.js';
import { checkFrame, type Expectation } from '../segments/walk.js';
import { type ChunkMemory, freshMemory } from './chunks.js';
import type { ReadableFile } from './files.js';

/** How much is read from a file at once. */
const CHUNK_BYTES = 512 * 1024;
/** Room before each chunk for the part of a frame that the chunk before it ended with: most frames are smaller. */
const HEADROOM_BYTES = 128 * 1024;
/**
 * Where frames turn out to be larger, chunks and the room before them are made as large, up to this: otherwise most of what is
 * read would be copied into one piece, in fresh memory. Frames of 1 MB: `verify` 0.9 in the place of 0.6 of a bare checksum.
 */
const MOST_ROOM_BYTES = 4 * 1024 * 1024;

/**
 * Called for each valid frame: its header, and its payload's place in `bytes`. Returns false to stop for good behind it,
 * 'enough' to go on behind it with the next call.
 */
export type FrameVisitor = (
  header: FrameHeader,
  bytes: Uint8Array,
  payloadAt: number,
  offset: number,
) => boolean | 'enough';

export interface FrameStreamOptions {
  memory?: ChunkMemory;
  /** How much is read at once. Default: 512 KiB. */
  chunkBytes?: number;
  /** Read the next chunk while the caller works on this one. Default: true. */
  readAhead?: boolean;
}

/** What one read brought: `bytes` of the file, with free room before it in `memory`. */
interface Chunk {
  memory: Buffer;
  headroom: number;
  bytes: Buffer;
}

/**
 * Reads the frames of one segment in order, chunk by chunk, the next chunk while the caller works on this one. How long
 * views into a chunk stay valid is a matter of the memory: by default, for good.
 */
export class FrameStream {
  readonly #file: ReadableFile;
  readonly #expected: Expectation;
  readonly #memory: ChunkMemory;
  readonly #chunkBytes: number;
  readonly #readAhead: boolean;
  /** Frames end here at the latest. */
  #end: number;
  /** Of the next frame. */
  #offset: number;
  #bytes: Buffer = Buffer.alloc(0);
  #view: DataView = new DataView(new ArrayBuffer(0));
  /** Where `#bytes` starts in the file. */
  #base: number;
  #ahead: Promise<Chunk> | undefined;
  /** Reads that nobody waits for any more. */
  #settling: Promise<unknown> | undefined;
  #finished = false;
  #need = 1;
  /** Of the frames so far that did not end in the chunk that they began in; at most {@link MOST_ROOM_BYTES}. */
  #largest = 0;
  /** The caller did not want what comes next in `#bytes` yet. */
  #paused = false;
  /** What is in `#bytes` was read before the last `resume`: an end in it may be none by now. */
  #stale = false;

  constructor(
    file: ReadableFile,
    offset: number,
    end: number,
    expected: Expectation,
    { memory = freshMemory, chunkBytes = CHUNK_BYTES, readAhead = true }: FrameStreamOptions = {},
  ) {
    this.#file = file;
    this.#chunkBytes = chunkBytes;
    this.#readAhead = readAhead;
    this.#memory = memory;
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

  get lastHeaderCrc(): number | undefined {
    return this.#expected.previousCrc;
  }

  /**
   * Visits the frames of the next chunk that start at or below `lastLsn`. Resolves to false when there are no more, the
   * visitor said stop, or the next frame lies above. Rejects with `ERR_WAL_VERSION` at a frame that holds records in a way
   * that only a later version knows.
   */
  async advance(visit: FrameVisitor, lastLsn = Number.MAX_SAFE_INTEGER): Promise<boolean> {
    if (this.#finished) return false;
    if (!this.#paused && !(await this.#fill())) return this.#stop();
    this.#paused = false;
    const bytes = this.#bytes;
    const limit = bytes.byteLength;
    const fileEnd = this.#end - this.#base;
    const start = this.#offset;
    for (;;) {
      const at = this.#offset - this.#base;
      const header = checkFrame(bytes, this.#view, at, limit, fileEnd, this.#expected);
      if (header === undefined || typeof header === 'number') return this.#atEnd(header);
      if (header.firstLsn > lastLsn) {
        this.#paused = true;
        return false;
      }
      const offset = this.#offset;
      if (isOfLaterVersion(header)) {
        if (offset === start) throw laterVersion(header);
        // What stands before it is handed out first.
        this.#paused = true;
        return true;
      }
      this.#offset += frameBytes(header.storedBytes);
      this.#expected.lsn += header.records;
      this.#expected.previousCrc = header.headerCrc;
      const goOn = visit(header, bytes, at + FRAME_HEADER_BYTES, offset);
      if (goOn === false) return this.#stop();
      if (goOn === 'enough') {
        this.#paused = true;
        return true;
      }
    }
  }

  /** The segment has grown to `end`; what was read before is as it was. Returns whether that is news. */
  extend(end: number): boolean {
    if (end <= this.#end) return false;
    this.#end = end;
    this.#finished = false;
    return true;
  }

  /** There may be more by now, up to `end`, and what was read at the end may have been written over. */
  resume(end: number): void {
    this.#end = end;
    this.#finished = false;
    if (this.#paused) this.#stale = true;
    else this.#drop();
  }

  /** Must be called before the file is closed: a read may be under way. */
  async settle(): Promise<void> {
    await this.#ahead?.catch(() => undefined);
    await this.#settling;
  }

  /** No whole valid frame in the chunk any more. `need`: how many bytes it takes to say more. */
  #atEnd(need: number | undefined): boolean {
    if (this.#stale) {
      this.#drop();
      return true;
    }
    if (need === undefined) return this.#stop();
    this.#need = need;
    this.#largest = Math.max(this.#largest, Math.min(need, MOST_ROOM_BYTES));
    return true;
  }

  /** Forgets what was read, so that it is read again. */
  #drop(): void {
    this.#stale = false;
    this.#need = 1;
    this.#bytes = Buffer.alloc(0);
    this.#base = this.#offset;
    if (this.#ahead !== undefined) this.#settling = Promise.all([this.#settling, this.#ahead.catch(() => {})]);
    this.#ahead = undefined;
  }

  #stop(): false {
    this.#finished = true;
    return false;
  }

  /** Moves on to a chunk that begins at the next frame and holds at least `#need` bytes of it. */
  async #fill(): Promise<boolean> {
    const rest = this.#bytes.subarray(this.#offset - this.#base);
    const position = this.#offset + rest.byteLength;
    const chunk = this.#ahead === undefined ? await this.#read(position, this.#need) : await this.#ahead;
    this.#ahead = undefined;
    let { bytes } = chunk;
    const missing = this.#need - rest.byteLength - bytes.byteLength;
    if (missing > 0) {
      bytes = Buffer.concat([rest, bytes, (await this.#read(position + bytes.byteLength, missing)).bytes]);
      if (bytes.byteLength < this.#need) return false;
      this.#bytes = bytes;
    } else {
      this.#bytes = joined(rest, chunk);
    }
    this.#view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.byteLength);
    this.#base = this.#offset;
    this.#need = 1;
    const next = this.#base + this.#bytes.byteLength;
    if (this.#readAhead && next < this.#end) this.#ahead = this.#read(next, 0);
    // A read that fails is reported by whoever awaits it, which may be later than the failure.
    this.#ahead?.catch(() => undefined);
    return true;
  }

  async #read(position: number, least: number): Promise<Chunk> {
    const size = Math.max(0, Math.min(Math.max(this.#chunkBytes, this.#largest, least), this.#end - position));
    // A small piece at the end of a live log is not worth the headroom; whoever keeps its records would keep that too.
    const headroom = size < HEADROOM_BYTES ? 0 : Math.max(HEADROOM_BYTES, this.#largest);
    const memory = this.#memory.take(headroom + size);
    const space = memory.subarray(headroom);
    return { memory, headroom, bytes: space.subarray(0, await this.#file.read(space, position)) };
  }
}

/** `rest` and the chunk behind it in one piece: without copying the chunk, if the room before it will do. */
function joined(rest: Buffer, { memory, headroom, bytes }: Chunk): Buffer {
  if (rest.byteLength > headroom) return Buffer.concat([rest, bytes]);
  const start = headroom - rest.byteLength;
  memory.set(rest, start);
  return memory.subarray(start, headroom + bytes.byteLength);
}
