import fs from 'node:fs';
import path from 'node:path';
import { repairLog, verifyLog, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { collect, failsWith, numbers, segmentFiles, temporaryDirectory } from './helpers.js';
import { Random } from './simulation/random.js';

const SEGMENT_BYTES = 65_536;
const RECORDS = 15;
/** `REPAIR_STRIDE=1 TAP_TIMEOUT=600` tries every byte. */
const STRIDE = Number(process.env.REPAIR_STRIDE ?? 17);

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

interface Sound {
  directory: string;
  frames: FrameAt[];
  records: number;
}

/** Flips one bit in a copy of a sound log; returns what salvage, repair or verify then got wrong. */
async function flipped(sound: Sound, directory: string, name: string, offset: number): Promise<string[]> {
  restore(sound.directory, directory);
  flip(directory, name, offset, 1 << (offset % 8));
  const all = numbers(1, sound.records);
  const hit = sound.frames.find((frame) => frame.name === name && frame.from <= offset && offset < frame.to);
  const expected = all.filter((lsn) => !hit || lsn < hit.firstLsn || lsn >= hit.firstLsn + hit.records);
  const wrong: string[] = [];
  const note = (what: string) => wrong.push(`${name}@${offset} ${what}`);
  // A byte behind a frame's payload harms nobody who reads the frame.
  const isRight = (lsns: number[]) => lsns.join() === expected.join() || lsns.length === sound.records;
  try {
    const salvaged = await lsnsOf(directory, 'salvage');
    if (!isRight(salvaged)) note(`salvaged ${salvaged}`);
    const report = await repairLog(directory);
    const { verdict, damage } = await verifyLog(directory);
    if (verdict !== 'clean') note(JSON.stringify(damage));
    const read = await lsnsOf(directory);
    if (!isRight(read) || report.kept !== read.length) note(`kept ${report.kept}: ${read}`);
    const lost = report.lost.flatMap(({ firstLsn, lastLsn }) => numbers(firstLsn, lastLsn));
    if ([...lost, ...read].sort((a, b) => a - b).join() !== all.join()) note(`lost ${lost}`);
    if (report.quarantined.length !== 1) note(`quarantined ${report.quarantined}`);
  } catch (error) {
    note(String(error));
  }
  return wrong;
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
    for (let offset = 0; offset < size; offset += offset > 256 && offset < 4080 ? 811 : STRIDE, flips++) {
      wrong.push(...(await flipped({ directory: sound, frames, records: RECORDS }, directory, name, offset)));
    }
  }
  t.same(wrong.slice(0, 20), [], `${wrong.length} of ${flips}`);
  t.comment(`${flips} bytes flipped`);
});

t.test('one flipped byte at random in a larger log', async (t) => {
  const sound = temporaryDirectory(t);
  const log = await WriteAheadLog.open(sound, { segmentBytes: 1024 * 1024 });
  const appends: Promise<number>[] = [];
  for (let lsn = 1; lsn <= 6000; lsn++) {
    appends.push(log.append(`record ${lsn} ${'.'.repeat(lsn % 700)}`));
    if (lsn % 97 === 0) await Promise.all(appends.splice(0));
  }
  await Promise.all(appends);
  await log.close();
  const names = segmentFiles(sound);
  t.ok(names.length >= 3, `${names.length} segments`);
  const frames = framesIn(sound, names);
  const directory = copyOf(t, sound);
  const random = new Random(Number(process.env.REPAIR_SEED ?? 7));
  const wrong: string[] = [];
  for (let i = 0; i < 12; i++) {
    const name = names[random.below(names.length)];
    const offset = random.below(fs.statSync(path.join(sound, name)).size);
    wrong.push(...(await flipped({ directory: sound, frames, records: 6000 }, directory, name, offset)));
  }
  t.same(
    wrong.map((what) => what.slice(0, 300)),
    [],
  );
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
