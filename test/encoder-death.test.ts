// First of all: whatever starts threads after this starts them where they may die on command.
import './fixtures/faults.js';

import { createHash, randomBytes } from 'node:crypto';
import t from 'tap';
import { encodeFrame } from '../src/coordinator/encode-frame.js';
import { crc32 } from '../src/format/checksum.js';
import { Codec } from '../src/format/codec.js';
import { headerKeyOf, makeRingKey, subkeyOf, writeHeaderTag } from '../src/format/encryption.js';
import { checksumHeader, Field, FRAME_HEADER_BYTES, type FrameHeader, readFrameHeader } from '../src/format/frame.js';
import { decodePayload } from '../src/format/frame-payload.js';
import { Level } from '../src/format/levels.js';
import { Appender } from '../src/producer/appender.js';
import type { FrameEncoding } from '../src/producer/encode-in-ring.js';
import { Control } from '../src/ring/control.js';
import { Descriptor, FrameState, Ring } from '../src/ring/ring.js';
import encode from '../workers/encoder.js';
import { Fault, heal, inject } from './fixtures/faults.js';
import { collect, numbers, openLog } from './helpers.js';

t.afterEach(heal);

const KEY = randomBytes(32);
const LOG_ID = randomBytes(16);
const SALT = randomBytes(16);

class Death extends Error {}

/** A ring whose user's thread may die before any single thing that it does to it, or in the middle of a copy. */
class MortalRing extends Ring {
  /** What is still done before the end; the last of it by half. */
  left = Number.POSITIVE_INFINITY;

  constructor(memory: SharedArrayBuffer) {
    super(memory);
    const { view, data } = this;
    const setUint32 = view.setUint32.bind(view);
    view.setUint32 = (at, value, little) => {
      this.#use();
      setUint32(at, value, little);
    };
    const set = data.set.bind(data);
    data.set = (source: ArrayLike<number>, offset?: number) => {
      const half = (source as Uint8Array).subarray(0, source.length / 2);
      if (this.left === 0) set(half, offset);
      this.#use();
      set(source, offset);
    };
    const fill = data.fill.bind(data);
    data.fill = ((...args: Parameters<typeof fill>) => {
      this.#use();
      return fill(...args);
    }) as typeof data.fill;
  }

  override setState(frame: number, state: number): void {
    this.#use();
    super.setState(frame, state);
  }

  #use(): void {
    if (this.left-- === 0) throw new Death();
  }
}

/** A ring with one frame in state Encoding, and its payload. */
function ringWithFrame(records: Buffer[], encrypted: boolean) {
  const ring = Ring.allocate(1024 * 1024);
  const key = encrypted ? makeRingKey(1, KEY, SALT) : undefined;
  let how: () => FrameEncoding | undefined = () => undefined;
  const host = {
    encode: (_: number, given: typeof how) => {
      how = given;
    },
    hold: () => {},
    backpressure: () => {},
  };
  const options = { frameBytes: 256 * 1024, maxRecordBytes: 256 * 1024, encodeBytes: 0, codec: Codec.Deflate, key };
  const appender = new Appender(ring, new Control(), options, host);
  for (const value of records) {
    const ignore = () => {};
    appender.append({ kind: 0, key: undefined, value }, Level.Disk, ignore, ignore);
  }
  appender.publish();
  const rawBytes = ring.view.getUint32(Field.rawBytes, true);
  return { ring, how, raw: Buffer.from(ring.data.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + rawBytes)) };
}

/** What the frame in the ring would be read as, once the actor has finished it. */
function decoded({ data, view, descriptors }: Ring): Uint8Array {
  const at = descriptors[Descriptor.offset];
  const bytes = data.subarray(at);
  const salt = { low: view.getUint32(at + Field.salt, true), high: view.getUint32(at + Field.salt + 4, true) };
  const headerKey = headerKeyOf(KEY, LOG_ID);
  const storedBytes = view.getUint32(at + Field.storedBytes, true);
  if (bytes[Field.encryption] !== 0) {
    const tag = writeHeaderTag(headerKey, bytes, storedBytes);
    view.setUint32(at + Field.payloadCrc, crc32(tag, view.getUint32(at + Field.payloadCrc, true)), true);
  }
  checksumHeader(view, data, at);
  const header = readFrameHeader(view, data, at, salt) as FrameHeader;
  const payload = bytes.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + storedBytes);
  if (crc32(payload) !== header.payloadCrc) throw new Error('The checksum does not hold.');
  const keys = { find: () => ({ headerKey, known: true, subkey: (salt: Uint8Array) => subkeyOf(KEY, salt) }) };
  return decodePayload(header, data, at + FRAME_HEADER_BYTES, keys, {});
}

const WORKS = {
  compressed: { records: numbers(1, 900).map((i) => Buffer.from(`line ${i} of many`)), encrypted: false },
  encrypted: { records: [randomBytes(20_000)], encrypted: true },
  both: { records: numbers(1, 900).map((i) => Buffer.from(`line ${i} of many`)), encrypted: true },
  neither: { records: [randomBytes(20_000)], encrypted: false },
};

for (const [name, { records, encrypted }] of Object.entries(WORKS)) {
  t.test(`an encoder that dies in the middle of anything loses no byte: ${name}`, async (t) => {
    const control = new Control();
    const counters = new Set<number | undefined>();
    let points = 0;
    for (let first = 0, died = true; died; first++) {
      died = false;
      for (let second = 0, diedAgain = true; diedAgain; second++) {
        diedAgain = false;
        const { ring, how, raw } = ringWithFrame(records, encrypted);
        const attempt = (left: number): boolean => {
          const mortal = new MortalRing(ring.memory);
          mortal.left = left;
          const encoding = how()!;
          if (left === Number.POSITIVE_INFINITY) counters.add(encoding.key?.counter);
          try {
            encodeFrame(mortal, control, 0, encoding);
            return false;
          } catch (error) {
            if (!(error instanceof Death)) throw error;
            return true;
          }
        };
        died = attempt(first);
        if (died) diedAgain = attempt(second);
        if (diedAgain) attempt(Number.POSITIVE_INFINITY);
        if (ring.state(0) !== FrameState.Ready) t.fail(`${first}, ${second}: the frame is not ready`);
        const { [Descriptor.offset]: start, [Descriptor.bytes]: bytes } = ring.descriptors;
        const end = start + FRAME_HEADER_BYTES + ring.view.getUint32(start + Field.storedBytes, true);
        const padding = ring.data.subarray(end, start + bytes);
        if (padding.some((byte) => byte !== 0)) t.fail(`${first}, ${second}: it does not end in zeros`);
        if (!raw.equals(decoded(ring))) t.fail(`${first}, ${second}: it is not what was appended`);
        points++;
      }
    }
    t.ok(points > 5, `${points} ways to die`);
    if (encrypted) t.same([...counters], [2], 'each attempt has its own nonce');
  });
}

t.test('the encoder of a frame that is Ready, or taken, touches nothing', async (t) => {
  const { ring, how } = ringWithFrame(WORKS.both.records, true);
  for (const state of [FrameState.Ready, FrameState.Taken, FrameState.Free]) {
    ring.setState(0, state);
    const before = createHash('sha256').update(new Uint8Array(ring.memory)).digest('hex');
    encodeFrame(ring, new Control(), 0, how());
    t.equal(createHash('sha256').update(new Uint8Array(ring.memory)).digest('hex'), before);
  }
});

t.test('threads of the pool that die cost no record of a compressed and encrypted log', async (t) => {
  const wal = await openLog(t, { encoders: 1, compression: 'deflate', encryptionKey: KEY });
  const records = numbers(1, 4).map(() => randomBytes(600_000));
  for (const deaths of [1, 3]) {
    inject(Fault.encoderDeaths, deaths);
    await Promise.all(records.map((record) => wal.append(record)));
  }
  const read = await collect(wal.read());
  t.equal(read.length, 8);
  t.ok(read.every(({ payload }, i) => records[i % 4].equals(payload)));
});

t.test('an encoder that fails says why, with everything that the error told, and leaves the frame to others', (t) => {
  const { ring } = ringWithFrame([randomBytes(20_000)], false);
  const control = new Control().memory;
  const task = { ring: ring.memory, control, frame: 0, encoding: undefined };
  // Memory that is no ring.
  const failed = encode({ ...task, ring: new SharedArrayBuffer(8) });
  t.match(failed, { ok: false, error: { message: String } });
  t.equal(ring.state(0), FrameState.Encoding);
  t.same(encode(task), { ok: true, value: undefined });
  t.equal(ring.state(0), FrameState.Ready, 'which the next attempt encodes');
  t.end();
});
