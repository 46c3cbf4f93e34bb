import { corrupt } from '../errors.js';
import { writeVarint } from './integers.js';
import { decodeRecords, type WalRecord } from './record.js';

/**
 * The payload of a sparse frame, which compaction writes: records with LSNs of their own, one behind the other up to the
 * end of the payload.
 *
 *   | varint: LSNs left out before it | varint: ms since the record before it | the record, as in a frame of records |
 *
 * The first record's LSN is counted from the frame's first LSN, its time from the frame's. The header's `records` is the
 * number of LSNs that the frame stands for, so that the LSNs of a compacted segment follow one another from frame to
 * frame like those of any other, and a frame that is missing is noticed.
 */

/** The most that the LSN and the time of a record take. */
export const SPARSE_OVERHEAD_BYTES = 16;

/** Writes what stands before a record, and returns the offset behind it. */
export function writeSparsePrefix(target: Uint8Array, offset: number, leftOut: number, elapsed: number): number {
  return writeVarint(target, writeVarint(target, offset, leftOut), elapsed);
}

/** A record in its frame: all of its bytes are `[at, end)`, its body `[bodyAt, end)`. */
export interface RawRecord {
  lsn: number;
  timestamp: number;
  kind: number;
  at: number;
  bodyAt: number;
  end: number;
}

/** Called for each record, with one and the same object. Returns false to stop. */
export type RawVisitor = (record: RawRecord) => boolean | undefined;

/** Steps through records, `bytes[start, end)`, without making an object of each. `sparse`: each has an LSN of its own. */
export function scanRecords(
  bytes: Uint8Array,
  start: number,
  end: number,
  sparse: boolean,
  firstLsn: number,
  timestamp: number,
  visit: RawVisitor,
): void {
  const record: RawRecord = { lsn: firstLsn - 1, timestamp, kind: 0, at: start, bodyAt: start, end: start };
  let at = start;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 0x80) {
      if (at >= end || scale > 0x2000000000000) throw malformed(record.lsn);
      const byte = bytes[at++];
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  };
  while (at < end) {
    record.lsn++;
    if (sparse) {
      record.lsn += varint();
      record.timestamp += varint();
    }
    record.at = at;
    const prefix = varint();
    record.kind = prefix % 8;
    record.bodyAt = at;
    at += (prefix - record.kind) / 8;
    if (at > end) throw malformed(record.lsn);
    record.end = at;
    if (visit(record) === false) return;
  }
}

/** As `decodeRecords`, for the payload of a sparse frame that stands for the LSNs up to `lastLsn`. */
export function decodeSparse(
  bytes: Uint8Array,
  start: number,
  end: number,
  firstLsn: number,
  lastLsn: number,
  timestamp: number,
  from: number,
  to: number,
  into: WalRecord[],
): void {
  scanRecords(bytes, start, end, true, firstLsn, timestamp, (record) => {
    const { lsn } = record;
    if (lsn > lastLsn) throw malformed(lsn);
    if (lsn > to) return false;
    if (lsn >= from) decodeRecords(bytes, record.at, record.end, 1, lsn, record.timestamp, from, to, into);
    return true;
  });
}

/** The records of a sparse frame up to `to`: how many, the first, the last (0 when there are none). */
export function sparseRecords(
  payload: Uint8Array,
  firstLsn: number,
  to: number,
): { count: number; first: number; last: number } {
  const found = { count: 0, first: 0, last: 0 };
  scanRecords(payload, 0, payload.byteLength, true, firstLsn, 0, ({ lsn }) => {
    if (lsn > to) return false;
    if (found.count++ === 0) found.first = lsn;
    found.last = lsn;
    return true;
  });
  return found;
}

function malformed(lsn: number): Error {
  return corrupt(`The records of a compacted frame do not decode at LSN ${lsn}, though its checksum holds.`, { lsn });
}
