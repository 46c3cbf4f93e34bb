import type { WalRecord } from '../types.js';

export const ENCODINGS = ['utf8', 'base64', 'hex'] as const;
export type Encoding = (typeof ENCODINGS)[number];

/** A record as one line of JSON, its newline included. */
export function recordLine(
  { lsn, kind, payload, key, value, timestamp, transaction }: WalRecord,
  encoding: Encoding,
): string {
  const text = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString(encoding);
  switch (kind) {
    case 'data':
      return `${JSON.stringify({ lsn, kind, payload: text(payload), timestamp, transaction })}\n`;
    case 'put':
      return `${JSON.stringify({ lsn, kind, key: text(key!), value: text(value!), timestamp, transaction })}\n`;
    case 'del':
      return `${JSON.stringify({ lsn, kind, key: text(key!), timestamp, transaction })}\n`;
    default:
      return `${JSON.stringify({ lsn, kind, timestamp, transaction })}\n`;
  }
}
