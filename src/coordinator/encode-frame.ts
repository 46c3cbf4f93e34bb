import { crc32 } from '../format/checksum.js';
import { Field, FRAME_HEADER_BYTES } from '../format/frame.js';
import { align8 } from '../format/integers.js';
import { encodeRecords, type FrameEncoding, storeEncoded } from '../producer/encode-in-ring.js';
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

/**
 * The same for all frames where the pool shares two processors with the opening thread and the actor: then the hop to a
 * thread that sleeps, and the turns that they take, cost more than the work, whatever is in flight. With frames of 200 KB
 * that were only to be checksummed (`appendMany` of 1,000 records of 100 bytes) the pool cost a fifth of the records/s, and with
 * 16 records of 64 KiB in flight a quarter. `node dist/bench/codecs.js` measures the others. A frame of this size keeps
 * the thread from its events for about 0.5 ms when it is encrypted, and 0.1 ms when it is not.
 */
export const CROWDED_POOL_FRAME_BYTES = 512 * 1024;

/**
 * Encodes one frame and hands it to the actor. Owner of a frame in state Encoding is whoever runs this; doing it again
 * once the first attempt is over is how the frame of a dead encoder is saved. A thread may be terminated between
 * any two of these lines, or in the middle of one: the records, and the header in front of them, are only read here, so
 * the next attempt finds what the first one found, and writes all of the rest anew, with a counter of its own.
 */
export function encodeFrame(ring: Ring, control: Control, frame: number, encoding?: FrameEncoding): void {
  if (ring.state(frame) !== FrameState.Encoding) return;
  const encoded = encoding && encodeRecords(ring, frame, encoding);
  if (encoded === undefined) leaveAsItIs(ring, frame);
  else storeEncoded(ring, frame, behindRecords(ring, frame), encoded);
  ring.setState(frame, FrameState.Ready);
  control.ring();
}

/** Where the producer left room for the encoded frame. */
function behindRecords(ring: Ring, frame: number): number {
  const raw = ring.descriptors[ring.descriptor(frame) + Descriptor.raw];
  return raw + rawFrameBytes(ring, raw);
}

function rawFrameBytes(ring: Ring, raw: number): number {
  return align8(FRAME_HEADER_BYTES + ring.view.getUint32(raw + Field.rawBytes, true));
}

/** Plain, also if an attempt that died had said that the frame is elsewhere. */
function leaveAsItIs(ring: Ring, frame: number): void {
  const at = ring.descriptor(frame);
  const raw = ring.descriptors[at + Descriptor.raw];
  const payloadAt = raw + FRAME_HEADER_BYTES;
  const payload = ring.data.subarray(payloadAt, payloadAt + ring.view.getUint32(raw + Field.rawBytes, true));
  ring.view.setUint32(raw + Field.payloadCrc, crc32(payload), true);
  ring.descriptors[at + Descriptor.offset] = raw;
  ring.descriptors[at + Descriptor.bytes] = rawFrameBytes(ring, raw);
}
