/** Little-endian integers up to 2^53 - 1, without the allocation of a BigInt. */

const TWO_32 = 4294967296;

export function writeU64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value >>> 0, true);
  view.setUint32(offset + 4, Math.floor(value / TWO_32), true);
}

export function readU64(view: DataView, offset: number): number {
  return view.getUint32(offset + 4, true) * TWO_32 + view.getUint32(offset, true);
}

/** Rounds up to the next multiple of 8, the alignment of everything in a segment. */
export function align8(value: number): number {
  return value + 7 - ((value + 7) % 8);
}

/** Bytes that `value` (at most 2^35 - 1) takes as a varint: seven bits a byte, low bits first. */
export function varintBytes(value: number): number {
  if (value < 0x80) return 1;
  if (value < 0x4000) return 2;
  if (value < 0x200000) return 3;
  if (value < 0x10000000) return 4;
  return 5;
}

/** Writes `value` at `offset` and returns the offset behind it. */
export function writeVarint(bytes: Uint8Array, offset: number, value: number): number {
  // The lengths of most records: no division, no loop.
  if (value < 0x4000) {
    if (value < 0x80) {
      bytes[offset] = value;
      return offset + 1;
    }
    bytes[offset] = (value & 0x7f) | 0x80;
    bytes[offset + 1] = value >>> 7;
    return offset + 2;
  }
  while (value >= 0x80) {
    bytes[offset++] = (value % 0x80) | 0x80;
    value = Math.floor(value / 0x80);
  }
  bytes[offset++] = value;
  return offset;
}
