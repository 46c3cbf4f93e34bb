import { corrupt } from '../errors.js';
import { varintBytes, writeVarint } from './integers.js';

/**
 * A record inside a frame's payload: one varint holding `length * 8 + kind`, then `length` bytes.
 * A put's bytes are a varint with the length of its key, the key, and the value; a delete's bytes are the key.
 * Records of a frame have consecutive LSNs, so none is stored.
 */
export const RecordKind = { Data: 0, Put: 1, Delete: 2, Clear: 3 } as const;
export const RECORD_KIND_NAMES = ['data', 'put', 'del', 'clear'] as const;
export type RecordKindName = (typeof RECORD_KIND_NAMES)[number];

/** The most that a record's own prefix and its key's length can take. */
export const RECORD_OVERHEAD_BYTES = 10;

/** Writes the prefix of a record with `length` bytes of body, and returns the offset of the body. */
export function writeRecordPrefix(target: Uint8Array, offset: number, kind: number, length: number): number {
  return writeVarint(target, offset, length * 8 + kind);
}

/** Bytes of a whole record with `length` bytes of body. */
export function recordBytes(length: number): number {
  return varintBytes(length * 8) + length;
}

/** One record of a log, as readers see it. The arrays are views that stay valid after the iteration moves on. */
export interface WalRecord {
  /** Log sequence number: 1 for the first record of a log. */
  lsn: number;
  kind: RecordKindName;
  /** The bytes of a `data` record; the value of a `put`; empty for `del` and `clear`. */
  payload: Uint8Array;
  /** Present on `put` and `del`. */
  key?: Uint8Array;
  /** Present on `put`: the same bytes as `payload`. */
  value?: Uint8Array;
  /** When the log gave the record its place, in milliseconds since the epoch. */
  timestamp: number;
  /**
   * The id of the transaction that it belongs to, if any. It being here does not say that the transaction was committed:
   * a replay tells. A `data` record without content is the commit of a transaction that took more than one frame.
   */
  transaction?: string;
}

const EMPTY = new Uint8Array(0);

/**
 * Decodes the `count` records of one frame's payload, `bytes[start, end)`, appending to `into` those with
 * `from <= lsn <= to`. Throws `ERR_WAL_CORRUPT` when the payload does not hold exactly `count` records: the checksum
 * held, so that is a bug or a forgery, and never something to skip.
 */
export function decodeRecords(
  bytes: Uint8Array,
  start: number,
  end: number,
  count: number,
  firstLsn: number,
  timestamp: number,
  from: number,
  to: number,
  into: WalRecord[],
): void {
  const buffer = bytes.buffer as ArrayBuffer;
  const base = bytes.byteOffset;
  let at = start;
  let lsn = firstLsn;
  for (let i = 0; i < count; i++, lsn++) {
    if (at >= end) throw malformed(lsn);
    let prefix = bytes[at++];
    if (prefix >= 0x80) {
      prefix &= 0x7f;
      let scale = 0x80;
      let byte: number;
      do {
        if (at >= end || scale > 0x400000000) throw malformed(lsn);
        byte = bytes[at++];
        prefix += (byte & 0x7f) * scale;
        scale *= 0x80;
      } while (byte >= 0x80);
    }
    const kind = prefix & 7;
    const length = kind === prefix ? 0 : (prefix - kind) / 8;
    const next = at + length;
    if (next > end) throw malformed(lsn);
    if (lsn >= from && lsn <= to) {
      into.push(
        kind === RecordKind.Data
          ? { lsn, kind: 'data', payload: new Uint8Array(buffer, base + at, length), timestamp }
          : decodeOperation(bytes, at, next, kind, lsn, timestamp),
      );
    }
    at = next;
  }
  if (at !== end) throw malformed(lsn);
}

function decodeOperation(
  bytes: Uint8Array,
  start: number,
  end: number,
  kind: number,
  lsn: number,
  timestamp: number,
): WalRecord {
  if (kind === RecordKind.Delete) {
    return { lsn, kind: 'del', payload: EMPTY, key: view(bytes, start, end), timestamp };
  }
  if (kind === RecordKind.Clear && start === end) return { lsn, kind: 'clear', payload: EMPTY, timestamp };
  if (kind !== RecordKind.Put) throw malformed(lsn);
  let at = start;
  let keyLength = 0;
  let scale = 1;
  let byte: number;
  do {
    if (at >= end || scale > 0x10000000) throw malformed(lsn);
    byte = bytes[at++];
    keyLength += (byte & 0x7f) * scale;
    scale *= 0x80;
  } while (byte >= 0x80);
  if (at + keyLength > end) throw malformed(lsn);
  const value = view(bytes, at + keyLength, end);
  return { lsn, kind: 'put', payload: value, key: view(bytes, at, at + keyLength), value, timestamp };
}

/** A plain Uint8Array, whatever `bytes` is. */
function view(bytes: Uint8Array, start: number, end: number): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset + start, end - start);
}

function malformed(lsn: number): Error {
  return corrupt(`The records of a frame do not decode at LSN ${lsn}, though its checksum holds.`, { lsn });
}
