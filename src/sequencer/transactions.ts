import { WalError } from '../errors.js';
import { RecordKind, recordBytes, writeRecordPrefix } from '../format/record.js';
import { afterTransaction, type LogState } from '../format/state.js';
import {
  NO_TRANSACTIONS,
  TRANSACTION_PREFIX_BYTES,
  type TransactionNote,
  type TransactionPrefix,
  TransactionRole,
  writeTransactionPrefix,
} from '../format/transaction.js';

/** A frame to be written, and what the state is behind it if it lies in a segment that starts with this LSN. */
export interface TransactionFrame {
  payload: Uint8Array;
  records: number;
  stateIn: (segmentFirst: number) => LogState;
}

/** Each takes about 100 bytes of the state, which every segment's header holds. */
export const MOST_PREPARED = 1000;

/** The sequencer's book about transactions of more than one frame. */
export class Transactions {
  /** Those whose parts are being written, and an LSN that none of them lies below. A crash ends them. */
  readonly #open = new Map<string, number>();

  /** Throws when the step does not fit what is known of the transaction. */
  check({ step, id }: TransactionNote, state: LogState): void {
    const { prepared } = state.transactions ?? NO_TRANSACTIONS;
    switch (step) {
      case 'begin':
      case 'end':
        return;
      case 'prepare':
      case 'commit':
        if (!this.#open.has(id)) throw misstep(`Transaction ${id} was cut off with the end of the log. Begin it anew.`);
        if (step === 'prepare' && Object.keys(prepared).length >= MOST_PREPARED) throw tooManyPrepared();
        return;
      default:
        if (!Object.hasOwn(prepared, id)) throw unknownTransaction(id);
    }
  }

  /** What to write for a step that fits. */
  frameFor(note: TransactionNote, state: LogState, nextLsn: number): TransactionFrame | undefined {
    const prefix = prefixFor(note, state, nextLsn);
    if (prefix === undefined) return undefined;
    const records = prefix.role === TransactionRole.Commit ? 1 : 0;
    const payload = new Uint8Array(TRANSACTION_PREFIX_BYTES + records * recordBytes(0));
    const at = writeTransactionPrefix(payload, 0, prefix);
    if (records > 0) writeRecordPrefix(payload, at, RecordKind.Data, 0);
    return {
      payload,
      records,
      stateIn: (segmentFirst) => afterTransaction(state, prefix, nextLsn, segmentFirst),
    };
  }

  /** The step was taken. */
  done({ step, id }: TransactionNote, nextLsn: number): void {
    if (step === 'begin') this.#open.set(id, nextLsn);
    else this.#open.delete(id);
  }

  /** The log was cut: parts may be gone, and a decision over them would not find them. */
  cut(): void {
    this.#open.clear();
  }

  /** The lowest LSN that the open ones need. */
  neededFrom(): number {
    return Math.min(...this.#open.values(), Number.POSITIVE_INFINITY);
  }
}

function prefixFor(note: TransactionNote, state: LogState, nextLsn: number): TransactionPrefix | undefined {
  const { id } = note;
  switch (note.step) {
    case 'prepare':
    case 'commit': {
      const role = note.step === 'commit' ? TransactionRole.Commit : TransactionRole.Prepare;
      return { id, role, operations: note.operations, first: note.first || nextLsn };
    }
    case 'commitPrepared': {
      const { operations, first } = state.transactions!.prepared[id];
      return { id, role: TransactionRole.Commit, operations, first };
    }
    case 'abortPrepared':
      return { id, role: TransactionRole.Abort, operations: 0, first: 0 };
    default:
      return undefined;
  }
}

function misstep(message: string): WalError {
  return new WalError('ERR_WAL_TRANSACTION', message);
}

function unknownTransaction(id: string): WalError {
  return misstep(`There is no prepared transaction '${id}': it was committed or aborted already, or never prepared.`);
}

function tooManyPrepared(): WalError {
  return misstep(`${MOST_PREPARED} transactions are prepared and not decided. Commit or abort some of them first.`);
}
