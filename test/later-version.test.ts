import fs from 'node:fs';
import path from 'node:path';
import { repairLog, verifyLog, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { Field, FrameType } from '../src/format/frame.js';
import { type FoundFrame, forge, framesIn, untilStamped } from './forging.js';
import {
  collect,
  failsWith,
  numbers,
  openLog,
  payloads,
  segmentFiles,
  snapshot,
  temporaryDirectory,
} from './helpers.js';

/** Frames as a later version may write them, all checksums right: of a type that this one does not know. */
const UNKNOWN = 10;

const VERSION = 'ERR_WAL_VERSION';

/** Two closed segments of six frames with two records each, and a directory that was copied before the second was closed. */
async function makeLogs(t: Test): Promise<{ closed: string; open: string }> {
  const closed = temporaryDirectory(t);
  const wal = await openLog(t, {}, closed);
  for (let i = 0; i < 12; i++) {
    await wal.appendMany([`${i}`, `${i} too`]);
    if (i === 5) await wal.rotate();
    if (i === 8) await untilStamped(path.join(closed, segmentFiles(closed)[1]));
  }
  const open = temporaryDirectory(t);
  fs.cpSync(closed, open, { recursive: true });
  await wal.close();
  return { closed, open };
}

/** Makes frames of a file those of a later version. */
function forgeFrames(directory: string, name: string, which: (frame: FoundFrame) => boolean, type = UNKNOWN): void {
  const file = path.join(directory, name);
  const frames = framesIn(file).filter(which);
  forge(file, (bytes) => {
    for (const { offset } of frames) bytes[offset + Field.type] = type;
  });
}

function holdsRecord(text: string): (frame: FoundFrame) => boolean {
  return ({ payload }) => payload.includes(`${text} too`);
}

t.test(
  'records of a kind that a later version knows, in the segment that recovery reads: refused by every way in',
  async (t) => {
    for (const type of [0, UNKNOWN, 200, 255]) {
      const { open } = await makeLogs(t);
      forgeFrames(open, segmentFiles(open)[1], holdsRecord('8'), type);
      const before = snapshot(open);
      for (const recoveryMode of ['tolerate-torn-tail', 'strict', 'point-in-time', 'salvage'] as const) {
        const error = await failsWith(t, VERSION, WriteAheadLog.open(open, { recoveryMode }), recoveryMode);
        t.match(error.message, /[Uu]pgrade/);
      }
      await failsWith(t, VERSION, WriteAheadLog.open(open, { readOnly: true }), 'readOnly');
      await failsWith(t, VERSION, verifyLog(open), 'verify');
      await failsWith(t, VERSION, repairLog(open), 'repair');
      t.same(snapshot(open), before, 'nothing was touched');
    }
  },
);

t.test('records of a kind that a later version knows, in a segment that is not read at open', async (t) => {
  const { closed } = await makeLogs(t);
  const [first] = segmentFiles(closed);
  forgeFrames(closed, first, holdsRecord('3'));
  const wal = await openLog(t, {}, closed);
  const seen: number[] = [];
  const reading = async () => {
    for await (const { lsn } of wal.read()) seen.push(lsn);
  };
  await failsWith(t, VERSION, reading(), 'a read comes to them');
  t.same(seen, numbers(1, 6), 'and hands out first what is before them');
  t.same(
    payloads(await collect(wal.read({ to: 6 }))),
    ['0', '0 too', '1', '1 too', '2', '2 too'],
    'what is before them',
  );
  await failsWith(t, VERSION, wal.get(7), 'get');
  t.equal((await collect(wal.read({ from: 13 }))).length, 12, 'what is in the next segment');
  await failsWith(t, VERSION, (async () => wal.recover(new Map()))(), 'replay');
  const before = snapshot(closed);
  await failsWith(t, VERSION, wal.compact(), 'a compaction');
  const after = snapshot(closed);
  for (const name of segmentFiles(closed).slice(0, 2)) t.equal(after[name], before[name], 'and touches nothing');
  t.equal(await wal.append('goes on'), 25);
  await wal.close();
  await failsWith(t, VERSION, verifyLog(closed), 'verify');
  const left = snapshot(closed);
  await failsWith(t, VERSION, repairLog(closed), 'repair');
  t.same(snapshot(closed), left);
});

t.test('a frame without records of a kind that a later version knows is stepped over', async (t) => {
  for (const [which, directory] of Object.entries(await makeLogs(t))) {
    const name = segmentFiles(directory)[1];
    forgeFrames(directory, name, ({ type }) => type === FrameType.Stamp);
    t.ok(
      framesIn(path.join(directory, name)).some(({ type }) => type === UNKNOWN),
      `${which}: there are some`,
    );
    const wal = await openLog(t, {}, directory);
    t.equal(wal.recovery.verdict, 'clean');
    t.same(
      (await collect(wal.read())).map(({ lsn }) => lsn),
      numbers(1, 24),
    );
    await wal.close();
    t.match(await verifyLog(directory), { verdict: 'clean', records: 24 });
  }
});
