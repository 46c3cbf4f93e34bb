import { corrupt, type WalError } from '../errors.js';
import { FrameType, isSparse } from '../format/frame.js';
import type { WalRecord } from '../format/record.js';
import type { Lsn } from '../types.js';
import { isPartOf, partsOf } from './decode-frame.js';
import { LogCursor } from './log-cursor.js';
import type { LogSource } from './log-source.js';

/** Where the operations of a transaction lie. */
export interface TransactionPlace {
  id: string;
  /** None of them lies below, nor above `last`. */
  first: Lsn;
  last: Lsn;
  /** How many there are. */
  operations: number;
}

/**
 * The operations of a transaction of more than one frame, in order, an array at a time: all of them, or none when some
 * are in a gap that a repair left, or compaction left them out. Anything else that keeps it from being whole throws before the first of them.
 */
export async function* transactionRecords(
  source: LogSource,
  place: TransactionPlace,
): AsyncGenerator<WalRecord[], void, undefined> {
  // Looked through first, and then read: so it need not fit into memory, and is still whole or not there.
  if (place.operations === 0 || !(await isWhole(source, place))) return;
  const cursor = new LogCursor(source, place.first, { decoder: partsOf(place.id) });
  let left = place.operations;
  try {
    while (left > 0) {
      const records = await cursor.read(place.last);
      cursor.checkPlace();
      if (records === undefined) throw incomplete(place);
      left -= records.length;
      if (records.length > 0) yield records;
    }
  } finally {
    await cursor.close();
  }
}

async function isWhole(source: LogSource, place: TransactionPlace): Promise<boolean> {
  const { id, first, last, operations } = place;
  const cursor = new LogCursor(source, first);
  let found = 0;
  let leftOut = false;
  try {
    await cursor.scanDecoded((frame, bytes, at) => {
      // Compaction leaves out what was aborted; it may be in doubt again when a damage took the abort.
      if (frame.type === FrameType.Gap || isSparse(frame.type)) leftOut = true;
      if (isPartOf(id, frame, bytes, at) && frame.firstLsn >= first) found += frame.records;
      return found < operations;
    }, last);
    cursor.checkPlace();
  } finally {
    await cursor.close();
  }
  if (found === operations) return true;
  if (leftOut) return false;
  throw incomplete(place);
}

function incomplete({ id, first, operations }: TransactionPlace): WalError {
  return corrupt(
    `Transaction ${id} should have ${operations} operations from LSN ${first} on; they are not all there.`,
    {
      lsn: first,
    },
  );
}
