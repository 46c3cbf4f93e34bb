import { Field, FRAME_HEADER_BYTES } from '../format/frame.js';
import { type EncodedPayload, encodePayload, type FrameKey, putPieces } from '../format/frame-payload.js';
import { align8 } from '../format/integers.js';
import { release } from '../format/release.js';
import { Descriptor, type Ring } from '../ring/ring.js';

/** What is done to the payload of one frame, once: the key's counter is used up by it. Plain data. */
export interface FrameEncoding {
  codec: number;
  key: FrameKey | undefined;
}

/** Encodes the records of a frame, and changes nothing in the ring. Undefined: they are best stored as they are. */
export function encodeRecords(ring: Ring, frame: number, { codec, key }: FrameEncoding): EncodedPayload | undefined {
  const raw = ring.descriptors[ring.descriptor(frame) + Descriptor.raw];
  const payloadAt = raw + FRAME_HEADER_BYTES;
  const rawBytes = ring.view.getUint32(raw + Field.rawBytes, true);
  return encodePayload(
    ring.data.subarray(raw, payloadAt),
    ring.data.subarray(payloadAt, payloadAt + rawBytes),
    codec,
    key,
  );
}

/** Puts a frame's header, and what its records were encoded to, at `to` in the ring, which may be where it lies now. Uses up `encoded`. */
export function storeEncoded(ring: Ring, frame: number, to: number, encoded: EncodedPayload): void {
  const { data, view, descriptors } = ring;
  const at = ring.descriptor(frame);
  const raw = descriptors[at + Descriptor.raw];
  const { codec, encryption, pieces, storedBytes, crc } = encoded;
  if (to !== raw) data.set(data.subarray(raw, raw + FRAME_HEADER_BYTES), to);
  data[to + Field.codec] = codec;
  data[to + Field.encryption] = encryption;
  view.setUint32(to + Field.storedBytes, storedBytes, true);
  view.setUint32(to + Field.payloadCrc, crc, true);
  putPieces(data, to + FRAME_HEADER_BYTES, pieces);
  for (const piece of pieces) release(piece);
  const bytes = align8(FRAME_HEADER_BYTES + storedBytes);
  data.fill(0, to + FRAME_HEADER_BYTES + storedBytes, to + bytes);
  descriptors[at + Descriptor.offset] = to;
  descriptors[at + Descriptor.bytes] = bytes;
}
