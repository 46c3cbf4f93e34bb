import { FrameType } from '../format/frame.js';
import { recordBytes } from '../format/record.js';
import { TRANSACTION_PREFIX_BYTES, TransactionRole, writeTransactionPrefix } from '../format/transaction.js';
import { bodyBytes, type Entry, type RecordBatch, writeEntryAt } from './records.js';
import type { Stage } from './stage.js';

/** Size of the first chunk; each further one has twice the size of the one before, up to the buffer's limit. */
const FIRST_CHUNK_BYTES = 1024;

interface Chunk {
  bytes: Buffer;
  used: number;
  records: number;
  largest: number;
}

/** The operations of a transaction, encoded: what they take here is what they will take in the log. */
export class OperationBuffer {
  readonly #chunkBytes: number;
  #chunks: Chunk[] = [];
  #operations = 0;
  #bytes = 0;

  /** A chunk takes `chunkBytes`, or one record that is larger. */
  constructor(chunkBytes: number) {
    this.#chunkBytes = chunkBytes;
  }

  get operations(): number {
    return this.#operations;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Adds an operation whose body takes `body` bytes. */
  add(entry: Entry, body = bodyBytes(entry)): void {
    const bytes = recordBytes(body);
    let chunk = this.#chunks.at(-1);
    if (chunk === undefined || chunk.used + bytes > chunk.bytes.byteLength) {
      const size = chunk === undefined ? FIRST_CHUNK_BYTES : chunk.bytes.byteLength * 2;
      chunk = {
        bytes: Buffer.allocUnsafeSlow(Math.max(bytes, Math.min(size, this.#chunkBytes))),
        used: 0,
        records: 0,
        largest: 0,
      };
      this.#chunks.push(chunk);
    }
    chunk.used = writeEntryAt(chunk.bytes, chunk.used, entry, body);
    chunk.records++;
    chunk.largest = Math.max(chunk.largest, body);
    this.#operations++;
    this.#bytes += bytes;
  }

  /** All of it, as one frame that commits it. */
  whole(id: string): RecordBatch {
    return new TransactionBatch(id, TransactionRole.Whole, this.#chunks);
  }

  /** The same in pieces, to be decided later. */
  parts(id: string): RecordBatch[] {
    return this.#chunks.map((chunk) => new TransactionBatch(id, TransactionRole.Part, [chunk]));
  }

  clear(): void {
    this.#chunks = [];
    this.#operations = 0;
    this.#bytes = 0;
  }
}

class TransactionBatch implements RecordBatch {
  readonly frameType = FrameType.Transaction;
  readonly count: number;
  readonly bytes: number;
  readonly largest: number;
  readonly #id: string;
  readonly #role: number;
  readonly #chunks: readonly Chunk[];

  constructor(id: string, role: number, chunks: readonly Chunk[]) {
    this.#id = id;
    this.#role = role;
    this.#chunks = chunks;
    this.count = chunks.reduce((sum, { records }) => sum + records, 0);
    this.bytes = chunks.reduce((sum, { used }) => sum + used, TRANSACTION_PREFIX_BYTES);
    this.largest = chunks.reduce((most, { largest }) => Math.max(most, largest), 0);
  }

  write(stage: Stage): void {
    const prefix = new Uint8Array(TRANSACTION_PREFIX_BYTES);
    writeTransactionPrefix(prefix, 0, { id: this.#id, role: this.#role, operations: 0, first: 0 });
    stage.copy(prefix);
    for (const { bytes, used } of this.#chunks) stage.copy(bytes.subarray(0, used));
  }

  /** The bytes are ours already, and nothing is added to them while they are written. */
  copied(): RecordBatch {
    return this;
  }
}
