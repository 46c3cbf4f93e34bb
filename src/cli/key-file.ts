import fs from 'node:fs';
import { KEY_BYTES } from '../format/encryption.js';
import type { EncryptionKey, NumberedKey } from '../format/key-ring.js';
import { type CommandInput, UsageError } from './command.js';

const LINE = /^(?:(\d{1,10}):)?([0-9a-f]{64})$/i;
/** Whatever is larger is no file of keys, and not read. */
const MOST_BYTES = 64 * 1024;

/**
 * The keys in the file that `--key-file` names: 32 bytes as they are; or lines of 64 hexadecimal digits, the key to write
 * with first, each with its number and a colon before it when that is not 1. No message ever repeats what is in it.
 */
export function keyFrom(values: CommandInput['values']): EncryptionKey | undefined {
  const file = values['key-file'];
  if (typeof file !== 'string') return undefined;
  const content = read(file);
  if (content.byteLength === KEY_BYTES) return new Uint8Array(content);
  const lines = content.toString('latin1').split('\n');
  const keys = lines.map((line) => line.trim()).filter((line) => line !== '');
  if (keys.length === 0) throw unusable(file, 'is empty');
  const parsed = keys.map((line, i) => parse(line, file, i + 1));
  return (id = parsed[0].id) => parsed.find((key) => key.id === id);
}

function read(file: string): Buffer {
  try {
    if (fs.statSync(file).size > MOST_BYTES) throw unusable(file, 'is too large');
    return fs.readFileSync(file);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`ringwal: ${file} cannot be read: ${(error as Error).message}`);
  }
}

function parse(line: string, file: string, number: number): NumberedKey {
  const [, id = '1', hex] = LINE.exec(line) ?? [];
  if (hex === undefined) throw unusable(file, `has something else in line ${number}`);
  return { id: Number(id), key: Buffer.from(hex, 'hex') };
}

function unusable(file: string, what: string): UsageError {
  return new UsageError(
    `ringwal: ${file} ${what}. A key file holds 32 bytes, or lines of 64 hexadecimal digits, each with 'ID:' before it if need be.`,
  );
}
