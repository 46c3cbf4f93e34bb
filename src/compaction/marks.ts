import type { Storage, StorageFile } from '../storage/storage.js';

/** One bit for each key-value operation of a segment, in the order of the log: whether it is dead. */
export class Marks {
  bits: Uint8Array;

  constructor(bits = new Uint8Array(1024)) {
    this.bits = bits;
  }

  set(operation: number): void {
    const at = operation >>> 3;
    if (at >= this.bits.length) this.#grow(at + 1);
    this.bits[at] |= 1 << (operation & 7);
  }

  /** All before this one. */
  setBelow(operation: number): void {
    for (let i = 0; i < operation; i++) this.set(i);
  }

  has(operation: number): boolean {
    return (this.bits[operation >>> 3] & (1 << (operation & 7))) !== 0;
  }

  /** How many are set. */
  count(): number {
    let count = 0;
    for (const byte of this.bits) for (let rest = byte; rest !== 0; rest &= rest - 1) count++;
    return count;
  }

  /** What is to be kept of it for so many operations. */
  trimmed(operations: number): Uint8Array {
    const bytes = marksBytes(operations);
    if (bytes > this.bits.length) this.#grow(bytes);
    return this.bits.subarray(0, bytes);
  }

  #grow(least: number): void {
    const larger = new Uint8Array(Math.max(least, this.bits.length * 2));
    larger.set(this.bits);
    this.bits = larger;
  }
}

export function marksBytes(operations: number): number {
  return Math.ceil(operations / 8);
}

/** Where the marks of one segment lie in the file. */
export interface MarksPlace {
  at: number;
  operations: number;
}

/** The marks of all segments, in a temporary file, so that memory does not grow with the log. Of no worth after a crash. */
export class MarksFile {
  readonly #file: StorageFile;
  #end = 0;

  constructor(storage: Storage, name: string, mode: 'create' | 'read') {
    this.#file = storage.open(name, mode);
  }

  append(marks: Marks, operations: number): MarksPlace {
    const place = { at: this.#end, operations };
    this.replace(marks, place);
    this.#end += marksBytes(operations);
    return place;
  }

  replace(marks: Marks, { at, operations }: MarksPlace): void {
    if (operations > 0) this.#file.write([marks.trimmed(operations)], at);
  }

  read({ at, operations }: MarksPlace): Marks {
    const bits = new Uint8Array(marksBytes(operations));
    this.#file.read(bits, at);
    return new Marks(bits);
  }

  close(): void {
    this.#file.close();
  }
}
