import { copyInto } from '../format/copy.js';
import { varintBytes, writeVarint } from '../format/integers.js';
import { RECORD_OVERHEAD_BYTES, RecordKind, writeRecordPrefix } from '../format/record.js';
import type { Bytes } from '../types.js';
import { byteLength, copyBytes } from './arguments.js';
import type { Stage } from './stage.js';

/** One record to be written. `key` is undefined for opaque records, `value` for deletes. */
export interface Entry {
  kind: number;
  key: Bytes | undefined;
  value: Bytes | undefined;
}

/** Bytes of a record behind its prefix. */
export function bodyBytes({ kind, key, value }: Entry): number {
  if (kind === RecordKind.Data) return byteLength(value!);
  if (kind === RecordKind.Clear) return 0;
  const keyBytes = byteLength(key!);
  return kind === RecordKind.Put ? varintBytes(keyBytes) + keyBytes + byteLength(value!) : keyBytes;
}

/** Writes a record whose body takes `body` bytes. */
export function writeEntry(stage: Stage, entry: Entry, body: number): void {
  if (stage.reserve(body + RECORD_OVERHEAD_BYTES)) {
    stage.used = writeEntryAt(stage.bytes, stage.used, entry, body);
  } else {
    stage.bypass((ring, at) => writeEntryAt(ring, at, entry, body));
  }
}

/** The same into any memory. Returns the offset behind it. */
export function writeEntryAt(target: Buffer, at: number, { kind, key, value }: Entry, body: number): number {
  at = writeRecordPrefix(target, at, kind, body);
  if (kind === RecordKind.Put) at = writeVarint(target, at, byteLength(key!));
  if (key !== undefined) at = writeBytes(target, at, key);
  return value === undefined ? at : writeBytes(target, at, value);
}

/** The caller may reuse its buffers as soon as the append returns. */
export function copyEntry({ kind, key, value }: Entry): Entry {
  return { kind, key: copyBytes(key), value: copyBytes(value) };
}

function writeBytes(target: Buffer, at: number, value: Bytes): number {
  return typeof value === 'string' ? at + target.write(value, at, 'utf8') : copyInto(target, at, value);
}

/** Records that recovery takes whole or not at all. */
export interface RecordBatch {
  readonly count: number;
  /** An upper bound of what they take together. */
  readonly bytes: number;
  /** Of the largest one's body. */
  readonly largest: number;
  /** They need a frame of their own, of this type; undefined: they go with others into a frame of records. */
  readonly frameType?: number;
  /** Writes them one behind the other. */
  write(stage: Stage): void;
  /** The same, independent of the caller's buffers. */
  copied(): RecordBatch;
}

export class EntryBatch implements RecordBatch {
  readonly #entries: Entry[];
  readonly bytes: number;
  readonly largest: number;

  constructor(entries: Entry[]) {
    this.#entries = entries;
    const bodies = entries.map(bodyBytes);
    this.largest = bodies.reduce((most, body) => Math.max(most, body), 0);
    this.bytes = bodies.reduce((sum, body) => sum + body + RECORD_OVERHEAD_BYTES, 0);
  }

  get count(): number {
    return this.#entries.length;
  }

  write(stage: Stage): void {
    for (const entry of this.#entries) writeEntry(stage, entry, bodyBytes(entry));
  }

  copied(): RecordBatch {
    return new EntryBatch(this.#entries.map(copyEntry));
  }
}

/** Opaque records, without an object for each: `appendMany` is the way to write millions a second. */
export class PayloadBatch implements RecordBatch {
  readonly #payloads: readonly Bytes[];
  readonly bytes: number;
  readonly largest: number;

  constructor(payloads: readonly Bytes[]) {
    this.#payloads = payloads;
    let sum = 0;
    let largest = 0;
    for (let i = 0; i < payloads.length; i++) {
      const length = byteLength(payloads[i]);
      sum += length;
      if (length > largest) largest = length;
    }
    this.largest = largest;
    this.bytes = sum + payloads.length * RECORD_OVERHEAD_BYTES;
  }

  get count(): number {
    return this.#payloads.length;
  }

  write(stage: Stage): void {
    const payloads = this.#payloads;
    const { bytes } = stage;
    for (let i = 0; i < payloads.length; i++) {
      const payload = payloads[i];
      const length = byteLength(payload);
      if (stage.reserve(length + RECORD_OVERHEAD_BYTES)) {
        stage.used = writeBytes(bytes, writeRecordPrefix(bytes, stage.used, RecordKind.Data, length), payload);
      } else {
        stage.bypass((ring, at) => writeBytes(ring, writeRecordPrefix(ring, at, RecordKind.Data, length), payload));
      }
    }
  }

  copied(): RecordBatch {
    return new PayloadBatch(this.#payloads.map((payload) => copyBytes(payload)!));
  }
}
