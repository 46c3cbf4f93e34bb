import t from 'tap';
import { FrameType } from '../src/format/frame.js';
import type { Entry } from '../src/producer/records.js';
import { filesOf } from '../src/reader/storage-files.js';
import { verifyFiles } from '../src/reader/verify.js';
import { inspectPointInTime } from '../src/recovery/point-in-time.js';
import { salvageLog } from '../src/recovery/salvage.js';
import { finish } from '../src/recovery/survey.js';
import { readHeader, withFile } from '../src/segments/read-segment.js';
import { isCompacted } from '../src/segments/segment-end.js';
import { Window, walkFrames } from '../src/segments/walk.js';
import { repairStorage } from '../src/upkeep/repair-log.js';
import { clear, data, del, faultOf, KeyLog, put } from './compaction-helpers.js';
import { Random } from './simulation/random.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';

/** A sound log of a compacted segment between two others. */
function compactedLog(): { log: KeyLog; name: string; bytes: number } {
  const log = new KeyLog({ disk: new SimulatedDisk(new Random(1)) });
  log.write(data('before'), data('before too'));
  log.sequencer.rotate();
  for (let segment = 0; segment < 3; segment++) {
    log.clock += 1000;
    const entries: Entry[] = [];
    for (let i = 0; i < 20; i++) entries.push(put(`key ${i}`, `value ${segment}`), data(`opaque ${segment} ${i}`));
    log.write(...entries);
    log.sequencer.rotate();
  }
  log.compact();
  log.write(data('behind'));
  log.sequencer.close();
  const names = log.disk.list().filter((name) => name.endsWith('.wal'));
  const name = names.find((candidate) => isCompacted(withFile(log.disk, candidate, readHeader)))!;
  return { log, name, bytes: withFile(log.disk, name, (file) => file.size()) };
}

t.test('a changed byte anywhere in a compacted segment is noticed, and repaired as far as it goes', async (t) => {
  const { log, name, bytes } = compactedLog();
  const sound = await verifyFiles(filesOf(log.disk));
  t.match(sound, { verdict: 'clean', records: 2 + 60 + 20 + 1 });
  let repaired = 0;
  for (let at = 0; at < bytes; at += at < 140 ? 1 : at < 4096 ? 509 : 7) {
    const copy = compactedLog();
    copy.log.disk.flip(copy.name, at, at % 8);
    t.equal(copy.name, name);
    const { verdict } = await verifyFiles(filesOf(copy.log.disk));
    if (verdict !== 'corrupt') t.fail(`a bit at ${at} is not noticed`);
    const pit = finish(inspectPointInTime(copy.log.disk));
    if (pit.report.records > sound.records)
      t.fail(`point-in-time finds ${pit.report.records} records, damaged at ${at}`);
    const { recovered } = await salvageLog(copy.log.disk);
    const report = await repairStorage(copy.log.disk);
    if (report.verdict === 'repaired') repaired++;
    const after = await verifyFiles(filesOf(copy.log.disk));
    if (after.verdict === 'corrupt') t.fail(`damaged at ${at}, repaired: ${after.damage[0].reason}`);
    if (after.records !== report.kept || recovered.report.records !== report.kept) {
      t.fail(`damaged at ${at}: ${after.records} records, ${recovered.report.records} salvaged, ${report.kept} kept`);
    }
  }
  t.ok(repaired > 100, `${repaired} repaired`);
});

t.test('a compacted segment that lost its end is noticed when the log is opened', async (t) => {
  const { log, name, bytes } = compactedLog();
  for (const cut of [1, 16, 200, bytes - 4096]) {
    const copy = compactedLog();
    const file = copy.log.disk.open(name, 'write');
    file.truncate(bytes - cut);
    file.close();
    t.throws(() => new KeyLog({ disk: copy.log.disk }), { code: 'ERR_WAL_CORRUPT', segment: name }, `${cut} bytes`);
    const report = await repairStorage(copy.log.disk);
    t.equal(report.verdict, 'repaired');
    t.not((await verifyFiles(filesOf(copy.log.disk))).verdict, 'corrupt');
    t.ok(new KeyLog({ disk: copy.log.disk }));
  }
  t.equal(await faultOf(new KeyLog({ disk: log.disk }), log.history), undefined);
});

t.test('what a repair gave up stays noted in a compacted segment', async (t) => {
  const log = new KeyLog({ disk: new SimulatedDisk(new Random(1)) });
  log.write(put('a', '1'), put('b', '1'));
  log.write(put('lost', '1'), put('lost too', '1'));
  log.write(put('a', '2'));
  log.sequencer.rotate();
  log.write(put('c', '1'));
  log.sequencer.close();
  const [first] = log.disk.list().filter((name) => name.endsWith('.wal'));
  const at = withFile(log.disk, first, (file) => {
    const bytes = Buffer.alloc(file.size());
    file.read(bytes, 0);
    return bytes.indexOf('lost');
  });
  log.disk.flip(first, at, 0);
  await repairStorage(log.disk);
  const again = new KeyLog({ disk: log.disk });
  t.equal(again.compact(), 1);
  const { verdict, lost, records } = await verifyFiles(filesOf(log.disk));
  t.same({ verdict, lost, records }, { verdict: 'clean', lost: [{ firstLsn: 3, lastLsn: 4 }], records: 3 });
});

t.test('frames that compaction does not look into stay as they are, and deletes behind them stay too', async (t) => {
  const log = new KeyLog({ disk: new SimulatedDisk(new Random(1)) });
  const foreign = 7;
  log.write(put('a', '1'), put('b', '1'), del('b'));
  log.sequencer.rotate();
  log.writeFrame(foreign, [put('a', 'in it'), put('c', 'in it')]);
  log.sequencer.rotate();
  log.write(put('a', '3'), del('c'), clear(), put('d', '1'));
  log.sequencer.rotate();
  log.compact();
  const [name] = log.disk.list().filter((candidate) => candidate.endsWith('.wal'));
  const frames = withFile(log.disk, name, (file) => {
    const { salt, firstLsn: lsn, headerBytes, headerCrc: previousCrc } = readHeader(file);
    return [...walkFrames(new Window(file), headerBytes, { salt, lsn, previousCrc })].map(({ header, payload }) => {
      return { ...header, text: Buffer.from(payload).toString('latin1') };
    });
  });
  const copied = frames.find(({ type }) => type === foreign);
  t.match(copied, { firstLsn: 4, records: 2 });
  t.match(copied?.text, /a.*in it.*c.*in it/s);
  t.same(
    frames.map(({ type }) => type),
    [FrameType.Sparse, foreign, FrameType.Sparse, FrameType.Seal],
  );
  const records = await log.records();
  t.same(
    records.map(({ lsn, kind }) => [lsn, kind]),
    [
      [8, 'clear'],
      [9, 'put'],
    ],
    'the clear hides what is in the frame',
  );
});

t.test(
  'a segment with an encrypted frame is left as it is, and so is every delete that may hide something in it',
  async (t) => {
    const log = new KeyLog({ disk: new SimulatedDisk(new Random(1)) });
    log.write(put('a', '1'), put('b', '1'));
    log.sequencer.rotate();
    log.write(put('a', '2'));
    log.writeFrame(FrameType.Records, [put('secret', '1')], 1);
    log.sequencer.rotate();
    log.write(put('a', '3'), del('secret'), put('b', '2'), put('b', '3'));
    log.sequencer.rotate();
    const [, second] = log.disk.list().filter((name) => name.endsWith('.wal'));
    const before = withFile(log.disk, second, readHeader);
    t.equal(log.compact(), 3, 'what is in the segment stays');
    t.same(withFile(log.disk, second, readHeader), before);
    const records = (await log.records()).map(({ lsn, kind }) => [lsn, kind]);
    t.same(
      records.filter(([lsn]) => lsn !== 4),
      [
        [3, 'put'],
        [5, 'put'],
        [6, 'del'],
        [8, 'put'],
      ],
    );
  },
);
