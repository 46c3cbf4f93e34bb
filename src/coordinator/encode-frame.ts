import { crc32 } from '../format/checksum.js';
import { Field, FRAME_HEADER_BYTES } from '../format/frame.js';
import { align8 } from '../format/integers.js';
import { describeEncoded, encodeRecords, type FrameEncoding, storePayload } from '../producer/encode-in-ring.js';
import type { Control } from '../ring/control.js';
import { Descriptor, FrameState, type Ring } from '../ring/ring.js';

/**
 * Frames of this many bytes and more are checksummed by the pool. Handing one over costs this thread about 5 µs and the
 * frame 15 µs on its way; checksumming this much here costs 17 µs, and half of it less than both together. Measured by
 * `node dist/bench/crossover.js`.
 */
export const POOL_FRAME_BYTES = 128 * 1024;

/** The same for frames that are only encrypted: at some 2 GB/s, and another copy. */
export const POOL_ENCRYPT_BYTES = 32 * 1024;

/** An encoding, and shared memory that is large enough for what comes of it; see {@link encodeFrame}. */
export interface PoolEncoding extends FrameEncoding {
  scratch: SharedArrayBuffer;
}

/**
 * Encodes one frame where it lies and hands it to the actor. Owner of a frame in state Encoding is whoever runs this;
 * doing it again once the first attempt is over is how the frame of a dead encoder is saved.
 *
 * A thread may be terminated between any two of these lines. What is encoded goes to the place of the records, so:
 *  1. it is put into `scratch`, which outlives the thread, and described in the header. Up to here the records are as
 *     they were, their number of bytes too (raw bytes), and the next attempt begins anew, with a counter of its own;
 *  2. the state becomes Storing: whoever sees that sees all of 1;
 *  3. it is copied from `scratch` to its place. From here on the next attempt, whatever part of this was done, does this
 *     step again, which needs nothing but the header and `scratch`;
 *  4. the state becomes Ready, and the frame is the actor's.
 */
export function encodeFrame(ring: Ring, control: Control, frame: number, encoding?: PoolEncoding): void {
  const state = ring.state(frame);
  if (state !== FrameState.Encoding && state !== FrameState.Storing) return;
  if (state === FrameState.Encoding) {
    const encoded = encoding && encodeRecords(ring, frame, encoding);
    if (encoded === undefined) leaveAsItIs(ring, frame);
    else {
      new Uint8Array(encoding!.scratch).set(encoded.stored);
      describeEncoded(ring, frame, encoded);
      ring.setState(frame, FrameState.Storing);
    }
  }
  if (ring.state(frame) === FrameState.Storing) storePayload(ring, frame, encodedIn(ring, frame, encoding!.scratch));
  ring.setState(frame, FrameState.Ready);
  control.ring();
}

/** Bytes of `scratch` that suffice for a frame. */
export function scratchBytes(ring: Ring, frame: number): number {
  return ring.descriptors[ring.descriptor(frame) + Descriptor.bytes] + SPARE_BYTES;
}

/** More than encryption adds. */
const SPARE_BYTES = 64;

function encodedIn(ring: Ring, frame: number, scratch: SharedArrayBuffer): Uint8Array {
  const offset = ring.descriptors[ring.descriptor(frame) + Descriptor.offset];
  return new Uint8Array(scratch, 0, ring.view.getUint32(offset + Field.storedBytes, true));
}

/** Plain, also if an attempt that died had described it otherwise. */
function leaveAsItIs(ring: Ring, frame: number): void {
  const at = ring.descriptor(frame);
  const offset = ring.descriptors[at + Descriptor.offset];
  const payloadAt = offset + FRAME_HEADER_BYTES;
  const bytes = ring.view.getUint32(offset + Field.rawBytes, true);
  ring.data[offset + Field.codec] = 0;
  ring.data[offset + Field.encryption] = 0;
  ring.view.setUint32(offset + Field.storedBytes, bytes, true);
  ring.view.setUint32(offset + Field.payloadCrc, crc32(ring.data.subarray(payloadAt, payloadAt + bytes)), true);
  ring.descriptors[at + Descriptor.bytes] = align8(FRAME_HEADER_BYTES + bytes);
}
