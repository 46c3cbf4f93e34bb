import t from 'tap';
import { FrameType } from '../src/format/frame.js';
import { readHeader, withFile } from '../src/segments/read-segment.js';
import { Window, walkFrames } from '../src/segments/walk.js';
import { NodeStorage } from '../src/storage/node-storage.js';
import { openLog, segmentFiles, temporaryDirectory } from './helpers.js';

/** The frames of records in a log's directory, by what they hold. */
function framesIn(directory: string): { firstLsn: number; lastLsn: number }[] {
  const storage = new NodeStorage(directory);
  return segmentFiles(directory).flatMap((name) =>
    withFile(storage, name, (file) => {
      const { headerBytes, salt, firstLsn, headerCrc } = readHeader(file);
      const frames = [...walkFrames(new Window(file), headerBytes, { salt, lsn: firstLsn, previousCrc: headerCrc })];
      return frames
        .filter(({ header }) => header.type === FrameType.Records)
        .map(({ header }) => ({ firstLsn: header.firstLsn, lastLsn: header.firstLsn + header.records - 1 }));
    }),
  );
}

t.test('an atomic batch lies in one frame, whatever is appended around it', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, { segmentBytes: 256 * 1024, ringBytes: 256 * 1024, durability: 'os' }, directory);
  const batches: { first: number; last: number }[] = [];
  const round = async (i: number) => {
    void wal.append('x'.repeat(i % 5000)).catch(t.fail);
    const lines = Array.from({ length: 2 + (i % 9) }, (_, n) => 'y'.repeat((i * 131 * (n + 1)) % 6000));
    batches.push(await wal.appendMany(lines));
    batches.push(
      await wal.batch([
        { type: 'put', key: `${i}`, value: lines[0] },
        { type: 'del', key: lines[1].slice(0, 50) },
      ]),
    );
  };
  for (let i = 0; i < 120; i += 4) await Promise.all([round(i), round(i + 1), round(i + 2), round(i + 3)]);
  await wal.close();
  const frames = framesIn(directory);
  const split = batches.filter(
    ({ first, last }) => !frames.some(({ firstLsn, lastLsn }) => firstLsn <= first && last <= lastLsn),
  );
  t.equal(batches.length, 240);
  t.same(split, []);
});
