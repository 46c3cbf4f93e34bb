import { Field, FRAME_HEADER_BYTES } from '../../src/format/frame.js';
import { encodePayload, putPieces } from '../../src/format/frame-payload.js';
import type { FrameEncoding } from '../../src/producer/encode-in-ring.js';
import type { Ring } from '../../src/ring/ring.js';

/** Encodes the frame that was written at `start`, as an encoder would. Returns what it stores; undefined: it stays as it is. */
export function encodeFrame(ring: Ring, start: number, encoding: FrameEncoding | undefined): number | undefined {
  if (encoding === undefined) return undefined;
  const { data, view } = ring;
  const payloadAt = start + FRAME_HEADER_BYTES;
  const raw = data.subarray(payloadAt, payloadAt + view.getUint32(start + Field.rawBytes, true));
  const encoded = encodePayload(data.subarray(start, payloadAt), raw, encoding.codec, encoding.key);
  if (encoded === undefined) return undefined;
  const { pieces, storedBytes, codec, encryption, crc } = encoded;
  putPieces(data, payloadAt, pieces);
  data[start + Field.codec] = codec;
  data[start + Field.encryption] = encryption;
  view.setUint32(start + Field.storedBytes, storedBytes, true);
  view.setUint32(start + Field.payloadCrc, crc, true);
  return storedBytes;
}
