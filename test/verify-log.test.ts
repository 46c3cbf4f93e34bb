import fs from 'node:fs';
import path from 'node:path';
import { type VerifyReport, verifyLog, WriteAheadLog } from 'ringwal';
import t from 'tap';
import { temporaryDirectory } from './helpers.js';

const SEGMENT_BYTES = 65_536;

/** A closed log of three segments, few frames in each. */
async function smallLog(directory: string): Promise<string[]> {
  const log = await WriteAheadLog.open(directory, { segmentBytes: SEGMENT_BYTES });
  for (let segment = 0; segment < 3; segment++) {
    // Payloads of lengths that leave every amount of padding, from seven bytes to none.
    for (let i = 0; i < 4; i++) await log.append(Buffer.alloc(30 + segment + i * 9, 0x41 + i));
    await log.put('key', `value ${segment}`);
    if (segment === 1) await log.checkpoint(3);
    if (segment < 2) await log.rotate();
  }
  await log.close();
  return segmentFiles(directory);
}

function segmentFiles(directory: string): string[] {
  return fs
    .readdirSync(directory)
    .filter((name) => name.endsWith('.wal'))
    .sort();
}

function named(report: VerifyReport): string[] {
  return [...new Set(report.damage.map(({ segment }) => segment))];
}

t.test('one flipped byte anywhere in a closed log is found, and the segment named', async (t) => {
  const directory = temporaryDirectory(t);
  const names = await smallLog(directory);
  t.equal(names.length, 3);
  t.match(await verifyLog(directory), { verdict: 'clean', records: 15, firstLsn: 1, lastLsn: 15, damage: [] });

  let flips = 0;
  const missed: string[] = [];
  for (const name of names) {
    const file = fs.openSync(path.join(directory, name), 'r+');
    const bytes = fs.readFileSync(file);
    for (let offset = 0; offset < bytes.length; offset++) {
      // The zeros behind the header's state are all alike: a few of them stand for the rest.
      const behindState = offset > 256 && offset < 4090;
      if (behindState && offset % 61 !== 0) continue;
      flips++;
      fs.writeSync(file, Buffer.of(bytes[offset] ^ (1 << (offset % 8))), 0, 1, offset);
      const report = await verifyLog(directory);
      if (report.verdict !== 'corrupt' || !named(report).includes(name)) missed.push(`${name}@${offset}`);
      fs.writeSync(file, bytes, offset, 1, offset);
    }
    fs.closeSync(file);
  }
  t.same(missed, []);
  t.comment(`${flips} bytes flipped`);
  t.equal((await verifyLog(directory)).verdict, 'clean');
});

/** Changes one byte of a file for the time of `look`. */
async function withFlips<T>(file: string, offsets: number[], look: () => Promise<T>): Promise<T> {
  const bytes = fs.readFileSync(file);
  const changed = Buffer.from(bytes);
  for (const offset of offsets) changed[offset] ^= 0x10;
  fs.writeFileSync(file, changed);
  try {
    return await look();
  } finally {
    fs.writeFileSync(file, bytes);
  }
}

/** Where the frames of a segment that hold records begin, found by their magic and type. */
function frameOffsets(file: string): number[] {
  const bytes = fs.readFileSync(file);
  const offsets: number[] = [];
  for (let at = bytes.indexOf('RWLF\x01'); at >= 0; at = bytes.indexOf('RWLF\x01', at + 1)) offsets.push(at);
  return offsets;
}

t.test('every one of several damages is reported, with the LSN that was expected there', async (t) => {
  const directory = temporaryDirectory(t);
  const [first, second] = await smallLog(directory);
  const file = path.join(directory, first);
  const frames = frameOffsets(file);
  // The payload of LSN 2, and the header of LSN 4.
  const report = await withFlips(file, [frames[1] + 64, frames[3] + 30], () => verifyLog(directory));
  t.match(report, {
    verdict: 'corrupt',
    segments: 3,
    records: 13,
    damage: [
      { segment: first, offset: frames[1], lsn: 2 },
      { segment: first, offset: frames[3], lsn: 4 },
    ],
  });
  t.equal(report.damage.length, 2);
  for (const { reason } of report.damage) t.type(reason, 'string');

  // A segment whose header is gone is read all the same.
  const headless = await withFlips(path.join(directory, second), [50], () => verifyLog(directory));
  t.match(headless, { verdict: 'corrupt', records: 15, damage: [{ segment: second, offset: 0, lsn: 6 }] });
  t.equal(headless.damage.length, 1);
});

t.test('a segment that is missing, short, foreign or out of place is damage', async (t) => {
  const directory = temporaryDirectory(t);
  const names = await smallLog(directory);
  const [first, second, third] = names.map((name) => path.join(directory, name));
  const aside = path.join(temporaryDirectory(t), 'aside');
  const without = async (file: string) => {
    fs.renameSync(file, aside);
    const report = await verifyLog(directory);
    fs.renameSync(aside, file);
    return report;
  };
  t.match(await without(second), { verdict: 'corrupt', damage: [{ segment: names[1], lsn: 6 }] });
  t.match(await without(first), { verdict: 'corrupt', damage: [{ segment: names[1], lsn: 1 }] });

  const bytes = fs.readFileSync(second);
  fs.writeFileSync(second, bytes.subarray(0, bytes.byteLength - 40));
  t.match(await verifyLog(directory), { verdict: 'corrupt', damage: [{ segment: names[1] }] });
  fs.writeFileSync(second, fs.readFileSync(third));
  t.match(await verifyLog(directory), { verdict: 'corrupt', damage: [{ segment: names[1], offset: 0 }] });
  fs.writeFileSync(second, 'not a segment at all');
  t.match(await verifyLog(directory), { verdict: 'corrupt', damage: [{ segment: names[1], offset: 0 }] });
  fs.writeFileSync(second, bytes);

  // An older state of the same file: whole in itself, and not what its successor followed.
  const other = temporaryDirectory(t);
  fs.cpSync(directory, other, { recursive: true });
  t.equal((await verifyLog(other)).verdict, 'clean');
  const stray = Buffer.concat([bytes, Buffer.alloc(4096)]);
  fs.writeFileSync(second, stray);
  t.equal(
    (await verifyLog(directory)).verdict,
    'clean',
    'zeros behind the seal are what a crash before the cut leaves',
  );
  stray[bytes.byteLength + 1000] = 1;
  fs.writeFileSync(second, stray);
  t.match(await verifyLog(directory), {
    verdict: 'corrupt',
    damage: [{ segment: names[1], offset: bytes.byteLength + 1000 }],
  });
});

t.test('an unfinished group at the end is a torn tail and sound; clean-up and an empty log are sound', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await WriteAheadLog.open(directory, { segmentBytes: SEGMENT_BYTES });
  t.match(await verifyLog(directory), { verdict: 'clean', segments: 0, records: 0, firstLsn: 0, lastLsn: 0 });
  await log.append('one');
  await log.append('two');
  t.match(await verifyLog(directory), { verdict: 'clean', records: 2 }, 'while it is open');
  const crashed = temporaryDirectory(t);
  fs.cpSync(directory, crashed, { recursive: true });
  const file = path.join(crashed, segmentFiles(crashed)[0]);
  const [, second] = frameOffsets(file);
  // As if the machine had stopped in the middle of the write.
  const bytes = fs.readFileSync(file);
  fs.writeFileSync(file, bytes.fill(0, second + 65));
  t.match(await verifyLog(crashed), { verdict: 'torn-tail', records: 1, lastLsn: 1, damage: [] });
  await log.rotate();
  await log.append('three');
  await log.checkpoint(2);
  await log.cleanup();
  await log.close();
  t.match(await verifyLog(directory), { verdict: 'clean', firstLsn: 3, lastLsn: 3, records: 1 });
});

t.test('a recycled segment is sound with the bytes of its earlier use in it', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await WriteAheadLog.open(directory, { segmentBytes: SEGMENT_BYTES });
  const payload = Buffer.alloc(1000, 'r');
  for (let round = 0; round < 4; round++) {
    let last = 0;
    for (let i = 0; i < 40; i++) last = await log.append(payload);
    await log.rotate();
    await log.checkpoint(last);
    await log.cleanup();
  }
  await log.append('last');
  t.match(await verifyLog(directory), { verdict: 'clean', damage: [] });
  await log.close();
  t.match(await verifyLog(directory), { verdict: 'clean', damage: [] });
});

t.test('progress is told, a signal ends it, and what is no log is refused', async (t) => {
  const directory = temporaryDirectory(t);
  await smallLog(directory);
  const seen: { bytes: number; totalBytes: number; records: number }[] = [];
  await verifyLog(directory, { onProgress: (progress) => seen.push({ ...progress }) });
  const last = seen[seen.length - 1];
  t.equal(last.records, 15);
  t.equal(last.bytes, last.totalBytes);
  t.ok(seen.every(({ bytes }, i) => i === 0 || bytes >= seen[i - 1].bytes));

  const reason = new Error('enough');
  await t.rejects(verifyLog(directory, { signal: AbortSignal.abort(reason) }), reason);
  const controller = new AbortController();
  await t.rejects(
    verifyLog(directory, { signal: controller.signal, onProgress: () => controller.abort(reason) }),
    reason,
  );
  await t.rejects(verifyLog(temporaryDirectory(t)), { code: 'ERR_WAL_NOT_FOUND' });
  await t.rejects(verifyLog(path.join(directory, 'nowhere')), { code: 'ERR_WAL_NOT_FOUND' });
});
