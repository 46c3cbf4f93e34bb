import { createCipheriv, createDecipheriv, createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { Field, FRAME_HEADER_BYTES } from './frame.js';
import { writeU64 } from './integers.js';

/**
 * The stored payload of an encrypted frame:
 *
 *   0        4             20        28                                              -32          -16
 *   | key id | ring's salt | counter | ciphertext, as long as the (compressed) payload | payload tag | header tag |
 *
 * A key encrypts nothing itself. For each ring, and anew whenever a log is opened or a key rotated, 16 random bytes (the
 * salt) make a subkey of it, and that subkey's nonces are a counter which one thread counts up: so no nonce can come
 * twice under a subkey, and two subkeys are the same only if 128 random bits are.
 *
 * The payload tag (AES-256-GCM) covers the half of the header that the encoder fills; the header tag (HMAC-SHA-256) covers
 * all of it but the two checksums, and the payload tag. The payload's CRC is over everything that is stored, tags
 * included: so what a crash tore does not hold by its checksum, and a tag that does not match is never mistaken for it.
 */
export const ENCRYPTION_AES_256_GCM = 1;

export const KEY_BYTES = 32;
export const SALT_BYTES = 16;
const TAG_BYTES = 16;
const ENVELOPE_BYTES = 4 + SALT_BYTES + 8;
/** What encryption adds to a payload. */
export const ENCRYPTION_BYTES = ENVELOPE_BYTES + 2 * TAG_BYTES;
export const HEADER_TAG_BYTES = TAG_BYTES;

/** What one ring encrypts with, from one opening or rotation to the next. Plain data: it travels between threads. */
export interface RingKey {
  keyId: number;
  salt: Uint8Array;
  subkey: Uint8Array;
}

export function makeRingKey(keyId: number, key: Uint8Array, salt: Uint8Array): RingKey {
  return { keyId, salt, subkey: derive(key, salt, 'ringwal frame') };
}

/** What the header tags of one log are made with. */
export function headerKeyOf(key: Uint8Array, logId: Uint8Array): Uint8Array {
  return derive(key, logId, 'ringwal header');
}

/** Kept in the log: tells whether a key is the one that it was written with, and nothing else about it. */
export function checkValueOf(key: Uint8Array, logId: Uint8Array, keyId: number): string {
  return Buffer.from(derive(key, logId, `ringwal key check ${keyId}`).subarray(0, 16)).toString('base64');
}

export function subkeyOf(key: Uint8Array, salt: Uint8Array): Uint8Array {
  return derive(key, salt, 'ringwal frame');
}

function derive(key: Uint8Array, salt: Uint8Array, purpose: string): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', key, salt, purpose, KEY_BYTES));
}

/**
 * Encrypts a payload. `header`: the frame's header, with the encoder's half filled in for the payload as it will be
 * stored. The header tag, which ends the stored payload, is left to the sequencer. The same counter must never be given
 * twice with one ring key. Returns what the payload begins with, in pieces: they are copied to their place once.
 */
export function encrypt(
  header: Uint8Array,
  plain: Uint8Array,
  { keyId, salt, subkey }: RingKey,
  counter: number,
): { envelope: Uint8Array; ciphertext: Uint8Array; payloadTag: Uint8Array } {
  const nonce = nonceOf(counter);
  const cipher = createCipheriv('aes-256-gcm', subkey, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(encoderHalf(header));
  const envelope = Buffer.alloc(ENVELOPE_BYTES);
  envelope.writeUInt32LE(keyId, 0);
  envelope.set(salt, 4);
  envelope.set(nonce.subarray(4), 4 + SALT_BYTES);
  // GCM is a stream: what goes in comes out, byte for byte, and `final` adds nothing.
  const ciphertext = cipher.update(plain);
  cipher.final();
  return { envelope, ciphertext, payloadTag: cipher.getAuthTag() };
}

/** Key id and salt of an encrypted payload; undefined when it is too short to be one. */
export function envelopeOf(stored: Uint8Array): { keyId: number; salt: Uint8Array } | undefined {
  if (stored.byteLength < ENCRYPTION_BYTES) return undefined;
  const view = new DataView(stored.buffer, stored.byteOffset, stored.byteLength);
  return { keyId: view.getUint32(0, true), salt: stored.subarray(4, 4 + SALT_BYTES) };
}

/** The payload that was encrypted, or undefined when a tag does not match: it, or its header, is not what was written. */
export function decrypt(
  header: Uint8Array,
  stored: Uint8Array,
  subkey: Uint8Array,
  headerKey: Uint8Array,
): Buffer | undefined {
  const end = stored.byteLength - 2 * TAG_BYTES;
  const payloadTag = stored.subarray(end, end + TAG_BYTES);
  if (!timingSafeEqual(headerTag(headerKey, header, payloadTag), stored.subarray(end + TAG_BYTES))) return undefined;
  const nonce = new Uint8Array(12);
  nonce.set(stored.subarray(4 + SALT_BYTES, ENVELOPE_BYTES), 4);
  const decipher = createDecipheriv('aes-256-gcm', subkey, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(encoderHalf(header));
  decipher.setAuthTag(payloadTag);
  const plain = decipher.update(stored.subarray(ENVELOPE_BYTES, end));
  try {
    decipher.final();
  } catch {
    return undefined;
  }
  return plain;
}

/** Binds what the sequencer filled in (LSN, times, the chain) to the payload. All of the header but its checksums. */
export function headerTag(headerKey: Uint8Array, header: Uint8Array, payloadTag: Uint8Array): Uint8Array {
  return createHmac('sha256', headerKey)
    .update(header.subarray(0, Field.payloadCrc))
    .update(header.subarray(Field.firstLsn, Field.headerCrc))
    .update(payloadTag)
    .digest()
    .subarray(0, TAG_BYTES);
}

/** Puts the header tag into an encrypted frame that is otherwise complete. `bytes`: from the frame's start. */
export function writeHeaderTag(headerKey: Uint8Array, bytes: Uint8Array, storedBytes: number): Uint8Array {
  const end = FRAME_HEADER_BYTES + storedBytes - TAG_BYTES;
  const tag = headerTag(headerKey, bytes, bytes.subarray(end - TAG_BYTES, end));
  bytes.set(tag, end);
  return tag;
}

/** The half of a header that the encoder knows. The flags are the sequencer's, and not known yet. */
function encoderHalf(header: Uint8Array): Uint8Array {
  const half = new Uint8Array(header.subarray(0, Field.payloadCrc));
  half[Field.flags] = 0;
  return half;
}

function nonceOf(counter: number): Uint8Array {
  const nonce = new Uint8Array(12);
  writeU64(new DataView(nonce.buffer), 4, counter);
  return nonce;
}
