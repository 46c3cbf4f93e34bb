import zlib from 'node:zlib';
import { WalError } from '../errors.js';

/** How a frame's payload is compressed: byte 6 of its header. */
export const Codec = { None: 0, Brotli: 1, Deflate: 2, Zstd: 3 } as const;

/** Names of the codecs, as the option `compression` has them, at their numbers. */
export const CODEC_NAMES = ['none', 'brotli', 'deflate', 'zstd'] as const;
export type CodecName = (typeof CODEC_NAMES)[number];

/**
 * No frame is larger before it is compressed: half of the largest ring. A header that claims more is a forgery, and no
 * memory is set aside for it.
 */
export const MAX_RAW_BYTES = 512 * 1024 * 1024;

/** zlib takes no less. */
const LEAST_CHUNK_BYTES = 64;

/** zstd came with Node.js 22.15; the types of this project are those of the oldest Node that it runs on. */
interface Zstd {
  zstdCompressSync?: (bytes: Uint8Array, options: object) => Buffer;
  zstdDecompressSync?: (bytes: Uint8Array, options: object) => Buffer;
  constants: typeof zlib.constants & { ZSTD_c_compressionLevel?: number };
}
const zstd = zlib as Zstd;

export function isAvailable(codec: number): boolean {
  return codec !== Codec.Zstd || zstd.zstdCompressSync !== undefined;
}

/** Compresses quickly: a log is written far more often than it is read. The result is memory of its own. */
export function compress(codec: number, raw: Uint8Array): Buffer {
  switch (codec) {
    case Codec.Brotli: {
      const { BROTLI_PARAM_QUALITY, BROTLI_PARAM_SIZE_HINT } = zlib.constants;
      const params = { [BROTLI_PARAM_QUALITY]: 0, [BROTLI_PARAM_SIZE_HINT]: raw.byteLength };
      // In one piece, if it shrinks as what is worth compressing does: its pieces would be put together by copying.
      return zlib.brotliCompressSync(raw, { params, chunkSize: Math.max(LEAST_CHUNK_BYTES, raw.byteLength >> 2) });
    }
    case Codec.Deflate:
      return zlib.deflateRawSync(raw, { level: 1 });
    default:
      return zstd.zstdCompressSync!(raw, { params: { [zstd.constants.ZSTD_c_compressionLevel!]: 1 } });
  }
}

/**
 * The `rawBytes` bytes that were compressed, or undefined when that is not what comes out. Never produces more than that,
 * whatever the bytes are. Throws `ERR_WAL_VERSION` when this Node.js, or this ringwal, does not know the codec.
 */
export function decompress(codec: number, stored: Uint8Array, rawBytes: number): Buffer | undefined {
  if (CODEC_NAMES[codec] === undefined) throw unknownCodec(`codec ${codec}, which a newer ringwal wrote`, 'ringwal');
  if (!isAvailable(codec)) throw unknownCodec('zstd, which this Node.js cannot read', 'Node.js to 22.15 or later');
  if (rawBytes === 0 || rawBytes > MAX_RAW_BYTES) return undefined;
  let raw: Buffer;
  try {
    raw = decompressor(codec)(stored, { maxOutputLength: rawBytes });
  } catch {
    return undefined;
  }
  return raw.byteLength === rawBytes ? raw : undefined;
}

function decompressor(codec: number): (bytes: Uint8Array, options: { maxOutputLength: number }) => Buffer {
  if (codec === Codec.Brotli) return zlib.brotliDecompressSync;
  return codec === Codec.Deflate ? zlib.inflateRawSync : zstd.zstdDecompressSync!;
}

function unknownCodec(what: string, upgrade: string): WalError {
  return new WalError(
    'ERR_WAL_VERSION',
    `A frame of this log is compressed with ${what}. It is not damaged: upgrade ${upgrade} to read it.`,
  );
}
