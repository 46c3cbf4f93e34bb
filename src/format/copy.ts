/** From here on `fill`, which is one memcpy, beats `set`, which goes byte by byte where shared memory is not aligned. */
const FILL_BYTES = 4096;

/** Copies bytes to where they may lie unaligned in shared memory. Returns the offset behind them. */
export function copyInto(target: Uint8Array, at: number, bytes: Uint8Array): number {
  const end = at + bytes.length;
  if (bytes.length >= FILL_BYTES && Buffer.isBuffer(target)) target.fill(bytes, at, end);
  else target.set(bytes, at);
  return end;
}
