import { crc32 } from '../format/checksum.js';
import { Codec } from '../format/codec.js';
import { HEADER_TAG_BYTES, type RingKey } from '../format/encryption.js';
import {
  buildFrame,
  Field,
  FRAME_HEADER_BYTES,
  type FrameHeader,
  FrameType,
  frameBytes,
  HeaderFlag,
  writeEncoderFields,
  writeSequencerFields,
} from '../format/frame.js';
import { encodePayload, type PayloadKeys, putPieces, writeEncryptedFields } from '../format/frame-payload.js';
import { addToIndex, encodeSeal, type IndexEntry } from '../format/seal.js';
import { encodeSegmentHeader, type SegmentHeader } from '../format/segment-header.js';
import { SPARSE_OVERHEAD_BYTES, writeSparsePrefix } from '../format/sparse.js';
import type { LogState } from '../format/state.js';
import type { StorageFile } from '../storage/storage.js';
import { segmentName } from './names.js';
import type { SegmentInfo } from './segment-info.js';

/** Content of one sparse frame, about: what a reader reads to find one record of it. */
const SPARSE_BYTES = 64 * 1024;
/** The same when it is compressed: a smaller one compresses worse than what it takes the place of. */
const COMPRESSED_SPARSE_BYTES = 256 * 1024;
/** Written at once. */
const WRITE_BYTES = 1024 * 1024;
/** All that is in it was durable before it was written: a sealed segment was. */
const FRAME_FLAGS = HeaderFlag.PrefixDurable | HeaderFlag.Compacted;
/** The most LSNs that one frame can stand for. */
const MOST_LSNS = 0xffffffff;
const EMPTY = new Uint8Array(0);

/** What an encrypted log is written with. */
export interface WriterEncryption {
  /** Nobody else encrypts with it, and nobody has: its counter begins here. */
  ringKey: RingKey;
  /** All keys that are at hand, for frames that are copied. */
  keys: PayloadKeys;
}

/** Writes a compacted segment into a file of its own, from its header to its seal. Its name is the caller's business. */
export class CompactedWriter {
  readonly #file: StorageFile;
  readonly #header: Omit<SegmentHeader, 'headerBytes' | 'headerCrc'>;
  readonly #headerBytes: number;
  readonly #headerCrc: number;
  readonly #index: IndexEntry[] = [];
  readonly #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #written = 0;
  /** Behind all frames, also those that wait to be written. */
  #end: number;
  #lastCrc: number;
  /** The first LSN that no frame stands for yet. */
  #nextLsn: number;
  #timestamp: number;
  /** The sparse frame that is being filled. */
  #payload = new Uint8Array(SPARSE_BYTES + 4096);
  #payloadEnd = 0;
  #lastLsn = 0;
  #lastTime = 0;
  /** That of a frame which something in it came from. */
  #codec: number = Codec.None;
  readonly #encryption: WriterEncryption | undefined;
  /** Of frames that were encrypted: no number comes twice. */
  #counter = 0;

  /** With `encryption`, whatever it puts together is encrypted. */
  constructor(
    file: StorageFile,
    header: Omit<SegmentHeader, 'headerBytes' | 'headerCrc'>,
    encryption?: WriterEncryption,
  ) {
    const { bytes, headerCrc } = encodeSegmentHeader(header);
    this.#file = file;
    this.#encryption = encryption;
    this.#header = header;
    this.#headerBytes = bytes.byteLength;
    this.#headerCrc = headerCrc;
    this.#lastCrc = headerCrc;
    this.#end = bytes.byteLength;
    this.#nextLsn = header.firstLsn;
    this.#timestamp = header.createdAt;
    this.#put(bytes);
  }

  /**
   * One record, `record` as it lies in its frame, which was compressed with `codec`. LSNs only grow, times never fall.
   */
  add(lsn: number, timestamp: number, record: Uint8Array, codec: number): void {
    const bytes = SPARSE_OVERHEAD_BYTES + record.byteLength;
    const most = this.#codec === Codec.None ? SPARSE_BYTES : COMPRESSED_SPARSE_BYTES;
    const full = this.#payloadEnd + bytes > most || lsn - this.#nextLsn >= MOST_LSNS;
    if (this.#payloadEnd > 0 && full) this.#endFrame(this.#lastLsn);
    if (this.#payloadEnd === 0) {
      // The record's own LSN leaps over what is left out before it, as far as one frame can stand for.
      if (lsn - this.#nextLsn >= MOST_LSNS) this.#skipTo(lsn);
      this.#timestamp = timestamp;
      this.#lastTime = timestamp;
      this.#lastLsn = this.#nextLsn - 1;
    }
    if (this.#payload.length < this.#payloadEnd + bytes) {
      const larger = new Uint8Array(this.#payloadEnd + bytes);
      larger.set(this.#payload.subarray(0, this.#payloadEnd));
      this.#payload = larger;
    }
    const at = writeSparsePrefix(
      this.#payload,
      this.#payloadEnd,
      lsn - this.#lastLsn - 1,
      Math.max(0, timestamp - this.#lastTime),
    );
    this.#payload.set(record, at);
    this.#payloadEnd = at + record.byteLength;
    this.#lastLsn = lsn;
    this.#lastTime = Math.max(timestamp, this.#lastTime);
    if (codec !== Codec.None) this.#codec = codec;
  }

  /**
   * What is left of a transaction that one frame committed, `header`: it goes on standing for all of its LSNs. `each` hands
   * over the records that stay, `records` in number and `bytes` long.
   */
  addTransaction(
    { firstLsn, records: lsns, timestamp, codec }: FrameHeader,
    prefix: Uint8Array,
    { records, bytes }: { records: number; bytes: number },
    each: (add: (lsn: number, record: Uint8Array) => void) => void,
  ): void {
    this.coverTo(firstLsn - 1);
    this.#timestamp = timestamp;
    const payload = new Uint8Array(prefix.byteLength + bytes + records * SPARSE_OVERHEAD_BYTES);
    payload.set(prefix);
    let at = prefix.byteLength;
    let next = firstLsn;
    each((lsn, record) => {
      at = writeSparsePrefix(payload, at, lsn - next, 0);
      payload.set(record, at);
      at += record.byteLength;
      next = lsn + 1;
    });
    this.#appendEncoded(FrameType.SparseTransaction, payload.subarray(0, at), lsns, codec);
  }

  /** A frame as it is. */
  copy(header: FrameHeader, payload: Uint8Array): void {
    const { type, codec, encryption, storedBytes, rawBytes, records, payloadCrc, firstLsn, timestamp } = header;
    this.coverTo(firstLsn - 1);
    const frame = new Uint8Array(frameBytes(storedBytes));
    const view = new DataView(frame.buffer);
    writeEncoderFields(view, 0, type, storedBytes, rawBytes, records);
    view.setUint8(Field.codec, codec);
    view.setUint8(Field.encryption, encryption);
    // The tag of the header is made anew for its new place, and its checksum goes on over it.
    const crc = encryption === 0 ? payloadCrc : crc32(payload.subarray(0, payload.byteLength - HEADER_TAG_BYTES));
    view.setUint32(Field.payloadCrc, crc, true);
    frame.set(payload, FRAME_HEADER_BYTES);
    this.#timestamp = timestamp;
    this.#append(frame, records);
  }

  /** Records that an earlier repair gave up. */
  gap(firstLsn: number, records: number, timestamp: number): void {
    this.coverTo(firstLsn - 1);
    this.#timestamp = timestamp;
    this.#append(emptyFrame(FrameType.Gap, records), records);
  }

  /** Every LSN up to `lsn` is accounted for: in a frame, or left out by one. */
  coverTo(lsn: number): void {
    if (this.#payloadEnd > 0) this.#endFrame(Math.min(lsn, this.#nextLsn + MOST_LSNS - 1));
    this.#skipTo(lsn + 1);
  }

  /** Writes the seal and makes all of it durable. */
  seal(state: LogState, timestamp: number): SegmentInfo {
    const { salt, segmentId, firstLsn } = this.#header;
    const lastLsn = this.#nextLsn - 1;
    const payload = encodeSeal({ state, index: this.#index }, this.#end);
    const at = Math.max(timestamp, this.#timestamp);
    const seal = buildFrame(FrameType.Seal, payload, lastLsn + 1, lastLsn, salt, at, this.#lastCrc, FRAME_FLAGS);
    this.#put(seal.bytes);
    this.#end += seal.bytes.byteLength;
    this.#write();
    this.#file.sync();
    return {
      name: segmentName(segmentId),
      id: segmentId,
      salt,
      firstLsn,
      lastLsn,
      headerBytes: this.#headerBytes,
      headerCrc: this.#headerCrc,
      endCrc: seal.headerCrc,
      endOffset: this.#end,
      fileBytes: this.#end,
      state: 'sealed',
    };
  }

  /** Frames without a record stand for the LSNs before this one. */
  #skipTo(lsn: number): void {
    for (let left = lsn - this.#nextLsn; left > 0; left = lsn - this.#nextLsn) {
      const lsns = Math.min(left, MOST_LSNS);
      this.#append(emptyFrame(FrameType.Sparse, lsns), lsns);
    }
  }

  #endFrame(lastLsn: number): void {
    const payload = this.#payload.subarray(0, this.#payloadEnd);
    const codec = this.#codec;
    this.#payloadEnd = 0;
    this.#codec = Codec.None;
    this.#appendEncoded(FrameType.Sparse, payload, lastLsn - this.#nextLsn + 1, codec);
    this.#timestamp = this.#lastTime;
  }

  /** A frame of this content, compressed if that pays, and encrypted in an encrypted log. */
  #appendEncoded(type: number, raw: Uint8Array, lsns: number, codec: number): void {
    const header = new Uint8Array(FRAME_HEADER_BYTES);
    writeEncoderFields(new DataView(header.buffer), 0, type, raw.byteLength, raw.byteLength, lsns);
    const key = this.#encryption && { ...this.#encryption.ringKey, counter: this.#counter++ };
    const encoded = encodePayload(header, raw, codec, key);
    const storedBytes = encoded?.storedBytes ?? raw.byteLength;
    const frame = new Uint8Array(frameBytes(storedBytes));
    const view = new DataView(frame.buffer);
    writeEncoderFields(view, 0, type, storedBytes, raw.byteLength, lsns);
    view.setUint8(Field.codec, encoded?.codec ?? Codec.None);
    view.setUint8(Field.encryption, encoded?.encryption ?? 0);
    view.setUint32(Field.payloadCrc, encoded?.crc ?? crc32(raw), true);
    putPieces(frame, FRAME_HEADER_BYTES, encoded?.pieces ?? [raw]);
    this.#append(frame, lsns);
  }

  #append(frame: Uint8Array, lsns: number): void {
    const { salt } = this.#header;
    const view = new DataView(frame.buffer);
    const first = this.#nextLsn;
    if (view.getUint8(Field.type) !== FrameType.Gap && lsns > 0) {
      addToIndex(this.#index, this.#end, first, this.#timestamp);
    }
    const fields = [first, first - 1, salt, this.#timestamp, this.#lastCrc, FRAME_FLAGS] as const;
    this.#lastCrc =
      view.getUint8(Field.encryption) === 0
        ? writeSequencerFields(view, frame, 0, ...fields)
        : writeEncryptedFields(this.#headerKeys, view, frame, 0, ...fields);
    this.#nextLsn += lsns;
    this.#end += frame.byteLength;
    this.#put(frame);
  }

  readonly #headerKeys = {
    get: (keyId: number) => this.#encryption?.keys.find(keyId)?.headerKey,
  };

  #put(bytes: Uint8Array): void {
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.byteLength;
    if (this.#waitingBytes >= WRITE_BYTES) this.#write();
  }

  #write(): void {
    this.#file.write(this.#waiting, this.#written);
    this.#written += this.#waitingBytes;
    this.#waiting.length = 0;
    this.#waitingBytes = 0;
  }
}

function emptyFrame(type: number, lsns: number): Uint8Array {
  const frame = new Uint8Array(FRAME_HEADER_BYTES);
  const view = new DataView(frame.buffer);
  writeEncoderFields(view, 0, type, 0, 0, lsns);
  view.setUint32(Field.payloadCrc, crc32(EMPTY), true);
  return frame;
}
