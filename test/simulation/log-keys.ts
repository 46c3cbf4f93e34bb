import { Codec } from '../../src/format/codec.js';
import { KEY_BYTES, makeRingKey, type RingKey, SALT_BYTES } from '../../src/format/encryption.js';
import { KeyRing, type NumberedKey, type WritingKey } from '../../src/format/key-ring.js';
import { type EncryptionState, type LogState, withKey } from '../../src/format/state.js';
import type { FrameEncoding } from '../../src/producer/encode-in-ring.js';
import { newestHeader } from '../../src/segments/read-segment.js';
import type { Random } from './random.js';
import type { SimulatedDisk } from './simulated-disk.js';

/** How the frames of one log are encoded, and with which keys: what the opening thread knows of it. */
export class LogKeys {
  readonly codec: number;
  readonly encrypted: boolean;
  readonly #keys: NumberedKey[] = [];
  #ring = new KeyRing(undefined);
  /** Those of this run, the newest last. */
  #written: WritingKey[] = [];
  #logId: Uint8Array = new Uint8Array(0);
  #ringKey: RingKey | undefined;
  #counter = 0;

  constructor(random: Random) {
    const kind = random.below(12);
    this.codec = kind < 2 ? Codec.Deflate : Codec.None;
    this.encrypted = kind === 1 || kind === 2;
    if (this.encrypted) this.add(random);
  }

  /** As of the last opening: it has every key that the headers know of. */
  get ring(): KeyRing {
    return this.#ring;
  }

  /** What the actor, and producers, write with; undefined: in plain. */
  get writing(): WritingKey | undefined {
    return this.#written.at(-1);
  }

  /** All of them, for whoever asks; without an id, the newest. */
  readonly source = (id = this.#keys.length): NumberedKey | undefined => this.#keys[id - 1];

  /** Another key, which is the one to write with from the next rotation or opening on. */
  add(random: Random): void {
    this.#keys.push({ id: this.#keys.length + 1, key: random.bytes(KEY_BYTES) });
  }

  /** First of all: with the wrong key nothing is read. */
  async unlock(disk: SimulatedDisk): Promise<void> {
    if (!this.encrypted) return;
    this.#ring = new KeyRing(this.source);
    const header = newestHeader(disk);
    if (header !== undefined) await this.#ring.unlock(header.logId, header.state.encryption);
  }

  /** The log is opened: what was noted before stands in its headers by now, or nowhere. */
  restart(): void {
    this.#written = [];
  }

  async forWriting(logId: Uint8Array, encryption: EncryptionState | undefined): Promise<WritingKey | undefined> {
    this.#logId = logId;
    return this.encrypted ? this.#ring.forWriting(logId, encryption) : undefined;
  }

  /** The log knows this key by now: frames are encrypted with it. */
  writeWith(key: WritingKey | undefined, random: Random): void {
    if (key !== undefined) this.#written.push(key);
    this.#ringKey = key && makeRingKey(key.id, key.key, random.bytes(SALT_BYTES));
  }

  /** For one frame, once. */
  encoding(): FrameEncoding | undefined {
    if (this.codec === Codec.None && this.#ringKey === undefined) return undefined;
    return { codec: this.codec, key: this.#ringKey && { ...this.#ringKey, counter: this.#counter++ } };
  }

  /** The same state as a segment that is begun from now on has it. */
  notedIn(state: LogState): LogState {
    return this.#written.reduce((noted, { id, checkValue }) => withKey(noted, this.#logId, id, checkValue), state);
  }
}
