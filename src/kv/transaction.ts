import { randomUUID } from 'node:crypto';
import { WalError, type WalErrorCode } from '../errors.js';
import { RecordKind } from '../format/record.js';
import { type AppendOptions, checkBytes, checkOptions, checkSignal, tooLarge } from '../producer/arguments.js';
import { OperationBuffer } from '../producer/operation-buffer.js';
import { bodyBytes, type Entry } from '../producer/records.js';
import type { Bytes, Lsn } from '../types.js';

/** Sizes in bytes. */
export interface TransactionLimits {
  maxRecordBytes: number;
  maxTransactionBytes: number;
  /** Of a part, in the log and in memory. */
  partBytes: number;
}

/**
 * What a transaction needs of its log. `doubt` is called before the first step that may count though it fails; what fails
 * before that left nothing behind.
 */
export interface TransactionWriter {
  readonly limits: TransactionLimits;
  /** Writes the operations and their commit. Resolves to the commit's LSN. */
  commit(id: string, operations: OperationBuffer, options: Options, doubt: () => void): Promise<Lsn>;
  /** Writes the operations, durably, to be decided later. */
  prepare(id: string, operations: OperationBuffer, options: Options, doubt: () => void): Promise<void>;
  commitPrepared(id: string, options: Options, doubt?: () => void): Promise<Lsn>;
  abortPrepared(id: string, options: Options, doubt?: () => void): Promise<void>;
}

type Options = AppendOptions | undefined;

/** `lost`: nobody told what became of it when it was committed, prepared or aborted; recovery does. */
type Phase = 'active' | 'busy' | 'prepared' | 'committed' | 'aborted' | 'lost';

const OVER: Record<Exclude<Phase, 'active'>, string> = {
  busy: 'it is being committed, prepared or aborted; await that first',
  prepared: 'it is prepared, and can only be committed or aborted now',
  committed: 'it was committed',
  aborted: 'it was aborted',
  lost: 'it was being written when it was given up; look what became of it in the log, or after reopening it',
};

/** Errors that say that nothing was written: the same can be tried again. */
const HARMLESS = new Set<WalErrorCode>([
  'ERR_WAL_INVALID_ARGUMENT',
  'ERR_WAL_NO_SPACE',
  'ERR_WAL_RECORD_TOO_LARGE',
  'ERR_WAL_TRANSACTION',
  'ERR_WAL_FAILED',
  'ERR_WAL_CLOSED',
]);

/**
 * Puts and deletes that become one atomic group of the log: after any crash, and in every replay, all of them are there
 * or none. They are kept in memory, encoded, until `commit` or `prepare`; nothing of them is in the log before.
 * Any number of transactions may be under way at once. Wrong order of calls rejects with `ERR_WAL_TRANSACTION`.
 */
export class Transaction {
  /** Unique over the life of the log. What `preparedTransactions` lists, and the records of `read` carry. */
  readonly id: string = randomUUID();
  readonly #writer: TransactionWriter;
  readonly #operations: OperationBuffer;
  #phase: Phase = 'active';

  /** @internal Use `WriteAheadLog.transaction`. */
  constructor(writer: TransactionWriter) {
    this.#writer = writer;
    this.#operations = new OperationBuffer(writer.limits.partBytes);
  }

  /**
   * Adds a put. Takes effect at once, also for a caller that does not await it, who may reuse its buffers.
   * `ERR_WAL_RECORD_TOO_LARGE` when the record is over `maxRecordBytes`, or the transaction gets over
   * `maxTransactionBytes`; it is then as it was.
   */
  put(key: Bytes, value: Bytes): Promise<void> {
    return this.#add(() => {
      checkBytes(key, 'The key');
      checkBytes(value, 'The value');
      return { kind: RecordKind.Put, key, value };
    });
  }

  /** Adds a delete; otherwise as `put`. */
  delete(key: Bytes): Promise<void> {
    return this.#add(() => {
      checkBytes(key, 'The key');
      return { kind: RecordKind.Delete, key, value: undefined };
    });
  }

  /**
   * Commits. Resolves to the LSN of the commit, at which a replay shows all of the operations, once it is as durable as
   * `options.durability` says (default: the log's own; `disk` when it was prepared). Without operations it writes
   * nothing and resolves to the last LSN.
   *
   * After `ERR_WAL_NO_SPACE` nothing of it counts, and it can be committed again or aborted. After
   * `ERR_WAL_INDETERMINATE`, or a signal that fired, it may or may not be committed, as a whole.
   */
  async commit(options?: AppendOptions): Promise<Lsn> {
    if (this.#phase === 'prepared') {
      return this.#turn('committed', options, (doubt) => this.#writer.commitPrepared(this.id, options, doubt));
    }
    this.#checkActive();
    const lsn = await this.#turn('committed', options, (doubt) =>
      this.#writer.commit(this.id, this.#operations, options, doubt),
    );
    this.#operations.clear();
    return lsn;
  }

  /**
   * The first phase of two: once it resolves, the operations survive power loss, uncommitted, until `commit` or `abort`
   * here, or `commitPrepared` or `abortPrepared` of the log in any later run. Its durability is always `disk`.
   * Resolves to the id to decide by.
   */
  async prepare(options?: AppendOptions): Promise<string> {
    this.#checkActive();
    await this.#turn('prepared', options, (doubt) => this.#writer.prepare(this.id, this.#operations, options, doubt));
    this.#operations.clear();
    return this.id;
  }

  /** Gives it up: nothing of it ever appears in a replay. Durable, as `abortPrepared`, when it was prepared. */
  async abort(options?: AppendOptions): Promise<void> {
    if (this.#phase === 'prepared') {
      return this.#turn('aborted', options, (doubt) => this.#writer.abortPrepared(this.id, options, doubt));
    }
    this.#checkActive();
    this.#phase = 'aborted';
    this.#operations.clear();
  }

  async #add(entryOf: () => Entry): Promise<void> {
    this.#checkActive();
    const entry = entryOf();
    const { maxRecordBytes, maxTransactionBytes } = this.#writer.limits;
    const body = bodyBytes(entry);
    if (body > maxRecordBytes) throw tooLarge(body, maxRecordBytes);
    const bytes = this.#operations.bytes + body;
    if (bytes > maxTransactionBytes) throw transactionTooLarge(bytes, maxTransactionBytes);
    this.#operations.add(entry, body);
  }

  async #turn<T>(next: Phase, options: AppendOptions | undefined, work: (doubt: () => void) => Promise<T>): Promise<T> {
    if (options !== undefined) checkOptions(options);
    if (options?.signal !== undefined) {
      checkSignal(options.signal);
      options.signal.throwIfAborted();
    }
    const before = this.#phase;
    let inDoubt = false;
    this.#phase = 'busy';
    try {
      const result = await work(() => {
        inDoubt = true;
      });
      this.#phase = next;
      return result;
    } catch (error) {
      const harmless = !inDoubt || (error instanceof WalError && HARMLESS.has(error.code));
      this.#phase = harmless ? before : 'lost';
      throw error;
    }
  }

  #checkActive(): void {
    const phase = this.#phase;
    if (phase === 'active') return;
    throw new WalError('ERR_WAL_TRANSACTION', `Transaction ${this.id} does not take this call: ${OVER[phase]}.`);
  }
}

function transactionTooLarge(bytes: number, limit: number): WalError {
  return new WalError(
    'ERR_WAL_RECORD_TOO_LARGE',
    `A transaction of ${bytes} bytes is over the limit of ${limit}. Split it, or raise maxTransactionBytes.`,
  );
}
