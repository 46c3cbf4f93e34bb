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
