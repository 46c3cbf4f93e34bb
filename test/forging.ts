import fs from 'node:fs';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { crc32 } from '../src/format/checksum.js';
import { Field, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameType, frameBytes } from '../src/format/frame.js';
import { decodeSegmentHeader } from '../src/format/segment-header.js';

/** Frames as somebody could change them who knows the format: all checksums hold afterwards. */

export interface FoundFrame {
  offset: number;
  type: number;
  codec: number;
  encryption: number;
  storedBytes: number;
  rawBytes: number;
  payload: Buffer;
}

/** Whether a frame starts there: behind the last one of a file that is not closed there are zeros. */
function startsAt(bytes: Buffer, offset: number): boolean {
  return offset + FRAME_HEADER_BYTES <= bytes.byteLength && bytes.readUInt32LE(offset) === FRAME_MAGIC;
}

/** The frames of a segment file, one behind the other. */
export function framesIn(file: string): FoundFrame[] {
  const bytes = fs.readFileSync(file);
  const { headerBytes } = headerOf(file, bytes);
  const frames: FoundFrame[] = [];
  for (let offset = headerBytes; startsAt(bytes, offset); ) {
    const storedBytes = bytes.readUInt32LE(offset + Field.storedBytes);
    const payloadAt = offset + FRAME_HEADER_BYTES;
    frames.push({
      offset,
      type: bytes[offset + Field.type],
      codec: bytes[offset + Field.codec],
      encryption: bytes[offset + Field.encryption],
      storedBytes,
      rawBytes: bytes.readUInt32LE(offset + Field.rawBytes),
      payload: bytes.subarray(payloadAt, payloadAt + storedBytes),
    });
    offset += frameBytes(storedBytes);
  }
  return frames;
}

/** An idle log says in its file how far it is durable, a moment after its last record. Nothing is written behind that. */
export async function untilStamped(file: string): Promise<void> {
  while (framesIn(file).at(-1)?.type !== FrameType.Stamp) await setTimeout(1);
}

export function recordFrames(file: string): FoundFrame[] {
  return framesIn(file).filter(({ type }) => type === FrameType.Records);
}

/** Changes a segment file, and then all checksums and links of its frames, so that they hold. */
export function forge(file: string, change: (bytes: Buffer) => void): void {
  const bytes = fs.readFileSync(file);
  const { headerBytes, headerCrc } = headerOf(file, bytes);
  change(bytes);
  let previous = headerCrc;
  for (let at = headerBytes; startsAt(bytes, at); ) {
    const storedBytes = bytes.readUInt32LE(at + Field.storedBytes);
    const payloadAt = at + FRAME_HEADER_BYTES;
    bytes.writeUInt32LE(crc32(bytes.subarray(payloadAt, payloadAt + storedBytes)), at + Field.payloadCrc);
    bytes.writeUInt32LE(previous, at + Field.previousCrc);
    previous = crc32(bytes.subarray(at, at + Field.headerCrc));
    bytes.writeUInt32LE(previous, at + Field.headerCrc);
    at += frameBytes(storedBytes);
  }
  fs.writeFileSync(file, bytes);
}

function headerOf(file: string, bytes: Buffer) {
  return decodeSegmentHeader(path.basename(file), (target, position) =>
    bytes.copy(target, 0, position, position + target.byteLength),
  );
}

/** The generator polynomial of CRC-32, highest power first. Added to a message, it changes five bytes and no checksum. */
const GENERATOR = '100000100110000010001110110110111';

/** Changes a file at `offset` so that every CRC over it stays what it was: nothing but a key can tell. */
export function changeUnseen(file: string, offset: number): void {
  const bytes = fs.readFileSync(file);
  [...GENERATOR].forEach((bit, i) => {
    bytes[offset + (i >> 3)] ^= Number(bit) << (i & 7);
  });
  fs.writeFileSync(file, bytes);
}
