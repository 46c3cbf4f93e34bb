import { corrupt, type DamagePlace, WalError } from '../errors.js';
import { crc32 } from './checksum.js';
import { CODEC_NAMES, Codec, compress, decompress, isAvailable } from './codec.js';
import { copyInto } from './copy.js';
import {
  decrypt,
  ENCRYPTION_AES_256_GCM,
  ENCRYPTION_BYTES,
  encrypt,
  envelopeOf,
  HEADER_TAG_BYTES,
  type RingKey,
  writeHeaderTag,
} from './encryption.js';
import {
  carriesRecords,
  checksumHeader,
  Field,
  FRAME_HEADER_BYTES,
  type FrameHeader,
  fillSequencerFields,
  isEncoded,
  type Salt,
} from './frame.js';

/**
 * The way of a payload into a frame and out again: {@link encodePayload} and {@link decodePayload} are the only places
 * that know of codecs and encryption. First compressed, then encrypted: what is encrypted no longer compresses.
 */

/** Payloads below this stay as they are: hardly anything is won, and a lone append would pay for it. */
export const COMPRESS_BYTES = 4096;
/** Compression must save this part of a payload, or it is not worth undoing at each read. */
const LEAST_SAVING = 1 / 16;

export interface EncodedPayload {
  codec: number;
  encryption: number;
  /** As it is to lie in the file: the pieces one behind the other, none of them empty, each in memory of its own. */
  pieces: readonly Uint8Array[];
  /** Of all pieces together. */
  storedBytes: number;
  /** Of what is stored; of an encrypted payload, without the header tag that ends it. */
  crc: number;
}

/** Encrypts the frame at hand: the key of its ring, and a number that was given to no other frame. */
export interface FrameKey extends RingKey {
  counter: number;
}

/**
 * Encodes a payload. `header`: the frame's header as the producer left it; it is not changed, and neither is `raw`.
 * Undefined: it is best stored as it is.
 */
export function encodePayload(
  header: Uint8Array,
  raw: Uint8Array,
  codec: number,
  key: FrameKey | undefined,
): EncodedPayload | undefined {
  const compressed = codec === Codec.None ? undefined : compressIfItPays(codec, raw);
  if (key === undefined) {
    if (compressed === undefined) return undefined;
    return {
      codec,
      encryption: 0,
      pieces: [compressed],
      storedBytes: compressed.byteLength,
      crc: crc32(compressed),
    };
  }
  return encryptFor(header, compressed ?? raw, compressed === undefined ? Codec.None : codec, key);
}

/** Puts the pieces of a payload in their place. */
export function putPieces(target: Uint8Array, at: number, pieces: readonly Uint8Array[]): void {
  for (const piece of pieces) at = copyInto(target, at, piece);
}

function compressIfItPays(codec: number, raw: Uint8Array): Uint8Array | undefined {
  if (raw.byteLength < COMPRESS_BYTES) return undefined;
  const compressed = compress(codec, raw);
  return compressed.byteLength <= raw.byteLength * (1 - LEAST_SAVING) ? compressed : undefined;
}

function encryptFor(header: Uint8Array, plain: Uint8Array, codec: number, key: FrameKey): EncodedPayload {
  const encryption = ENCRYPTION_AES_256_GCM;
  const storedBytes = plain.byteLength + ENCRYPTION_BYTES;
  const ahead = new Uint8Array(header.subarray(0, FRAME_HEADER_BYTES));
  ahead[Field.codec] = codec;
  ahead[Field.encryption] = encryption;
  new DataView(ahead.buffer).setUint32(Field.storedBytes, storedBytes, true);
  const { envelope, ciphertext, payloadTag } = encrypt(ahead, plain, key, key.counter);
  const crc = crc32(payloadTag, crc32(ciphertext, crc32(envelope)));
  return { codec, encryption, pieces: [envelope, ciphertext, payloadTag, NO_HEADER_TAG], storedBytes, crc };
}

/** What lies in the place of the header tag until the sequencer writes it. */
const NO_HEADER_TAG = new Uint8Array(HEADER_TAG_BYTES);

/**
 * As `writeSequencerFields`, for an encrypted frame: its header tag needs these fields, and its payload's checksum the tag.
 * `headerKeys`: by the id of the key.
 */
export function writeEncryptedFields(
  headerKeys: Pick<ReadonlyMap<number, Uint8Array>, 'get'>,
  view: DataView,
  bytes: Uint8Array,
  at: number,
  ...fields: [firstLsn: number, durableLsn: number, salt: Salt, timestamp: number, previousCrc: number, flags: number]
): number {
  fillSequencerFields(view, at, ...fields);
  const headerKey = headerKeys.get(view.getUint32(at + FRAME_HEADER_BYTES, true));
  if (headerKey === undefined) throw new Error('A frame is encrypted with a key that the log does not know.');
  const tag = writeHeaderTag(headerKey, bytes.subarray(at), view.getUint32(at + Field.storedBytes, true));
  view.setUint32(at + Field.payloadCrc, crc32(tag, view.getUint32(at + Field.payloadCrc, true)), true);
  return checksumHeader(view, bytes, at);
}

/** The keys that somebody has who reads. */
export interface PayloadKeys {
  /** Undefined: that key is not at hand. */
  find(keyId: number): PayloadKey | undefined;
}

export interface PayloadKey {
  headerKey: Uint8Array;
  subkey(salt: Uint8Array): Uint8Array;
  /** The log says that this is the key, and not merely that somebody handed it over. */
  known: boolean;
}

/**
 * The records of a frame whose checksums hold. `bytes` holds the frame, whose payload starts at `payloadAt`, and its header
 * directly before it. `ERR_WAL_CORRUPT`: it is not what was written, whoever changed it. `ERR_WAL_KEY`: its key is not
 * at hand. `ERR_WAL_VERSION`: this Node.js or ringwal cannot read it. Sets no more memory aside than the header says
 * that the records take.
 */
export function decodePayload(
  header: FrameHeader,
  bytes: Uint8Array,
  payloadAt: number,
  keys: PayloadKeys | undefined,
  place: DamagePlace,
): Uint8Array {
  const { codec, encryption, storedBytes, rawBytes } = header;
  let payload = bytes.subarray(payloadAt, payloadAt + storedBytes);
  if (encryption !== 0) {
    payload = decryptPayload(
      encryption,
      bytes.subarray(payloadAt - FRAME_HEADER_BYTES, payloadAt),
      payload,
      keys,
      place,
    );
  }
  const raw = codec === Codec.None ? payload : decompress(codec, payload, rawBytes);
  if (raw === undefined || raw.byteLength !== rawBytes) {
    throw unsound('does not decompress to what its header says', place);
  }
  return raw;
}

/**
 * Whether what a frame holds can be brought back, as far as that can be told: without its key, or a codec that this Node.js
 * lacks, its checksums are all there is.
 */
export function isSound(header: FrameHeader, bytes: Uint8Array, payloadAt: number, keys?: PayloadKeys): boolean {
  if (!carriesRecords(header.type) || !isEncoded(header)) return true;
  try {
    decodePayload(header, bytes, payloadAt, keys, {});
    return true;
  } catch (error) {
    return (error as WalError).code !== 'ERR_WAL_CORRUPT';
  }
}

/** Whether {@link isSound} could tell. */
export function isReadable({ codec, encryption, storedBytes }: FrameHeader, payload: Uint8Array, keys?: PayloadKeys) {
  if (!isAvailable(codec) || CODEC_NAMES[codec] === undefined) return false;
  if (encryption === 0) return true;
  const envelope = envelopeOf(payload.subarray(0, storedBytes));
  return envelope === undefined || keys?.find(envelope.keyId) !== undefined;
}

function decryptPayload(
  encryption: number,
  header: Uint8Array,
  stored: Uint8Array,
  keys: PayloadKeys | undefined,
  place: DamagePlace,
): Uint8Array {
  if (encryption !== ENCRYPTION_AES_256_GCM) {
    throw new WalError('ERR_WAL_VERSION', `A frame is encrypted in a way (${encryption}) that a newer ringwal knows.`);
  }
  const envelope = envelopeOf(stored);
  if (envelope === undefined) throw unsound('is too short to be encrypted', place);
  const { keyId, salt } = envelope;
  const key = keys?.find(keyId);
  if (key === undefined) throw missingKey(keyId, place);
  const plain = decrypt(header, stored, key.subkey(salt), key.headerKey);
  if (plain !== undefined) return plain;
  // Nothing in the log vouches for the key: then it is more likely the wrong one than the frame a forgery.
  if (!key.known) throw missingKey(keyId, place);
  throw unsound('is not authentic: it is not what the holder of the key wrote', place);
}

function missingKey(keyId: number, { segment, lsn }: DamagePlace): WalError {
  const where = segment === undefined ? 'A frame' : `A frame of ${segment}`;
  return new WalError(
    'ERR_WAL_KEY',
    `${where} is encrypted with key ${keyId}, which encryptionKey (--key-file) does not give. Nothing is damaged.`,
    { segment, lsn },
  );
}

function unsound(what: string, place: DamagePlace): WalError {
  const { segment = 'the log', offset, lsn } = place;
  const at = offset === undefined ? '' : ` at byte ${offset}`;
  return corrupt(`The frame of ${segment}${at} (LSN ${lsn ?? '?'}) holds by its checksums, but ${what}.`, place);
}
