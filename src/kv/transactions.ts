import { invalidArgument, WalError } from '../errors.js';
import { Level } from '../format/levels.js';
import type { LogState } from '../format/state.js';
import { NO_TRANSACTIONS, type PreparedState, type TransactionNote } from '../format/transaction.js';
import { type AppendOptions, checkLevel, checkOptions, checkSignal, describe } from '../producer/arguments.js';
import type { OperationBuffer } from '../producer/operation-buffer.js';
import type { LsnRange } from '../producer/producer.js';
import type { RecordBatch } from '../producer/records.js';
import type { TransactionPlace } from '../reader/transaction-records.js';
import type { Lsn, WalRecord } from '../types.js';
import { Transaction, type TransactionLimits, type TransactionWriter } from './transaction.js';

/** What the transactions need of their log. */
export interface TransactionsHost {
  readonly limits: TransactionLimits;
  /** The most that one frame can take. */
  readonly mostFrameBytes: number;
  /** For commits that name none. */
  readonly defaultLevel: number;
  /** Throws what keeps the log from being written. */
  checkOpen(): void;
  /** Appends a batch as the caller asked for it. */
  write(batch: RecordBatch, options: AppendOptions | undefined): Promise<LsnRange>;
  /** Appends a batch also while the log is being closed. Resolves to the LSN of its first record, once it is sequenced. */
  writePart(batch: RecordBatch): Promise<Lsn>;
  /** Takes a step, with at least the durability `os`. Resolves to the LSN of a commit. */
  note(note: TransactionNote): Promise<Lsn>;
  /** Makes everything durable. */
  sync(): Promise<void>;
  /** Closing the log waits for this. */
  underWay<T>(work: Promise<T>): Promise<T>;
}

/** An operation of a prepared transaction. */
export type PreparedOperation = { type: 'put'; key: Uint8Array; value: Uint8Array } | { type: 'del'; key: Uint8Array };

/** A transaction that is prepared, and neither committed nor aborted. */
export interface PreparedTransaction {
  id: string;
  operations: PreparedOperation[];
  /**
   * Some of its operations were damaged and given up by a repair; none is listed, and none would be replayed if it were
   * committed. What is left to do is to abort it.
   */
  lost?: true;
}

/**
 * The transactions of one open log. What fits into a frame is written as one, through the ring like a batch. Everything
 * else takes steps: the actor is told that parts will come; they go through the ring, each a frame, between those of
 * others; and when all of them are in the log, the actor writes what decides over them. As one thread of the log takes
 * these steps in order, and the actor alone decides, of two who decide about the same transaction one is refused.
 */
export class Transactions implements TransactionWriter {
  readonly #host: TransactionsHost;

  constructor(host: TransactionsHost) {
    this.#host = host;
  }

  get limits(): TransactionLimits {
    return this.#host.limits;
  }

  begin(): Transaction {
    this.#host.checkOpen();
    return new Transaction(this);
  }

  async commit(id: string, operations: OperationBuffer, options: AppendOptions | undefined, doubt: () => void) {
    const whole = operations.whole(id);
    if (whole.bytes <= this.#host.mostFrameBytes) {
      doubt();
      return (await this.#host.write(whole, options)).last;
    }
    const level = levelOf(options, this.#host.defaultLevel);
    this.#host.checkOpen();
    return this.#host.underWay(this.#inParts(id, 'commit', operations, level, options?.signal, doubt));
  }

  async prepare(id: string, operations: OperationBuffer, options: AppendOptions | undefined, doubt: () => void) {
    levelOf(options, Level.Disk);
    this.#host.checkOpen();
    await this.#host.underWay(this.#inParts(id, 'prepare', operations, Level.Disk, options?.signal, doubt));
  }

  async commitPrepared(id: string, options?: AppendOptions, doubt = () => {}): Promise<Lsn> {
    return this.#decidePrepared('commitPrepared', id, options, doubt);
  }

  async abortPrepared(id: string, options?: AppendOptions, doubt = () => {}): Promise<void> {
    await this.#decidePrepared('abortPrepared', id, options, doubt);
  }

  async #decidePrepared(
    step: 'commitPrepared' | 'abortPrepared',
    id: string,
    options: AppendOptions | undefined,
    doubt: () => void,
  ): Promise<Lsn> {
    if (typeof id !== 'string') throw invalidArgument(`The id of a transaction is a string, not ${describe(id)}.`);
    const level = levelOf(options, Level.Disk);
    options?.signal?.throwIfAborted();
    this.#host.checkOpen();
    return this.#host.underWay(this.#decide({ step, id }, level, doubt));
  }

  async #inParts(
    id: string,
    step: 'prepare' | 'commit',
    operations: OperationBuffer,
    level: number,
    signal: AbortSignal | undefined,
    doubt: () => void,
  ): Promise<Lsn> {
    await this.#host.note({ step: 'begin', id });
    try {
      const first = await this.#writeParts(operations.parts(id), signal);
      return await this.#decide({ step, id, first, operations: operations.operations }, level, doubt);
    } catch (error) {
      // A failed log forgets it by itself.
      await this.#host.note({ step: 'end', id }).catch(() => {});
      throw error;
    }
  }

  /** One after the other, so that a large transaction takes no more of the ring than a part. Returns the first LSN. */
  async #writeParts(parts: RecordBatch[], signal: AbortSignal | undefined): Promise<Lsn> {
    let first = 0;
    for (const part of parts) {
      signal?.throwIfAborted();
      const lsn = await this.#host.writePart(part).catch((error: unknown) => {
        throw isIndeterminate(error) ? neverCommitted(error) : error;
      });
      first ||= lsn;
    }
    signal?.throwIfAborted();
    return first;
  }

  /** From here on a signal comes too late: what the log says counts. */
  async #decide(note: TransactionNote, level: number, doubt: () => void): Promise<Lsn> {
    doubt();
    try {
      const lsn = await this.#host.note(note);
      if (level >= Level.Disk) await this.#host.sync();
      return lsn;
    } catch (error) {
      // The log was open when the step was begun: nobody knows whether it was taken.
      throw error instanceof WalError && error.code === 'ERR_WAL_FAILED' ? indeterminate(note.id, error) : error;
    }
  }
}

/** Those in doubt, with their operations, which are read from the log. */
export async function listPrepared(
  state: () => LogState,
  read: (place: TransactionPlace) => AsyncIterable<WalRecord[]>,
): Promise<PreparedTransaction[]> {
  const known = () => state().transactions?.prepared ?? NO_TRANSACTIONS.prepared;
  const list: PreparedTransaction[] = [];
  for (const [id, { first, prepared, operations }] of Object.entries(known())) {
    const found: PreparedOperation[] = [];
    try {
      for await (const records of read({ id, first, last: prepared, operations })) {
        for (const record of records) found.push(operationOf(record));
      }
    } catch (error) {
      // Decided meanwhile, and perhaps cleaned up.
      if (Object.hasOwn(known(), id)) throw error;
    }
    list.push({ id, operations: found, ...(found.length < operations && { lost: true as const }) });
  }
  return list.filter(({ id }) => Object.hasOwn(known(), id));
}

/** Without the operations. */
export function preparedIn(state: LogState | undefined): (PreparedState & { id: string })[] {
  return Object.entries(state?.transactions?.prepared ?? {}).map(([id, known]) => ({ id, ...known }));
}

function operationOf({ kind, key, value }: WalRecord): PreparedOperation {
  return kind === 'put' ? { type: 'put', key: key!, value: value! } : { type: 'del', key: key! };
}

function levelOf(options: AppendOptions | undefined, level: number): number {
  if (options === undefined) return level;
  checkOptions(options);
  if (options.signal !== undefined) checkSignal(options.signal);
  return options.durability === undefined ? level : checkLevel(options.durability);
}

function isIndeterminate(error: unknown): boolean {
  return error instanceof WalError && error.code === 'ERR_WAL_INDETERMINATE';
}

function neverCommitted(cause: unknown): WalError {
  const message = `The log failed before the transaction was decided, and nothing of it counts. ${(cause as Error).message}`;
  return new WalError('ERR_WAL_FAILED', message, { cause });
}

function indeterminate(id: string, cause: WalError): WalError {
  const message = `The log failed while transaction ${id} was decided: it may or may not count. Reopen the log to find out. `;
  return new WalError('ERR_WAL_INDETERMINATE', message + cause.message, { cause });
}
