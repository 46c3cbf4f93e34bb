/** What direct I/O asks of offsets, counts and memory: a multiple of the block size, which is no more than this. */
export const BLOCK_BYTES = 4096;

/** Zeroed memory that begins on a page, which V8 sees to for memory that can be resized, and for no other. */
export function pageAligned(bytes: number): Uint8Array {
  return new Uint8Array(new ArrayBuffer(bytes, { maxByteLength: bytes }));
}

/** As a filesystem without direct I/O answers, or one that wants other alignments: before it has done anything. */
export function isRefused(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'EINVAL' || code === 'ENOTSUP' || code === 'EOPNOTSUPP';
}
