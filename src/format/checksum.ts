import { crc32 as zlibCrc32 } from 'node:zlib';
import CRC32 from 'crc-32';

/**
 * Above this many bytes zlib's CRC-32 (several GB/s, but a call into native code) beats the table in JavaScript.
 * Measured by `node dist/bench/crossover.js`.
 */
export const NATIVE_CRC_BYTES = 384;

/** CRC-32 (IEEE 802.3, the one of zlib and gzip), as an unsigned 32-bit number. `seed` continues an earlier one. */
export function crc32(bytes: Uint8Array, seed = 0): number {
  if (bytes.byteLength < NATIVE_CRC_BYTES) return CRC32.buf(bytes, seed) >>> 0;
  return zlibCrc32(bytes, seed);
}
