import type { ReplayRecord } from '../reader/decode-frame.js';
import type { Lsn } from '../types.js';
import type { ReplayOperation } from './replay.js';

/** What is kept of them at the most, in bytes. What does not fit is read again where it is committed. */
const MOST_BYTES = 8 * 1024 * 1024;
/** What an operation takes beside its key and value, about. */
const OPERATION_BYTES = 256;

interface Kept {
  operations: { lsn: Lsn; op: ReplayOperation }[];
  bytes: number;
}

/**
 * Operations of transactions that a replay has come past and that are not decided yet. Small transactions are committed
 * from here; the oldest are dropped when there are too many.
 */
export class UndecidedOperations {
  readonly #kept = new Map<string, Kept>();
  #bytes = 0;

  add(record: ReplayRecord, op: ReplayOperation): void {
    const id = record.transaction!;
    let kept = this.#kept.get(id);
    if (kept === undefined) {
      kept = { operations: [], bytes: 0 };
      this.#kept.set(id, kept);
    }
    const bytes = OPERATION_BYTES + (record.key?.byteLength ?? 0) + record.payload.byteLength;
    kept.operations.push({ lsn: record.lsn, op: copied(op) });
    kept.bytes += bytes;
    this.#bytes += bytes;
    for (const oldest of this.#kept.keys()) {
      if (this.#bytes <= MOST_BYTES) break;
      this.#forget(oldest);
    }
  }

  /** Those of a transaction from LSN `first` on, as far as they are here. They are not kept any more. */
  take(id: string, first: Lsn): ReplayOperation[] {
    const kept = this.#forget(id);
    return (kept?.operations ?? []).filter(({ lsn }) => lsn >= first).map(({ op }) => op);
  }

  #forget(id: string): Kept | undefined {
    const kept = this.#kept.get(id);
    this.#kept.delete(id);
    this.#bytes -= kept?.bytes ?? 0;
    return kept;
  }
}

/** A view would keep all of the chunk that was read. */
function copied(op: ReplayOperation): ReplayOperation {
  if (op.type === 'put') return { ...op, key: op.key.slice(), value: op.value.slice() };
  return op.type === 'del' ? { ...op, key: op.key.slice() } : op;
}
