import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { crc32 } from '../src/format/checksum.js';
import {
  buildFrame,
  Field,
  FRAME_HEADER_BYTES,
  type FrameHeader,
  FrameType,
  frameBytes,
  readFrameHeader,
  writeEncoderFields,
  writeSequencerFields,
} from '../src/format/frame.js';
import { Level } from '../src/format/levels.js';
import { decodeRecords, RecordKind, type WalRecord } from '../src/format/record.js';
import { decodeSeal, encodeSeal, readSealFooter } from '../src/format/seal.js';
import { decodeSegmentHeader, encodeSegmentHeader, type SegmentHeader } from '../src/format/segment-header.js';
import { decodeState, encodeState } from '../src/format/state.js';
import { Appender } from '../src/producer/appender.js';
import { inspectLog } from '../src/recovery/recover.js';
import { Control } from '../src/ring/control.js';
import { Ring } from '../src/ring/ring.js';
import { Member } from '../src/sequencer/member.js';
import { Sequencer } from '../src/sequencer/sequencer.js';
import { NodeStorage } from '../src/storage/node-storage.js';
import { temporaryDirectory, text } from './helpers.js';

/** docs/FORMAT.md shows a whole segment in hexadecimal. Here it is read, and written again. */
const NAME = '0000000000000001.wal';
const document = fs.readFileSync(fileURLToPath(new URL('../../docs/FORMAT.md', import.meta.url)), 'utf8');
const shown = parseDump(document);

/** Reads lines of `offset  16 bytes in hexadecimal  |text|`; a line of `*` stands for repetitions of the one before. */
function parseDump(markdown: string): Buffer {
  const [, dump] = /<!-- segment -->\s*```text\n([\s\S]*?)```/.exec(markdown) ?? [];
  const bytes: number[] = [];
  let row: number[] = [];
  for (const line of (dump ?? '').trimEnd().split('\n')) {
    if (line === '*') continue;
    const [, offset, hex] = /^([0-9a-f]{8})((?: {1,2}[0-9a-f]{2})*)/.exec(line) ?? [];
    while (bytes.length < Number.parseInt(offset, 16)) bytes.push(...row);
    row = (hex.match(/[0-9a-f]{2}/g) ?? []).map((byte) => Number.parseInt(byte, 16));
    bytes.push(...row);
  }
  return Buffer.from(bytes);
}

interface Frame {
  at: number;
  header: FrameHeader;
  payload: Buffer;
}

function framesOf(bytes: Buffer, { headerBytes, salt }: SegmentHeader): Frame[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const frames: Frame[] = [];
  for (let at = headerBytes; at < bytes.byteLength; ) {
    const header = readFrameHeader(view, bytes, at, salt)!;
    frames.push({ at, header, payload: bytes.subarray(at + 64, at + 64 + header.storedBytes) });
    at += frameBytes(header.storedBytes);
  }
  return frames;
}

const header = decodeSegmentHeader(NAME, (target, position) =>
  shown.copy(target, 0, position, position + target.byteLength),
);
const frames = framesOf(shown, header);

t.test('the segment of the document decodes to what the document says of it', async (t) => {
  t.equal(text(header.logId), 'sixteen letters.');
  t.match(header, { segmentId: 1, firstLsn: 1, createdAt: 1_700_000_000_001, segmentBytes: 65536, headerBytes: 8192 });
  t.match(header, { flags: 0, previous: { segmentId: 0, lastLsn: 0, endOffset: 0, headerCrc: 0 } });
  t.same(header.state, { checkpoint: 0, low: 1, subscriptions: {} });
  t.same(
    frames.map(({ at, header: { type, firstLsn, records, durableLsn } }) => [at, type, firstLsn, records, durableLsn]),
    [
      [8192, FrameType.Records, 1, 2, 0],
      [8272, FrameType.Records, 3, 1, 2],
      [8344, FrameType.State, 4, 0, 3],
      [8456, FrameType.Seal, 4, 0, 3],
    ],
  );
  const records: WalRecord[] = [];
  for (const { header: frame, payload } of frames.slice(0, 2)) {
    const { firstLsn, timestamp, records: count } = frame;
    decodeRecords(payload, 0, payload.byteLength, count, firstLsn, timestamp, 1, 99, records);
  }
  t.same(
    records.map(({ lsn, kind, key, payload }) => [lsn, kind, text(key), text(payload)]),
    [
      [1, 'data', '', 'hello'],
      [2, 'put', 'k', 'v1'],
      [3, 'del', 'k', ''],
    ],
  );
  t.equal(decodeState(frames[2].payload).checkpoint, 2);
  t.same(decodeSeal(frames[3].payload).index, [{ offset: 8192, firstLsn: 1, timestamp: 1_700_000_000_001 }]);
  t.equal(readSealFooter(shown.subarray(-16), shown.byteLength), frames[3].at);
});

t.test('each part of it encodes to the same bytes again', async (t) => {
  t.same(Buffer.from(encodeSegmentHeader(header).bytes), shown.subarray(0, 8192));
  let previousCrc = header.headerCrc;
  for (const frame of frames) {
    const built = encodeAgain(frame, previousCrc);
    t.same(
      Buffer.from(built.bytes),
      shown.subarray(frame.at, frame.at + built.bytes.byteLength),
      `frame at ${frame.at}`,
    );
    previousCrc = built.headerCrc;
  }
});

function encodeAgain({ at, header: frame, payload }: Frame, previousCrc: number) {
  const { type, flags, firstLsn, durableLsn, timestamp, records } = frame;
  const own = (bytes: Uint8Array) =>
    buildFrame(type, bytes, firstLsn, durableLsn, header.salt, timestamp, previousCrc, flags);
  if (type === FrameType.State) return own(encodeState(decodeState(payload)));
  if (type === FrameType.Seal) return own(encodeSeal(decodeSeal(payload), at));
  const bytes = new Uint8Array(frameBytes(payload.byteLength));
  const view = new DataView(bytes.buffer);
  bytes.set(payload, FRAME_HEADER_BYTES);
  writeEncoderFields(view, 0, type, payload.byteLength, payload.byteLength, records);
  view.setUint32(Field.payloadCrc, crc32(payload), true);
  const headerCrc = writeSequencerFields(
    view,
    bytes,
    0,
    firstLsn,
    durableLsn,
    header.salt,
    timestamp,
    previousCrc,
    flags,
  );
  return { bytes, headerCrc };
}

t.test('it is what the engine writes', async (t) => {
  const directory = temporaryDirectory(t);
  const storage = new NodeStorage(directory);
  const control = new Control();
  const ring = Ring.allocate(64 * 1024);
  let clock = 1_700_000_000_000;
  const host = {
    now: () => clock,
    randomBytes: (count: number) => Buffer.from(count === 16 ? 'sixteen letters.' : 'SALTsalt'),
    wakeOpener: () => {},
    wantSpare: () => {},
    forgotten: () => {},
    rotated: () => {},
  };
  const start = inspectLog(storage, 'tolerate-torn-tail');
  const sequencer = new Sequencer(storage, control, host, { segmentBytes: 65536, flushIntervalMs: 0 }, start);
  sequencer.addMember(new Member(0, ring, () => {}));
  const limits = { frameBytes: 4096, maxRecordBytes: 4096, encodeBytes: 65536 };
  const appender = new Appender(ring, control, limits, { hold: () => {}, backpressure: () => {} });
  const append = (kind: number, key: string | undefined, value: string | undefined) =>
    appender.append(
      { kind, key, value },
      Level.Disk,
      () => {},
      () => t.fail('an append was rejected'),
    );
  const commit = () => {
    appender.publish();
    clock++;
    sequencer.step();
  };

  append(RecordKind.Data, undefined, 'hello');
  append(RecordKind.Put, 'k', 'v1');
  commit();
  append(RecordKind.Delete, 'k', undefined);
  commit();
  clock++;
  sequencer.updateState((state) => ({ ...state, checkpoint: 2 }));
  clock++;
  sequencer.close();
  await appender.settled();
  const written = fs.readFileSync(path.join(directory, NAME));
  t.equal(dump(written), dump(shown));
});

/** As `hexdump -C`. */
function dump(bytes: Buffer): string {
  const lines: string[] = [];
  let last = '';
  for (let at = 0; at < bytes.byteLength; at += 16) {
    const row = bytes.subarray(at, at + 16);
    const hex = row.toString('hex');
    if (hex === last && at + 16 < bytes.byteLength) {
      if (lines.at(-1) !== '*') lines.push('*');
      continue;
    }
    last = hex;
    const cells = hex.match(/../g)!;
    const columns = [cells.slice(0, 8).join(' '), cells.slice(8).join(' ')].join('  ');
    const letters = row.toString('latin1').replace(/[^ -~]/g, '.');
    lines.push(`${at.toString(16).padStart(8, '0')}  ${columns.padEnd(48)}  |${letters}|`);
  }
  return [...lines, bytes.byteLength.toString(16).padStart(8, '0')].join('\n');
}
