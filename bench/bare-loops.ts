import fs from 'node:fs';
import path from 'node:path';
import { crc32 } from 'node:zlib';

/** What reading is measured beside: loops over the same bytes that do the least that can be done with them. */

const MIB = 1024 * 1024;

/** Reads the files in 1 MiB pieces and checksums them. */
export function readAndChecksum(directory: string): void {
  const piece = Buffer.alloc(MIB);
  for (const name of fs.readdirSync(directory).filter((file) => file.endsWith('.wal'))) {
    const fd = fs.openSync(path.join(directory, name), 'r');
    for (let count = fs.readSync(fd, piece); count > 0; count = fs.readSync(fd, piece)) crc32(piece.subarray(0, count));
    fs.closeSync(fd);
  }
}

/** Bytes as {@link walkInMemory} wants them: records of 100 bytes, each after its length. */
export function bytesToWalk(): Uint8Array {
  const bytes = new Uint8Array(64 * MIB);
  for (let at = 0; at + 102 <= bytes.byteLength; at += 102) bytes[at] = 100;
  return bytes;
}

/** Walks the same bytes in memory and makes one object with one view a record, a thousand to an array. */
export function walkInMemory(bytes: Uint8Array, records: number): number {
  let made = 0;
  let array: { lsn: number; payload: Uint8Array }[] = [];
  for (let at = 0, lsn = 1; lsn <= records; lsn++) {
    // The length is read as a real log's would be: two bytes before the payload.
    const length = (bytes[at] & 0x7f) + bytes[at + 1] * 128;
    array.push({ lsn, payload: new Uint8Array(bytes.buffer, at + 2, length) });
    at += 2 + length;
    if (at + 102 > bytes.byteLength) at = 0;
    if (array.length === 1000) {
      made += array.length;
      array = [];
    }
  }
  return made + array.length;
}
