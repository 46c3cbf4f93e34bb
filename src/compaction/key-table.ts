import { randomInt } from 'node:crypto';

/** A key that {@link KeyTable.note} was given before, in a newer segment. */
export const SUPERSEDED = -2;
/** A key that it was not given before. */
export const NEW = -1;
/** No room for it: {@link KeyTable.split} first. */
export const FULL = -3;

const LEAST_ENTRIES = 4;
const FIRST_ENTRIES = 1024;
const FIRST_KEY_BYTES = 64;
/** Of an entry: hash, place and length of its key, its position, and two slots of the hash table. */
const ENTRY_BYTES = 4 + 4 + 4 + 8 + 8;
/** No two keys differ by more bits of their hash than it has. */
const MOST_BITS = 32;

/**
 * Keys and the position of the last record of each, within a budget of memory that does not depend on how many keys there
 * are: when it is used up, the table keeps the keys of one half of the hashes, and those of the other half are left for
 * another pass. Keys are compared byte by byte; their hash only says where to look.
 */
export class KeyTable {
  readonly #budgetBytes: number;
  /** Different each time: nobody can choose keys that all fall on one place. */
  readonly #seed = randomInt(2 ** 32);
  /** Index of an entry + 1; 0 is free. */
  #slots: Int32Array;
  #hashes: Uint32Array;
  #keyAt: Uint32Array;
  #keyBytes: Uint32Array;
  #positions: Float64Array;
  #entries = 0;
  #keys: Uint8Array;
  #keysEnd = 0;
  #bits = 0;
  #value = 0;

  constructor(budgetBytes: number) {
    let entries = FIRST_ENTRIES;
    while (entries > LEAST_ENTRIES && entries * (ENTRY_BYTES + FIRST_KEY_BYTES) > budgetBytes) entries /= 2;
    this.#budgetBytes = budgetBytes;
    this.#slots = new Int32Array(entries * 2);
    this.#hashes = new Uint32Array(entries);
    this.#keyAt = new Uint32Array(entries);
    this.#keyBytes = new Uint32Array(entries);
    this.#positions = new Float64Array(entries);
    this.#keys = new Uint8Array(entries * FIRST_KEY_BYTES);
  }

  /** Which hashes it takes now: those whose first `bits` bits are `value`. */
  get part(): Part {
    return { bits: this.#bits, value: this.#value };
  }

  /** Forgets all keys and takes those of another part. */
  begin({ bits, value }: Part): void {
    this.#slots.fill(0);
    this.#entries = 0;
    this.#keysEnd = 0;
    this.#bits = bits;
    this.#value = value;
  }

  hash(bytes: Uint8Array, from: number, to: number): number {
    let hash = this.#seed ^ (to - from);
    for (let i = from; i < to; i++) hash = Math.imul(hash ^ bytes[i], 0x01000193);
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    return (hash ^ (hash >>> 16)) >>> 0;
  }

  takes(hash: number): boolean {
    return this.#bits === 0 || hash >>> (MOST_BITS - this.#bits) === this.#value;
  }

  /**
   * Notes that the key `bytes[from, to)` is at `position`. Returns its position before, if that is below `newer`;
   * {@link SUPERSEDED} when it is not, and it stays as it is; {@link NEW}; or {@link FULL}.
   */
  note(bytes: Uint8Array, from: number, to: number, hash: number, position: number, newer: number): number {
    const mask = this.#slots.length - 1;
    let slot = hash & mask;
    for (let entry = this.#slots[slot]; entry !== 0; entry = this.#slots[slot]) {
      if (this.#hashes[entry - 1] === hash && this.#isKey(entry - 1, bytes, from, to)) {
        const before = this.#positions[entry - 1];
        if (before >= newer) return SUPERSEDED;
        this.#positions[entry - 1] = position;
        return before;
      }
      slot = (slot + 1) & mask;
    }
    if (!this.#makeRoom(to - from)) return FULL;
    this.#add(bytes, from, to, hash, position);
    return NEW;
  }

  /** Keeps the keys of one half of its hashes; returns which those of the other half are. */
  split(): Part {
    this.#bits++;
    this.#value *= 2;
    const { hashes, keyAt, keyBytes, positions, entries } = {
      hashes: this.#hashes.slice(0, this.#entries),
      keyAt: this.#keyAt.slice(0, this.#entries),
      keyBytes: this.#keyBytes.slice(0, this.#entries),
      positions: this.#positions.slice(0, this.#entries),
      entries: this.#entries,
    };
    this.begin(this.part);
    for (let i = 0; i < entries; i++) {
      // In place: an entry is never copied behind where it stood.
      if (this.takes(hashes[i])) this.#add(this.#keys, keyAt[i], keyAt[i] + keyBytes[i], hashes[i], positions[i]);
    }
    return { bits: this.#bits, value: this.#value + 1 };
  }

  #isKey(entry: number, bytes: Uint8Array, from: number, to: number): boolean {
    const length = to - from;
    if (this.#keyBytes[entry] !== length) return false;
    const at = this.#keyAt[entry];
    for (let i = 0; i < length; i++) if (this.#keys[at + i] !== bytes[from + i]) return false;
    return true;
  }

  #add(bytes: Uint8Array, from: number, to: number, hash: number, position: number): void {
    const entry = this.#entries++;
    this.#hashes[entry] = hash;
    this.#keyAt[entry] = this.#keysEnd;
    this.#keyBytes[entry] = to - from;
    this.#positions[entry] = position;
    if (bytes === this.#keys) this.#keys.copyWithin(this.#keysEnd, from, to);
    else this.#keys.set(bytes.subarray(from, to), this.#keysEnd);
    this.#keysEnd += to - from;
    this.#place(entry);
  }

  #place(entry: number): void {
    const mask = this.#slots.length - 1;
    let slot = this.#hashes[entry] & mask;
    while (this.#slots[slot] !== 0) slot = (slot + 1) & mask;
    this.#slots[slot] = entry + 1;
  }

  /** Room for one more entry; false when that would take more than the budget. */
  #makeRoom(keyBytes: number): boolean {
    const entries = this.#entries < this.#hashes.length ? this.#hashes.length : this.#hashes.length * 2;
    let keys = this.#keys.length;
    while (this.#keysEnd + keyBytes > keys) keys *= 2;
    if (entries === this.#hashes.length && keys === this.#keys.length) return true;
    // A single key may be larger than the budget, and keys whose hashes are the same cannot be told apart by them.
    const divisible = this.#entries > 0 && this.#bits < MOST_BITS;
    if (divisible && entries * ENTRY_BYTES + keys > this.#budgetBytes) return false;
    this.#grow(entries, keys);
    return true;
  }

  #grow(entries: number, keys: number): void {
    if (keys > this.#keys.length) this.#keys = enlarged(this.#keys, new Uint8Array(keys));
    if (entries === this.#hashes.length) return;
    this.#hashes = enlarged(this.#hashes, new Uint32Array(entries));
    this.#keyAt = enlarged(this.#keyAt, new Uint32Array(entries));
    this.#keyBytes = enlarged(this.#keyBytes, new Uint32Array(entries));
    this.#positions = enlarged(this.#positions, new Float64Array(entries));
    this.#slots = new Int32Array(entries * 2);
    for (let i = 0; i < this.#entries; i++) this.#place(i);
  }
}

/** The keys whose hashes begin with these bits. */
export interface Part {
  bits: number;
  value: number;
}

function enlarged<T extends Uint8Array | Uint32Array | Float64Array>(from: T, to: T): T {
  to.set(from as never);
  return to;
}
