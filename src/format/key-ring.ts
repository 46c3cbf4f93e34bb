import { types } from 'node:util';
import { invalidArgument, WalError } from '../errors.js';
import { checkValueOf, headerKeyOf, KEY_BYTES, subkeyOf } from './encryption.js';
import type { PayloadKey, PayloadKeys } from './frame-payload.js';
import type { EncryptionState } from './state.js';

/** A key and its number. */
export interface NumberedKey {
  /** A whole number from 1 to 4,294,967,295, which each frame repeats; never given to another key. */
  id: number;
  /** 32 bytes. */
  key: Uint8Array;
}

/**
 * Finds keys: by id when a frame was encrypted with it, and without one when the log asks which key to go on with, at
 * `open` and at `rotate`. A key without an id has the id that was asked for, and 1 when none was. `undefined`: there is no
 * such key (any more).
 */
export type KeyFunction = (
  keyId: number | undefined,
) => Uint8Array | NumberedKey | undefined | Promise<Uint8Array | NumberedKey | undefined>;

/** 32 bytes, which are key 1; or a function, for keys that change. */
export type EncryptionKey = Uint8Array | KeyFunction;

const MOST_ID = 2 ** 32 - 1;
/** Subkeys that are kept, of each key: one a ring and opening. */
const MOST_SUBKEYS = 256;

/** Checks what a caller handed in as a key, and copies it at once. */
export function keySourceOf(encryptionKey: unknown): KeyFunction | undefined {
  if (encryptionKey === undefined) return undefined;
  if (typeof encryptionKey === 'function') return encryptionKey as KeyFunction;
  const key = copyOf(encryptionKey);
  return (id = 1) => (id === 1 ? key : undefined);
}

/** The keys of one log, as far as somebody has them. Never shows them to anybody. */
export class KeyRing implements PayloadKeys {
  readonly #source: KeyFunction | undefined;
  readonly #keys = new Map<number, LoadedKey>();
  #current: NumberedKey | undefined;

  constructor(source: KeyFunction | undefined) {
    this.#source = source;
  }

  /** A ring of keys that another thread of this process exported. It can find keys, and get no more of them. */
  static of(keys: readonly NumberedKey[], logId: Uint8Array): KeyRing {
    const ring = new KeyRing(undefined);
    for (const { id, key } of keys) ring.#keys.set(id, new LoadedKey(key, logId, true));
    return ring;
  }

  /** Whether there is anybody to ask for keys. */
  get hasSource(): boolean {
    return this.#source !== undefined;
  }

  find(keyId: number): PayloadKey | undefined {
    return this.#keys.get(keyId);
  }

  /** All keys that are at hand: for another thread of this process, which makes a ring of its own with them. */
  exported(): NumberedKey[] {
    return [...this.#keys].map(([id, loaded]) => ({ id, key: loaded.exported() }));
  }

  /**
   * Gets every key that the header of a segment knows of: all that its frames can need. One that is not the log's is
   * `ERR_WAL_KEY`; one that nobody has is left out, and missed by whoever reads a frame that needs it.
   */
  async load(logId: Uint8Array, encryption: EncryptionState | undefined): Promise<void> {
    if (this.#source === undefined) return;
    for (const [text, checkValue] of Object.entries(encryption?.keys ?? {})) {
      const id = Number(text);
      if (this.#keys.get(id)?.known) continue;
      const found = await this.#ask(id);
      if (found === undefined) continue;
      if (checkValueOf(found.key, logId, id) !== checkValue) throw wrongKey(id);
      this.#keys.set(id, new LoadedKey(found.key, logId, true));
    }
    // For frames of a segment whose own word on its keys is lost.
    this.#current ??= await this.#ask(undefined);
    const current = this.#current;
    if (current !== undefined && !this.#keys.has(current.id)) {
      this.#keys.set(current.id, new LoadedKey(current.key, logId, false));
    }
  }

  /** As {@link load}, for somebody who cannot do without: `ERR_WAL_KEY` also when the log's last key is not to be had. */
  async unlock(logId: Uint8Array, encryption: EncryptionState | undefined): Promise<void> {
    if (encryption === undefined) return;
    if (this.#source === undefined) {
      throw new WalError(
        'ERR_WAL_KEY',
        'The log is encrypted. Give its key: the option encryptionKey, on the command line --key-file. Nothing was touched.',
      );
    }
    await this.load(logId, encryption);
    const { current } = encryption;
    if (this.#keys.get(current)?.known) return;
    throw new WalError(
      'ERR_WAL_KEY',
      `The log was last written with key ${current}, which encryptionKey (--key-file) does not give. Nothing was touched.`,
    );
  }

  /** The key to go on writing with; undefined: without one. */
  async forWriting(logId: Uint8Array, encryption: EncryptionState | undefined): Promise<WritingKey | undefined> {
    if (this.#source === undefined) return undefined;
    const current = await this.#ask(undefined);
    if (current === undefined) {
      throw new WalError(
        'ERR_WAL_KEY',
        'encryptionKey gives no key to write with: it must answer when no id is asked for.',
      );
    }
    const { id, key } = current;
    const checkValue = checkValueOf(key, logId, id);
    if ((encryption?.keys[id] ?? checkValue) !== checkValue) throw wrongKey(id);
    this.#keys.set(id, new LoadedKey(key, logId, true));
    return { id, key, checkValue, headerKey: headerKeyOf(key, logId) };
  }

  async #ask(id: number | undefined): Promise<NumberedKey | undefined> {
    let answer: unknown;
    try {
      answer = await this.#source!(id);
    } catch (cause) {
      throw new WalError('ERR_WAL_KEY', `encryptionKey failed when it was asked for ${nameOf(id)}.`, { cause });
    }
    if (answer === undefined || answer === null) return undefined;
    const numbered = types.isUint8Array(answer) ? { id: id ?? 1, key: answer } : (answer as NumberedKey);
    if (typeof numbered !== 'object' || !Number.isInteger(numbered.id) || numbered.id < 1 || numbered.id > MOST_ID) {
      throw invalidArgument(`encryptionKey must give 32 bytes, or { id, key } with an id from 1 to ${MOST_ID}.`);
    }
    if (id !== undefined && numbered.id !== id) {
      throw new WalError('ERR_WAL_KEY', `encryptionKey was asked for key ${id} and gave key ${numbered.id}.`);
    }
    return { id: numbered.id, key: copyOf(numbered.key) };
  }
}

/** What the actor must know of the key that producers use: what to note of it in the state, and what makes header tags. */
export interface ActorKey {
  id: number;
  checkValue: string;
  headerKey: Uint8Array;
}

/** What the log is written with from here on. */
export interface WritingKey extends ActorKey {
  key: Uint8Array;
}

class LoadedKey implements PayloadKey {
  readonly headerKey: Uint8Array;
  readonly known: boolean;
  readonly #key: Uint8Array;
  readonly #subkeys = new Map<string, Uint8Array>();

  constructor(key: Uint8Array, logId: Uint8Array, known: boolean) {
    this.#key = key;
    this.headerKey = headerKeyOf(key, logId);
    this.known = known;
  }

  exported(): Uint8Array {
    return Uint8Array.from(this.#key);
  }

  subkey(salt: Uint8Array): Uint8Array {
    const name = Buffer.from(salt.buffer, salt.byteOffset, salt.byteLength).toString('latin1');
    let subkey = this.#subkeys.get(name);
    if (subkey === undefined) {
      if (this.#subkeys.size >= MOST_SUBKEYS) this.#subkeys.clear();
      subkey = subkeyOf(this.#key, salt);
      this.#subkeys.set(name, subkey);
    }
    return subkey;
  }
}

/** The caller may wipe or reuse its own. */
function copyOf(key: unknown): Uint8Array {
  if (!types.isUint8Array(key)) throw invalidArgument('encryptionKey must be 32 bytes in a Uint8Array, or a function.');
  if (key.byteLength !== KEY_BYTES) {
    throw invalidArgument(`encryptionKey must be ${KEY_BYTES} bytes long, and is ${key.byteLength}.`);
  }
  return Uint8Array.from(key);
}

function wrongKey(id: number): WalError {
  return new WalError(
    'ERR_WAL_KEY',
    `This is not key ${id} of this log: the log was written with another. Nothing was touched.`,
  );
}

function nameOf(id: number | undefined): string {
  return id === undefined ? 'the key to write with' : `key ${id}`;
}
