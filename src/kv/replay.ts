import { invalidArgument } from '../errors.js';
import type { WalRecord } from '../format/record.js';
import type { Lsn } from '../types.js';

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

/** The key-value operations among records; opaque records are no part of a replay. */
export async function* replayed(batches: AsyncIterable<WalRecord[]>): AsyncGenerator<Replayed, void, undefined> {
  for await (const records of batches) {
    for (const record of records) {
      const op = operationOf(record);
      if (op !== undefined) yield { lsn: record.lsn, op };
    }
  }
}

/** Calls the handler for each operation, in order; waits for it only when it returned a promise. */
export async function replayInto(batches: AsyncIterable<WalRecord[]>, handler: ReplayHandler): Promise<number> {
  let operations = 0;
  for await (const records of batches) {
    for (const record of records) {
      const op = operationOf(record);
      if (op === undefined) continue;
      operations++;
      const result = handler(op, record.lsn);
      if (result !== undefined) await result;
    }
  }
  return operations;
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
