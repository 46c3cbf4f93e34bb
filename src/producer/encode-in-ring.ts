import { Field, FRAME_HEADER_BYTES } from '../format/frame.js';
import { type EncodedPayload, encodePayload, type FrameKey } from '../format/frame-payload.js';
import { align8 } from '../format/integers.js';
import { Descriptor, type Ring } from '../ring/ring.js';

/** What is done to the payload of one frame, once: the key's counter is used up by it. Plain data. */
export interface FrameEncoding {
  codec: number;
  key: FrameKey | undefined;
}

function placeOf(ring: Ring, frame: number): number {
  return ring.descriptors[ring.descriptor(frame) + Descriptor.offset];
}

/** Encodes the records of a frame, and changes nothing in the ring. Undefined: they are best stored as they are. */
export function encodeRecords(ring: Ring, frame: number, { codec, key }: FrameEncoding): EncodedPayload | undefined {
  const start = placeOf(ring, frame);
  const payloadAt = start + FRAME_HEADER_BYTES;
  // Not the stored bytes: an encoder that died may have written its own there.
  const rawBytes = ring.view.getUint32(start + Field.rawBytes, true);
  return encodePayload(
    ring.data.subarray(start, payloadAt),
    ring.data.subarray(payloadAt, payloadAt + rawBytes),
    codec,
    key,
  );
}

/** Puts an encoded payload in the place of the records. */
export function storeEncoded(ring: Ring, frame: number, encoded: EncodedPayload): void {
  describeEncoded(ring, frame, encoded);
  storePayload(ring, frame, encoded.stored);
}

/** The part of it that leaves the records as they are. */
export function describeEncoded(ring: Ring, frame: number, { codec, encryption, stored, crc }: EncodedPayload): void {
  const start = placeOf(ring, frame);
  ring.data[start + Field.codec] = codec;
  ring.data[start + Field.encryption] = encryption;
  ring.view.setUint32(start + Field.storedBytes, stored.byteLength, true);
  ring.view.setUint32(start + Field.payloadCrc, crc, true);
  ring.descriptors[ring.descriptor(frame) + Descriptor.bytes] = align8(FRAME_HEADER_BYTES + stored.byteLength);
}

/** And the part that writes over them. */
export function storePayload(ring: Ring, frame: number, stored: Uint8Array): void {
  const start = placeOf(ring, frame);
  const end = start + FRAME_HEADER_BYTES + stored.byteLength;
  ring.data.set(stored, start + FRAME_HEADER_BYTES);
  ring.data.fill(0, end, start + ring.descriptors[ring.descriptor(frame) + Descriptor.bytes]);
}
