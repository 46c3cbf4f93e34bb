import fs from 'node:fs';
import path from 'node:path';
import { repairLog, verifyLog, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { collect, numbers, segmentFiles, temporaryDirectory } from './helpers.js';

const SEGMENT_BYTES = 65_536;
const RECORDS = 15;

/** A closed log of three segments, few frames in each. */
async function smallLog(directory: string): Promise<string[]> {
  const log = await WriteAheadLog.open(directory, { segmentBytes: SEGMENT_BYTES });
  for (let segment = 0, lsn = 1; segment < 3; segment++) {
    for (let i = 0; i < 5; i++, lsn++) await log.append(`record ${lsn} ${'x'.repeat(i * 9)}`);
    if (segment === 1) await log.checkpoint(3);
    if (segment < 2) await log.rotate();
  }
  await log.close();
  return segmentFiles(directory);
}

interface FrameAt {
  name: string;
  from: number;
  to: number;
  type: number;
  firstLsn: number;
  records: number;
}

/** All frames of an undamaged log. */
function framesIn(directory: string, names: string[]): FrameAt[] {
  return names.flatMap((name) => {
    const bytes = fs.readFileSync(path.join(directory, name));
    const frames: FrameAt[] = [];
    for (let at = bytes.readUInt32LE(12); at + 64 <= bytes.length && bytes.readUInt32LE(at) === 0x464c5752; ) {
      const to = at + Math.ceil((64 + bytes.readUInt32LE(at + 8)) / 8) * 8;
      const firstLsn = Number(bytes.readBigUInt64LE(at + 24));
      frames.push({ name, from: at, to, type: bytes[at + 4], firstLsn, records: bytes.readUInt32LE(at + 16) });
      at = to;
    }
    return frames;
  });
}

function copyOf(t: Test, directory: string): string {
  const copy = temporaryDirectory(t);
  fs.cpSync(directory, copy, { recursive: true });
  return copy;
}

function flip(directory: string, name: string, offset: number, mask = 0x10): void {
  const file = path.join(directory, name);
  const bytes = fs.readFileSync(file);
  bytes[offset] ^= mask;
  fs.writeFileSync(file, bytes);
}

function restore(from: string, to: string): void {
  for (const name of fs.readdirSync(to)) fs.rmSync(path.join(to, name), { recursive: true });
  fs.cpSync(from, to, { recursive: true });
}

async function lsnsOf(directory: string, recoveryMode?: 'salvage'): Promise<number[]> {
  const log = await WriteAheadLog.open(directory, { readOnly: true, recoveryMode });
  try {
    const records = await collect(log.read());
    for (const { lsn, payload } of records) {
      if (!Buffer.from(payload).toString().startsWith(`record ${lsn} `))
        throw new Error(`LSN ${lsn} is not what it was`);
    }
    return records.map(({ lsn }) => lsn);
  } finally {
    await log.close();
  }
}

t.test('one flipped byte anywhere: repair and salvage keep everything outside the damaged frame', async (t) => {
  const sound = temporaryDirectory(t);
  const names = await smallLog(sound);
  const frames = framesIn(sound, names);
  const directory = copyOf(t, sound);
  const wrong: string[] = [];
  let flips = 0;
  for (const name of names) {
    const { size } = fs.statSync(path.join(sound, name));
    for (let offset = 0; offset < size; offset += offset > 256 && offset < 4080 ? 811 : 17) {
      restore(sound, directory);
      flip(directory, name, offset, 1 << (offset % 8));
      flips++;
      const hit = frames.find((frame) => frame.name === name && frame.from <= offset && offset < frame.to);
      const expected = numbers(1, RECORDS).filter(
        (lsn) => !hit || lsn < hit.firstLsn || lsn >= hit.firstLsn + hit.records,
      );
      const place = `${name}@${offset}`;
      try {
        const salvaged = await lsnsOf(directory, 'salvage');
        // A byte behind a frame's payload harms nobody who reads the frame.
        if (!isWithin(salvaged, expected, RECORDS)) wrong.push(`${place} salvaged ${salvaged}`);
        const report = await repairLog(directory);
        const verified = await verifyLog(directory);
        const read = await lsnsOf(directory);
        if (verified.verdict !== 'clean') wrong.push(`${place} ${JSON.stringify(verified.damage)}`);
        if (!isWithin(read, expected, RECORDS)) wrong.push(`${place} repaired: ${read}`);
        if (report.kept !== read.length) wrong.push(`${place}: kept ${report.kept} of ${read.length}`);
        const lost = report.lost.flatMap(({ firstLsn, lastLsn }) => numbers(firstLsn, lastLsn));
        if ([...lost, ...read].sort((a, b) => a - b).join() !== numbers(1, RECORDS).join())
          wrong.push(`${place}: lost ${lost}`);
        if (report.quarantined.length !== 1) wrong.push(`${place}: quarantined ${report.quarantined}`);
      } catch (error) {
        wrong.push(`${place} ${String(error)}`);
      }
    }
  }
  t.same(wrong.slice(0, 20), [], `${wrong.length} of ${flips}`);
  t.comment(`${flips} bytes flipped`);
});

/** All that was expected, or everything. */
function isWithin(read: number[], expected: number[], all: number): boolean {
  return read.join() === expected.join() || read.length === all;
}
