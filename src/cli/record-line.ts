import type { WalRecord } from '../types.js';

export const ENCODINGS = ['utf8', 'base64', 'hex'] as const;
export type Encoding = (typeof ENCODINGS)[number];

/** What JSON leaves as it is and a terminal may take for a command: DEL, and the second set of control characters. */
const CONTROLS = /[\x7f-\x9f]/g;

function asLine(value: object): string {
  const line = JSON.stringify(value).replace(CONTROLS, (character) => `\\u00${character.charCodeAt(0).toString(16)}`);
  return `${line}\n`;
}

/** A record as one line of JSON, its newline included. */
export function recordLine(
  { lsn, kind, payload, key, value, timestamp, transaction }: WalRecord,
  encoding: Encoding,
): string {
  const text = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString(encoding);
  switch (kind) {
    case 'data':
      return asLine({ lsn, kind, payload: text(payload), timestamp, transaction });
    case 'put':
      return asLine({ lsn, kind, key: text(key!), value: text(value!), timestamp, transaction });
    case 'del':
      return asLine({ lsn, kind, key: text(key!), timestamp, transaction });
    default:
      return asLine({ lsn, kind, timestamp, transaction });
  }
}
