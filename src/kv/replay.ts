import { invalidArgument } from '../errors.js';
import type { WalRecord } from '../format/record.js';
import type { ReplayRecord } from '../reader/decode-frame.js';
import type { TransactionPlace } from '../reader/transaction-records.js';
import type { Lsn } from '../types.js';
import { UndecidedOperations } from './undecided-operations.js';

/** A key-value operation as replay hands it over. */
export type ReplayOperation =
  | { type: 'put'; key: Uint8Array; value: Uint8Array }
  | { type: 'del'; key: Uint8Array }
  | { type: 'clear' };

export interface Replayed {
  lsn: Lsn;
  op: ReplayOperation;
}

export type ReplayHandler = (op: ReplayOperation, lsn: Lsn) => void | Promise<void>;

/** Anything that a log can be replayed into. A Map is one. */
export interface RecoverTarget<K> {
  set(key: K, value: Uint8Array): unknown;
  delete(key: K): unknown;
  clear(): unknown;
}

export function operationOf(record: WalRecord): ReplayOperation | undefined {
  switch (record.kind) {
    case 'put':
      return { type: 'put', key: record.key!, value: record.value! };
    case 'del':
      return { type: 'del', key: record.key! };
    case 'clear':
      return { type: 'clear' };
    default:
      return undefined;
  }
}

/** Reads the operations of a transaction from where they lie. */
export type ReadTransaction = (place: TransactionPlace) => AsyncIterable<WalRecord[]>;

/** The key-value operations among records, those of transactions at their commit; opaque records are no part of it. */
export async function* replayed(
  batches: AsyncIterable<ReplayRecord[]>,
  read: ReadTransaction,
): AsyncGenerator<Replayed, void, undefined> {
  const undecided = new UndecidedOperations();
  for await (const records of batches) {
    for (const record of records) {
      if (record.transaction === undefined || !isPending(record, undecided)) {
        const op = operationOf(record);
        if (op !== undefined) yield { lsn: record.lsn, op };
      } else if (record.commits !== undefined) {
        for await (const ops of committed(record, undecided, read)) {
          for (const op of ops) yield { lsn: record.lsn, op };
        }
      }
    }
  }
}

/** Calls the handler for each operation, in order; waits for it only when it returned a promise. */
export async function replayInto(
  batches: AsyncIterable<ReplayRecord[]>,
  read: ReadTransaction,
  handler: ReplayHandler,
): Promise<number> {
  const undecided = new UndecidedOperations();
  let operations = 0;
  const handle = (op: ReplayOperation, lsn: Lsn) => {
    operations++;
    return handler(op, lsn);
  };
  for await (const records of batches) {
    for (const record of records) {
      if (record.transaction === undefined || !isPending(record, undecided)) {
        const op = operationOf(record);
        if (op === undefined) continue;
        const result = handle(op, record.lsn);
        if (result !== undefined) await result;
      } else if (record.commits !== undefined) {
        for await (const ops of committed(record, undecided, read)) {
          for (const op of ops) {
            const result = handle(op, record.lsn);
            if (result !== undefined) await result;
          }
        }
      }
    }
  }
  return operations;
}

/** Whether the record is not an operation that counts by itself. Keeps it, if it may count later. */
function isPending(record: ReplayRecord, undecided: UndecidedOperations): boolean {
  const op = record.undecided && operationOf(record);
  if (op !== undefined) undecided.add(record, op);
  return record.undecided === true || record.commits !== undefined;
}

async function* committed(
  { lsn, commits }: ReplayRecord,
  undecided: UndecidedOperations,
  read: ReadTransaction,
): AsyncGenerator<ReplayOperation[], void, undefined> {
  const { id, first, operations } = commits!;
  const known = undecided.take(id, first);
  if (known.length === operations) {
    yield known;
    return;
  }
  for await (const records of read({ id, first, last: lsn - 1, operations })) {
    yield records.flatMap((record) => operationOf(record) ?? []);
  }
}

export function checkTarget(target: unknown): asserts target is RecoverTarget<unknown> {
  const candidate = target as Partial<RecoverTarget<unknown>> | undefined | null;
  for (const method of ['set', 'delete', 'clear'] as const) {
    if (typeof candidate?.[method] !== 'function')
      throw invalidArgument(`The target of recover has no method '${method}'.`);
  }
}

/** Applies an operation to a target, with keys as the target wants them. */
export function applier<K>(target: RecoverTarget<K>, keyOf: (key: Uint8Array) => K): ReplayHandler {
  return (op) => {
    if (op.type === 'put') target.set(keyOf(op.key), op.value);
    else if (op.type === 'del') target.delete(keyOf(op.key));
    else target.clear();
  };
}

export function utf8Key(key: Uint8Array): string {
  return Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString('utf8');
}
