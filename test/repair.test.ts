import fs from 'node:fs';
import path from 'node:path';
import { repairLog, verifyLog, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { collect, failsWith, numbers, segmentFiles, temporaryDirectory } from './helpers.js';

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

t.test('a segment that is missing or has nothing left is a gap, and the log goes on', async (t) => {
  const sound = temporaryDirectory(t);
  const names = await smallLog(sound);
  const spoil: Record<string, (file: string) => void> = {
    removed: (file) => fs.rmSync(file),
    empty: (file) => fs.truncateSync(file, 0),
    zeros: (file) => fs.writeFileSync(file, Buffer.alloc(fs.statSync(file).size)),
    cut: (file) => fs.truncateSync(file, 4096),
    'without a header': (file) => {
      const fd = fs.openSync(file, 'r+');
      fs.writeSync(fd, Buffer.alloc(4096), 0, 4096, 0);
      fs.closeSync(fd);
    },
  };
  for (const [how, change] of Object.entries(spoil)) {
    for (const [i, name] of names.slice(0, 2).entries()) {
      const directory = copyOf(t, sound);
      change(path.join(directory, name));
      const lost = how === 'without a header' ? [] : [{ firstLsn: i * 5 + 1, lastLsn: i * 5 + 5 }];
      const what = `${name} ${how}`;
      t.equal((await verifyLog(directory)).verdict, 'corrupt', what);
      t.match(await repairLog(directory), { kept: RECORDS - lost.length * 5, lost }, what);
      const log = await WriteAheadLog.open(directory);
      t.equal(await log.append(`record ${RECORDS + 1} `), RECORDS + 1, what);
      await log.close();
      t.match(await verifyLog(directory), { verdict: 'clean', lost }, what);
      const isLost = (lsn: number) => lost.some(({ firstLsn, lastLsn }) => firstLsn <= lsn && lsn <= lastLsn);
      t.same(
        await lsnsOf(directory),
        numbers(1, RECORDS + 1).filter((lsn) => !isLost(lsn)),
        what,
      );
    }
  }
});

t.test('an LSN that was lost is not found, and a read from there goes on behind the gap', async (t) => {
  const directory = temporaryDirectory(t);
  const names = await smallLog(directory);
  const frame = framesIn(directory, names).find(({ firstLsn }) => firstLsn === 8)!;
  flip(directory, frame.name, frame.from + 66);
  await repairLog(directory);
  const log = await WriteAheadLog.open(directory);
  t.teardown(() => log.close());
  const error = await failsWith(t, 'ERR_WAL_NOT_FOUND', log.get(8));
  t.match(error.message, /lost/);
  t.same(
    (await collect(log.read({ from: 8, to: 10 }))).map(({ lsn }) => lsn),
    [9, 10],
  );
  t.same(await collect(log.read({ from: 8, to: 8 })), []);
  const followed: number[] = [];
  for await (const { lsn } of log.read({ from: 7, follow: true })) {
    followed.push(lsn);
    if (lsn === RECORDS) break;
  }
  t.same(followed, [7, ...numbers(9, RECORDS)]);
});

/** All that was expected, or everything. */
function isWithin(read: number[], expected: number[], all: number): boolean {
  return read.join() === expected.join() || read.length === all;
}
