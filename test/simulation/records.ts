import { RECORD_OVERHEAD_BYTES, RecordKind, type WalRecord, writeRecordPrefix } from '../../src/format/record.js';
import { Random } from './random.js';

/** Records whose bytes follow from their number alone, so that a model need not keep them. */
const FILLER = Buffer.from(Random.of(4711).bytes(32 * 1024));
const KEY_BYTES = 8;

/** Bytes of record number `id`'s value. Mostly small, now and then none at all or several sectors. */
export function valueBytes(id: number): number {
  const random = Random.of(id, 1);
  return random.weighted([
    [() => random.between(0, 24), 4],
    [() => random.between(60, 300), 6],
    [() => random.between(400, 2500), 2],
    [() => (random.oneIn(6) ? random.between(6000, 9000) : 600), 1],
  ])();
}

function valueFor(id: number): Buffer {
  const start = (id * 37) % (FILLER.byteLength - 9000);
  return FILLER.subarray(start, start + valueBytes(id));
}

function keyOf(id: number): Buffer {
  const key = Buffer.alloc(KEY_BYTES);
  key.writeDoubleLE(id);
  return key;
}

/** The most that record `id` takes in a frame. */
export function encodedBytes(id: number): number {
  return KEY_BYTES + 1 + valueBytes(id) + RECORD_OVERHEAD_BYTES;
}

/** Writes record `id` as a producer would, and returns the offset behind it. Opaque, put or delete, by number. */
export function writeRecord(target: Buffer, at: number, id: number): number {
  const kind = kindOf(id);
  const key = keyOf(id);
  const value = kind === RecordKind.Delete ? Buffer.alloc(0) : valueFor(id);
  const body = (kind === RecordKind.Put ? 1 : 0) + KEY_BYTES + value.byteLength;
  at = writeRecordPrefix(target, at, kind, body);
  if (kind === RecordKind.Put) target[at++] = KEY_BYTES;
  at += key.copy(target, at);
  return at + value.copy(target, at);
}

function kindOf(id: number): number {
  return id % 5 === 0 ? RecordKind.Delete : id % 3 === 0 ? RecordKind.Put : RecordKind.Data;
}

/** The number of a record that was read back, or undefined when it is not, byte for byte, what was appended. */
export function idOf(record: WalRecord): number | undefined {
  const key = record.key ?? record.payload.subarray(0, KEY_BYTES);
  if (key.byteLength !== KEY_BYTES) return undefined;
  const id = new DataView(key.buffer, key.byteOffset, KEY_BYTES).getFloat64(0, true);
  if (!Number.isSafeInteger(id) || id < 1) return undefined;
  const kind = kindOf(id);
  if (record.kind !== (['data', 'put', 'del'] as const)[kind]) return undefined;
  if (kind === RecordKind.Delete) return id;
  const value = kind === RecordKind.Put ? record.payload : record.payload.subarray(KEY_BYTES);
  return valueFor(id).equals(value) ? id : undefined;
}
