import t, { type Test } from 'tap';
import { FRAME_HEADER_BYTES, FrameType } from '../src/format/frame.js';
import { Level } from '../src/format/levels.js';
import { SEGMENT_HEADER_UNIT, SegmentFlag } from '../src/format/segment-header.js';
import { filesOf } from '../src/reader/storage-files.js';
import { verifyFiles } from '../src/reader/verify.js';
import { settleRepair } from '../src/recovery/apply-repair.js';
import { inspectPointInTime } from '../src/recovery/point-in-time.js';
import { inspectLog } from '../src/recovery/recover.js';
import { endLastSegment } from '../src/recovery/repair-tail.js';
import { salvageLog } from '../src/recovery/salvage.js';
import { finish, type LsnSpan } from '../src/recovery/survey.js';
import { prepareSpare } from '../src/segments/prepare.js';
import { readHeader, withFile } from '../src/segments/read-segment.js';
import { Window, walkFrames } from '../src/segments/walk.js';
import { repairStorage } from '../src/upkeep/repair-log.js';
import { Random } from './simulation/random.js';
import { framesOf, readAll } from './simulation/reading.js';
import { idOf } from './simulation/records.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';
import { during, SEGMENT_BYTES, SimulatedLog } from './simulation/simulated-log.js';

/** What a single damaged place must not take: that something was cut off or cleaned up, and that a segment is sound. */

/** As much as is lost at once. */
const PLACE_BYTES = 1500;

interface Log {
  disk: SimulatedDisk;
  low: number;
  ids: (number | undefined)[];
}

function segments(disk: SimulatedDisk): string[] {
  return disk.list().filter((name) => name.endsWith('.wal'));
}

function append(log: SimulatedLog, frames: number): void {
  for (let i = 0; i < frames; i++) {
    log.clock++;
    log.append(Level.Disk, 2);
    log.sequencer.step();
    log.collect();
  }
}

/** The next segment does not grow: its file is cut to the end when it is sealed. */
function rotate({ disk, sequencer }: SimulatedLog): void {
  sequencer.addSpare(prepareSpare(disk, SEGMENT_BYTES));
  sequencer.rotate();
}

async function settled(log: SimulatedLog): Promise<Log> {
  const { disk, sequencer } = log;
  const ids = await log.read();
  sequencer.close();
  // The file's end, which closing does not sync, and all names.
  settleRepair(disk);
  disk.crash();
  disk.restart('power');
  return { disk, low: sequencer.state.low, ids };
}

/** Three segments and a fourth that cut the last one off, a half of the second, and is not alone with it. */
async function cutLog(): Promise<Log> {
  const log = new SimulatedLog({ disk: new SimulatedDisk(new Random(3)) });
  for (let i = 0; i < 3; i++) {
    append(log, 3);
    rotate(log);
  }
  append(log, 2);
  log.clock++;
  log.sequencer.addSpare(prepareSpare(log.disk, SEGMENT_BYTES));
  log.sequencer.truncateAfter(9);
  append(log, 3);
  return settled(log);
}

/** Two segments are cleaned up and gone, of which the last one alone knows. */
async function cleanedLog(): Promise<Log> {
  const log = new SimulatedLog({ disk: new SimulatedDisk(new Random(3)) });
  for (let i = 0; i < 3; i++) {
    append(log, 3);
    rotate(log);
  }
  append(log, 2);
  log.sequencer.updateState((state) => ({ ...state, checkpoint: 14 }));
  for (const { name } of log.sequencer.cleanup()) log.disk.remove(name);
  return settled(log);
}

interface Hole {
  name: string;
  from: number;
}

/** Places all over the last segment, header and all. */
function placesIn(disk: SimulatedDisk): Hole[] {
  const name = segments(disk).at(-1)!;
  const size = withFile(disk, name, (file) => file.size());
  return Array.from({ length: Math.ceil(size / 256) }, (_, i) => ({ name, from: i * 256 }));
}

function damage(disk: SimulatedDisk, { name, from }: Hole): void {
  const size = withFile(disk, name, (file) => file.size());
  disk.overwrite(name, Buffer.alloc(Math.min(PLACE_BYTES, size - from), 0xa5), from);
}

async function idsIn(files: SimulatedDisk | ReturnType<typeof filesOf>, low: number, last: number) {
  return new Map((await readAll(files, low, last)).map((record) => [record.lsn, idOf(record)]));
}

function cutBack(disk: SimulatedDisk) {
  const recovered = finish(inspectPointInTime(disk));
  endLastSegment(disk, recovered, 1_700_000_001_000);
  return recovered;
}

async function soundly(t: Test, disk: SimulatedDisk, what: string): Promise<void> {
  disk.restart('power');
  t.match(await verifyFiles(filesOf(disk)), { verdict: 'clean', damage: [] }, what);
}

t.test(
  'Buried: wherever a segment is damaged that cut others away, nothing of them comes back while their files are there',
  async (t) => {
    const { disk: sound } = await cutLog();
    t.equal(segments(sound).length, 5, 'the files that were cut away are there');
    for (const hole of placesIn(sound)) {
      const { disk, ids } = await cutLog();
      damage(disk, hole);
      const what = `damage at ${hole.from}`;
      const { recovered, view } = await salvageLog(disk);
      const salvaged = recovered.end.lastLsn;
      check('salvage', salvaged, await idsIn(filesOf(view), 1, salvaged), recovered.report.lost);
      await repairStorage(disk);
      const { lastLsn } = SimulatedLog.reopen(disk, 'power').recovered.end;
      check('repair', lastLsn, await idsIn(disk, 1, lastLsn), (await verifyFiles(filesOf(disk))).lost);
      await soundly(t, disk, what);

      /** What is behind the last that anything is known of, a repair cannot speak of. */
      function check(how: string, last: number, found: Map<number, unknown>, lost: LsnSpan[] = []): void {
        for (const [i, id] of ids.slice(0, last).entries()) {
          const gone = lost.some(({ firstLsn, lastLsn }) => i + 1 >= firstLsn && i + 1 <= lastLsn);
          if (found.get(i + 1) !== (gone ? undefined : id))
            t.fail(`${how}, ${what}: LSN ${i + 1} is ${found.get(i + 1)}`);
        }
        if (found.size > ids.length) t.fail(`${how}, ${what}: ${found.size} records`);
        if (hole.from + PLACE_BYTES <= SEGMENT_HEADER_UNIT) t.same(lost, [], `${how}, ${what}: nothing is lost`);
      }
    }
  },
);

t.test(
  'Buried: point-in-time keeps all that was not cut off when the header of the segment that cut is damaged',
  async (t) => {
    for (const from of [0, 60, 1000, 3000, 4096, 4196, 6000]) {
      const { disk, ids } = await cutLog();
      damage(disk, { name: segments(disk).at(-1)!, from });
      const { end, report } = cutBack(disk);
      t.match(report, { verdict: 'salvaged', lost: undefined }, `damage at ${from}`);
      t.same([...(await idsIn(disk, 1, end.lastLsn)).values()], ids);
      await soundly(t, disk, `damage at ${from}`);
    }
  },
);

t.test('Buried: the clean-up mark outlives damage to any one place of the only segment that knows of it', async (t) => {
  for (const hole of placesIn((await cleanedLog()).disk)) {
    const what = `damage at ${hole.from}`;
    const salvaged = await cleanedLog();
    const { low } = salvaged;
    damage(salvaged.disk, hole);
    const { recovered } = await salvageLog(salvaged.disk);
    t.equal(recovered.state.low, low, `${what}: salvage`);
    t.notOk(
      recovered.report.lost?.some(({ firstLsn }) => firstLsn < low),
      `${what}: what was cleaned up is not lost`,
    );
    await repairStorage(salvaged.disk);
    t.match(inspectLog(salvaged.disk, 'strict'), { state: { low } }, `${what}: repair`);
    const cut = await cleanedLog();
    damage(cut.disk, hole);
    const { state, end } = cutBack(cut.disk);
    t.equal(state.low, low, `${what}: point-in-time`);
    t.ok(end.lastLsn >= 18, `${what}: and what is before the damage stays, up to LSN ${end.lastLsn}`);
    await soundly(t, cut.disk, what);
  }
});

t.test('a clean-up mark is written in one write and one sync, three times, and once on a full disk', async (t) => {
  for (const full of [false, true]) {
    const log = new SimulatedLog();
    const { disk, sequencer } = log;
    append(log, 2);
    rotate(log);
    append(log, 2);
    sequencer.updateState((state) => ({ ...state, checkpoint: 4 }));
    const [name] = segments(disk).slice(-1);
    if (full) {
      // No room for three of them, and none for a new segment.
      while (statesFit(disk, name)) append(log, 1);
      disk.quotaBytes = disk.usedBytes();
    }
    const { length } = framesOf(disk, name).offsets;
    const calls: string[] = [];
    disk.observe = (call) => calls.push(call);
    sequencer.cleanup();
    t.same(calls, ['write', 'sync'], full ? 'a full disk' : 'room');
    t.same(
      marksIn(disk, name).slice(length),
      Array.from({ length: full ? 1 : 3 }, () => 5),
    );
    disk.crash();
    t.equal(SimulatedLog.reopen(disk, 'power').recovered.state.low, 5);
  }
});

t.test(
  'a clean-up mark that finds no room is in the header of the next segment, and is gone with no room at all',
  async (t) => {
    const log = new SimulatedLog();
    const { disk, sequencer } = log;
    append(log, 2);
    rotate(log);
    append(log, 2);
    sequencer.updateState((state) => ({ ...state, checkpoint: 4 }));
    const [name] = segments(disk).slice(-1);
    while (statesFit(disk, name)) append(log, 1);
    const { length } = segments(disk);
    sequencer.cleanup();
    t.equal(segments(disk).length, length + 1);
    t.equal(withFile(disk, segments(disk).at(-1)!, readHeader).state.low, 5);
    disk.crash();
    t.equal(SimulatedLog.reopen(disk, 'power').recovered.state.low, 5);
  },
);

/** Whether three states would fit, roughly. */
function statesFit(disk: SimulatedDisk, name: string): boolean {
  return framesOf(disk, name).end < 32 * 1024 - 5200;
}

/** The mark that each frame tells, 0 for those that tell none. */
function marksIn(disk: SimulatedDisk, name: string): number[] {
  return withFile(disk, name, (file) => {
    const { salt, firstLsn, headerBytes, headerCrc } = readHeader(file);
    const start = { salt, lsn: firstLsn, previousCrc: headerCrc };
    return [...walkFrames(new Window(file), headerBytes, start)].map(({ header, payload }) =>
      header.type === FrameType.State ? JSON.parse(Buffer.from(payload).toString()).low : 0,
    );
  });
}

/** Something where there should be zeros: behind a frame, behind a seal, behind a header. */
async function dirtyLog(): Promise<Log & { places: Hole[] }> {
  const log = new SimulatedLog({ disk: new SimulatedDisk(new Random(3)) });
  for (let i = 0; i < 2; i++) {
    append(log, 3);
    rotate(log);
  }
  append(log, 3);
  const made = await settled(log);
  const places: Hole[] = [];
  for (const name of segments(made.disk)) {
    const { end } = framesOf(made.disk, name);
    for (const from of [3000, 7000, paddingIn(made.disk, name), end + 40]) places.push({ name, from });
  }
  return { ...made, places };
}

t.test(
  'Loud: damage before the seal of a recovery is damage, and no torn tail that the next segment makes one of',
  async (t) => {
    const log = new SimulatedLog();
    const { disk, sequencer } = log;
    append(log, 2);
    sequencer.rotate();
    append(log, 2);
    sequencer.updateState((state) => ({ ...state, checkpoint: 4 }));
    sequencer.cleanup();
    disk.crash();
    SimulatedLog.reopen(disk, 'process');
    const name = segments(disk).at(-1)!;
    const { offsets } = framesOf(disk, name);
    t.match(withFile(disk, name, readHeader), { flags: SegmentFlag.Growing });
    // The second of the three states.
    disk.flip(name, offsets.at(-3)! + 200, 1);
    const { verdict, damage } = await verifyFiles(filesOf(disk));
    t.match([verdict, damage], ['corrupt', [{ segment: name, offset: offsets.at(-3) }]]);
    t.match(await repairStorage(disk), { verdict: 'repaired', kept: 4, lost: [] });
    append(SimulatedLog.reopen(disk, 'power'), 2);
    t.equal((await verifyFiles(filesOf(disk))).verdict, 'clean');
  },
);

/** Where a zero stands behind the payload of a frame. */
function paddingIn(disk: SimulatedDisk, name: string): number {
  return withFile(disk, name, (file) => {
    const { salt, firstLsn, headerBytes, headerCrc } = readHeader(file);
    const start = { salt, lsn: firstLsn, previousCrc: headerCrc };
    for (const { header, offset } of walkFrames(new Window(file), headerBytes, start)) {
      if (header.storedBytes % 8 !== 0) return offset + FRAME_HEADER_BYTES + header.storedBytes;
    }
    throw new Error(`${name} has no padding`);
  });
}

function stain(disk: SimulatedDisk, { name, from }: Hole): void {
  const file = disk.open(name, 'write');
  file.write([Buffer.from('A')], from);
  file.sync();
  file.close();
}

t.test(
  'Honest: damage that no record was lost to is put right by point-in-time, cut short in any call or not',
  async (t) => {
    const { places } = await dirtyLog();
    t.equal(places.length, 12);
    for (const place of places) {
      let crashes = 0;
      for (let call = 1, reached = true; reached; call++) {
        const { disk, ids } = await dirtyLog();
        stain(disk, place);
        const what = `${place.name} at ${place.from}, call ${call}`;
        if (call === 1) t.equal((await verifyFiles(filesOf(disk))).verdict, 'corrupt', `${what} is damaged`);
        reached = during(disk, { crashAt: call }, () => cutBack(disk));
        if (reached) {
          crashes++;
          disk.restart(call % 2 === 0 ? 'power' : 'process');
          cutBack(disk);
        }
        disk.restart('power');
        const { end } = inspectLog(disk, 'strict');
        const report = await verifyFiles(filesOf(disk));
        const found = [...(await idsIn(disk, 1, end.lastLsn)).values()];
        if (report.verdict !== 'clean' || `${found}` !== `${ids}`) t.fail(`${what}: ${JSON.stringify(report)}`);
      }
      t.ok(crashes > 5, `${crashes} crashes`);
    }
  },
);
