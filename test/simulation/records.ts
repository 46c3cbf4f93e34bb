import { RECORD_OVERHEAD_BYTES, RecordKind, type WalRecord, writeRecordPrefix } from '../../src/format/record.js';
import { Random } from './random.js';

/** Records whose bytes follow from their number alone, so that a model need not keep them. */
const RANDOM_FILLER = Buffer.from(Random.of(4711).bytes(32 * 1024));
/** Compresses as well as what people write to logs. */
const TEXT_FILLER = Buffer.from('GET /index.html 200 - a line of a log, much like the next one. '.repeat(600));
const ID_BYTES = 8;

/** Records from this number on share a few keys with one another; each of those below has a key of its own. */
export const FIRST_SHARED = 2 ** 32;
const SHARED_KEYS = ['', '\0', ...Array.from({ length: 12 }, (_, i) => `key ${i}`)].map((key) => Buffer.from(key));

/** What record `id` is: its kind, and the key that it is about. */
export interface Entry {
  kind: number;
  key: Buffer;
  value: Buffer;
}

export function entryOf(id: number): Entry {
  const kind = kindOf(id);
  if (kind === RecordKind.Data) return { kind, key: NOTHING, value: Buffer.concat([numberOf(id), fillerOf(id)]) };
  if (kind === RecordKind.Clear) return { kind, key: NOTHING, value: NOTHING };
  const key = keyOf(id);
  return { kind, key, value: kind === RecordKind.Put ? putBy(id) : NOTHING };
}

const NOTHING = Buffer.alloc(0);

/** Bytes of record number `id`'s filler. Mostly few, now and then none at all or several sectors. */
function fillerBytes(id: number): number {
  const random = Random.of(id, 1);
  const choice = random.below(13);
  if (choice < 4) return random.between(0, 24);
  if (choice < 10) return random.between(60, 300);
  if (choice < 12) return random.between(400, 2500);
  return random.oneIn(6) ? random.between(6000, 9000) : 600;
}

function fillerOf(id: number): Buffer {
  const filler = id >= FIRST_SHARED && id % 2 === 0 ? TEXT_FILLER : RANDOM_FILLER;
  const start = (id * 37) % (RANDOM_FILLER.byteLength - 9000);
  return filler.subarray(start, start + fillerBytes(id));
}

/** The value that a put of this number gives its key. */
export function putBy(id: number): Buffer {
  return id < FIRST_SHARED ? fillerOf(id) : Buffer.concat([numberOf(id), fillerOf(id)]);
}

export function keyOf(id: number): Buffer {
  return id < FIRST_SHARED ? numberOf(id) : SHARED_KEYS[Random.of(id, 2).below(SHARED_KEYS.length)];
}

function numberOf(id: number): Buffer {
  const bytes = Buffer.allocUnsafe(ID_BYTES);
  bytes.writeDoubleLE(id);
  return bytes;
}

/** The most that record `id` takes in a frame. */
export function encodedBytes(id: number): number {
  return 2 * ID_BYTES + 1 + fillerBytes(id) + RECORD_OVERHEAD_BYTES;
}

/** Writes record `id` as a producer would, and returns the offset behind it. Opaque, put, delete or clear, by number. */
export function writeRecord(target: Buffer, at: number, id: number): number {
  const { kind, key, value } = entryOf(id);
  const body = (kind === RecordKind.Put ? 1 : 0) + key.byteLength + value.byteLength;
  at = writeRecordPrefix(target, at, kind, body);
  if (kind === RecordKind.Put) target[at++] = key.byteLength;
  at += key.copy(target, at);
  return at + value.copy(target, at);
}

export function kindOf(id: number): number {
  if (id % 5 === 0) return RecordKind.Delete;
  if (id < FIRST_SHARED) return id % 3 === 0 ? RecordKind.Put : RecordKind.Data;
  if (id % 61 === 0) return RecordKind.Clear;
  return id % 3 === 0 ? RecordKind.Data : RecordKind.Put;
}

/** Whether it may be an operation of a transaction. */
export function isPutOrDelete(id: number): boolean {
  return kindOf(id) === RecordKind.Put || kindOf(id) === RecordKind.Delete;
}

const KINDS = ['data', 'put', 'del', 'clear'] as const;

/** Whether a record that was read back is, byte for byte, the one of this number. */
export function isRecord(record: WalRecord, id: number): boolean {
  const { kind, key, value } = entryOf(id);
  if (record.kind !== KINDS[kind] || !value.equals(record.payload)) return false;
  return key.equals(record.key ?? NOTHING);
}

/** The number of a record that was read back; undefined when it is none, or one of those that do not tell. */
export function idOf(record: WalRecord): number | undefined {
  const isIt = (id: number | undefined) => id !== undefined && isRecord(record, id);
  return [numberIn(record.payload), numberIn(record.key)].find(isIt);
}

function numberIn(bytes: Uint8Array | undefined): number | undefined {
  if (bytes === undefined || bytes.byteLength < ID_BYTES) return undefined;
  const id = new DataView(bytes.buffer, bytes.byteOffset, ID_BYTES).getFloat64(0, true);
  return Number.isSafeInteger(id) && id >= 1 ? id : undefined;
}
