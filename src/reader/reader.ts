import type { WalRecord } from '../format/record.js';

/**
 * A read of the log: an async iterable of records, or, quicker, of arrays of them. Each iteration reads anew, with the
 * bounds that were taken when the reader was made.
 */
export class Reader implements AsyncIterable<WalRecord> {
  readonly #read: () => AsyncGenerator<WalRecord[], void, undefined>;

  constructor(read: () => AsyncGenerator<WalRecord[], void, undefined>) {
    this.#read = read;
  }

  /** The same records, an array at a time: as many as one read of the file brought. */
  batches(): AsyncGenerator<WalRecord[], void, undefined> {
    return this.#read();
  }

  [Symbol.asyncIterator](): AsyncGenerator<WalRecord, void, undefined> {
    return eachOf(this.#read());
  }
}

async function* eachOf(
  batches: AsyncGenerator<WalRecord[], void, undefined>,
): AsyncGenerator<WalRecord, void, undefined> {
  for await (const records of batches) yield* records;
}
