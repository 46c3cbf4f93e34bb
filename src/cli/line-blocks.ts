import { createReadStream } from 'node:fs';
import type { Readable } from 'node:stream';

const LF = 0x0a;
const CHUNK_BYTES = 256 * 1024;
export const STDIN = '-';

/** Whole lines of one source, one behind the other, in memory of their own that can be handed to another thread. */
export interface LineBlock {
  bytes: Uint8Array<ArrayBuffer>;
  source: string;
  /** Where the block begins in its source. */
  offset: number;
}

/** Cuts what arrives in pieces into blocks of whole lines. A line may span any number of pieces. */
export class LineSplitter {
  readonly #source: string;
  #parts: Uint8Array[] = [];
  #carried = 0;
  #offset = 0;

  constructor(source: string) {
    this.#source = source;
  }

  /** Bytes of the line that is not finished yet. */
  get carried(): number {
    return this.#carried;
  }

  /** Where that line begins. */
  get offset(): number {
    return this.#offset;
  }

  /** The lines that `chunk` completes, if any. */
  push(chunk: Uint8Array): LineBlock | undefined {
    const end = chunk.lastIndexOf(LF) + 1;
    if (end === 0) {
      this.#carry(chunk);
      return undefined;
    }
    this.#carry(chunk.subarray(0, end));
    const block = this.#take();
    this.#carry(chunk.subarray(end));
    return block;
  }

  /** The last line, when no LF ends it. */
  end(): LineBlock | undefined {
    return this.#carried === 0 ? undefined : this.#take();
  }

  #carry(bytes: Uint8Array): void {
    if (bytes.byteLength === 0) return;
    this.#parts.push(bytes);
    this.#carried += bytes.byteLength;
  }

  #take(): LineBlock {
    const bytes = new Uint8Array(this.#carried);
    let at = 0;
    for (const part of this.#parts) {
      bytes.set(part, at);
      at += part.byteLength;
    }
    const block = { bytes, source: this.#source, offset: this.#offset };
    this.#offset += this.#carried;
    this.#parts = [];
    this.#carried = 0;
    return block;
  }
}

/** Calls `visit` for each line of a block, without its LF. Stops when `visit` returns a promise, and waits for it. */
export async function eachLine(
  block: Buffer,
  visit: (line: Buffer, at: number) => Promise<void> | undefined,
): Promise<void> {
  for (let start = 0; start < block.byteLength; ) {
    const lf = block.indexOf(LF, start);
    const end = lf < 0 ? block.byteLength : lf;
    const pause = visit(block.subarray(start, end), start);
    if (pause !== undefined) await pause;
    start = end + 1;
  }
}

/**
 * The lines of the sources, in order, as they arrive: a block is made of whatever whole lines have come, without waiting
 * for more. An aborted signal ends it quietly, and a line that was not finished then is left out.
 */
export async function* lineBlocks(
  sources: string[],
  longest: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<LineBlock, void, undefined> {
  for (const source of sources) {
    if (signal?.aborted) return;
    const splitter = new LineSplitter(source);
    const stream = source === STDIN ? process.stdin : createReadStream(source, { highWaterMark: CHUNK_BYTES });
    const stop = () => stream.destroy();
    signal?.addEventListener('abort', stop, { once: true });
    try {
      for await (const chunk of stream as Readable) {
        const block = splitter.push(chunk);
        if (block !== undefined) yield block;
        if (splitter.carried > longest) throw new LineTooLongError(source, splitter.offset, longest);
      }
      const last = splitter.end();
      if (last !== undefined && !signal?.aborted) yield last;
    } catch (error) {
      if (!signal?.aborted) throw error;
    } finally {
      signal?.removeEventListener('abort', stop);
    }
  }
}

export class LineTooLongError extends Error {
  constructor(source: string, offset: number, longest: number) {
    const where = source === STDIN ? 'standard input' : source;
    super(
      `the line at byte ${offset} of ${where} is longer than ${longest} bytes, which is as long as a record may be. ` +
        'Raise --ring-bytes to four times the longest line',
    );
  }
}
