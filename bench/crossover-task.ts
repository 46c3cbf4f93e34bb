import { crc32 } from 'node:zlib';

export default function checksum({ memory, size }: { memory: SharedArrayBuffer; size: number }): void {
  crc32(new Uint8Array(memory, 0, size));
}
