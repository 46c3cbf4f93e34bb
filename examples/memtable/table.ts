import fs from 'node:fs';
import { type FileHandle, open, rename } from 'node:fs/promises';
import path from 'node:path';
import { crc32 } from 'node:zlib';
import type { Entry } from './entries.js';

/*
 * A sorted file:   block, block, ..., index, footer
 *
 * A block is some entries in order and a CRC-32. The index is a block too, with an entry for each of the others: its first
 * key, and its place. That is sparse (one key in about 4 KiB), so it stays in memory, and a lookup reads one block.
 */
const BLOCK_BYTES = 4096;
const TOMBSTONE = 0xffffffff;
const PLACE_BYTES = 10;
const MAGIC = Buffer.from('sorted 1');
const FOOTER_BYTES = PLACE_BYTES + MAGIC.length;

/** Told before and after each step, in tests and demonstrations that end the process there. */
export type OnStep = (step: string) => void | Promise<void>;

/**
 * Writes a table. When this resolves, the file is whole under its name and survives power loss; before that, it need not
 * even exist. Nothing may rely on it earlier, so the order is: bytes, sync, name, sync of the directory.
 */
export async function writeTable(file: string, entries: Iterable<Entry>, onStep: OnStep): Promise<void> {
  // Under another name: what has a table's name is whole, for whoever looks into the directory. (The store itself asks the
  // manifest, and would be safe without.)
  const temporary = `${file}.tmp`;
  const out = await open(temporary, 'w');
  try {
    await writeBlocks(out, entries);
    await onStep('table written');
    await out.sync();
    await onStep('table synced');
  } finally {
    await out.close();
  }
  await rename(temporary, file);
  await onStep('table renamed');
  const directory = await open(path.dirname(file), 'r');
  await directory.sync().finally(() => directory.close());
  await onStep('table durable');
}

async function writeBlocks(out: FileHandle, entries: Iterable<Entry>): Promise<void> {
  const index: Entry[] = [];
  let offset = 0;
  const write = async (block: Entry[]) => {
    const bytes = encodeBlock(block);
    const place = Buffer.alloc(PLACE_BYTES);
    place.writeUIntLE(offset, 0, 6);
    place.writeUInt32LE(bytes.length, 6);
    await out.writeFile(bytes);
    offset += bytes.length;
    return place;
  };
  for (const block of inBlocks(entries)) index.push({ key: block[0].key, value: await write(block) });
  await out.writeFile(Buffer.concat([await write(index), MAGIC]));
}

function* inBlocks(entries: Iterable<Entry>): Generator<Entry[]> {
  let block: Entry[] = [];
  let bytes = 0;
  for (const entry of entries) {
    block.push(entry);
    bytes += entry.key.length + (entry.value?.length ?? 0);
    if (bytes < BLOCK_BYTES) continue;
    yield block;
    block = [];
    bytes = 0;
  }
  if (block.length > 0) yield block;
}

function encodeBlock(entries: Entry[]): Buffer {
  const parts = entries.flatMap(({ key, value }) => {
    const head = Buffer.alloc(8);
    head.writeUInt32LE(key.length, 0);
    head.writeUInt32LE(value?.length ?? TOMBSTONE, 4);
    return [head, Buffer.from(key, 'latin1'), ...(value === undefined ? [] : [value])];
  });
  const bytes = Buffer.concat([...parts, Buffer.alloc(4)]);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, -4)), bytes.length - 4);
  return bytes;
}

function decodeBlock(bytes: Buffer, file: string): Entry[] {
  const end = bytes.length - 4;
  if (end < 0 || crc32(bytes.subarray(0, end)) !== bytes.readUInt32LE(end)) throw new Error(`${file} is damaged.`);
  const entries: Entry[] = [];
  for (let at = 0; at < end; ) {
    const keyEnd = at + 8 + bytes.readUInt32LE(at);
    const valueBytes = bytes.readUInt32LE(at + 4);
    const valueEnd = valueBytes === TOMBSTONE ? keyEnd : keyEnd + valueBytes;
    const value = valueBytes === TOMBSTONE ? undefined : bytes.subarray(keyEnd, valueEnd);
    entries.push({ key: bytes.toString('latin1', at + 8, keyEnd), value });
    at = valueEnd;
  }
  return entries;
}

/** A table that is read. It never changes; it is replaced by a merge. */
export class Table {
  readonly id: number;
  readonly file: string;
  /** Of the file. */
  readonly bytes: number;
  #fd: number;
  readonly #index: Entry[];

  constructor(file: string, id: number) {
    this.id = id;
    this.file = file;
    this.#fd = fs.openSync(file, 'r');
    try {
      this.bytes = fs.fstatSync(this.#fd).size;
      const footer = this.#read(this.bytes - FOOTER_BYTES, FOOTER_BYTES);
      const { offset, length } = placeIn(footer);
      // A length is checked before it is believed.
      const isWhole = footer.subarray(PLACE_BYTES).equals(MAGIC) && offset + length + FOOTER_BYTES === this.bytes;
      if (!isWhole) throw new Error(`${file} is damaged.`);
      this.#index = decodeBlock(this.#read(offset, length), file);
    } catch (error) {
      fs.closeSync(this.#fd);
      throw error;
    }
  }

  get(key: string): Entry | undefined {
    // The last block that begins at or before the key.
    let low = 0;
    let high = this.#index.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#index[middle].key <= key) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? undefined : this.#block(low - 1).find((entry) => entry.key === key);
  }

  /** All of it, in order. Has the file open by itself, so it comes to its end also when a merge removes the table. */
  *entries(): Generator<Entry> {
    const fd = fs.openSync(this.file, 'r');
    try {
      for (let i = 0; i < this.#index.length; i++) yield* this.#block(i, fd);
    } finally {
      fs.closeSync(fd);
    }
  }

  close(): void {
    if (this.#fd >= 0) fs.closeSync(this.#fd);
    // No file's: whoever reads now gets an error, and not what another file holds that has the number by then.
    this.#fd = -1;
  }

  #block(i: number, fd = this.#fd): Entry[] {
    const { offset, length } = placeIn(this.#index[i].value!);
    return decodeBlock(this.#read(offset, length, fd), this.file);
  }

  #read(offset: number, length: number, fd = this.#fd): Buffer {
    const bytes = Buffer.alloc(length);
    // A regular file gives fewer bytes than asked for only where it ends.
    if (offset < 0 || fs.readSync(fd, bytes, 0, length, offset) < length) {
      throw new Error(`${this.file} is shorter than it was.`);
    }
    return bytes;
  }
}

function placeIn(bytes: Buffer): { offset: number; length: number } {
  return { offset: bytes.readUIntLE(0, 6), length: bytes.readUInt32LE(6) };
}
