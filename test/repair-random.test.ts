import t from 'tap';
import { Level } from '../src/format/levels.js';
import { SEGMENT_HEADER_UNIT, SegmentFlag } from '../src/format/segment-header.js';
import { filesOf } from '../src/reader/storage-files.js';
import { verifyFiles } from '../src/reader/verify.js';
import { salvageLog } from '../src/recovery/salvage.js';
import { chainOf, lastLsnOf } from '../src/segments/chain.js';
import { segmentName } from '../src/segments/names.js';
import { readHeader, withFile } from '../src/segments/read-segment.js';
import { retireSegments } from '../src/segments/retire.js';
import { Window, walkFrames } from '../src/segments/walk.js';
import { repairStorage } from '../src/upkeep/repair-log.js';
import { Random } from './simulation/random.js';
import { loseHeader, readAll } from './simulation/reading.js';
import { idOf } from './simulation/records.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';
import { SEGMENT_BYTES, SimulatedLog } from './simulation/simulated-log.js';

/** A log with a past: rotations, clean-ups whose files are used again, cuts, reopenings; closed, or left as it is. */
function randomLog(random: Random): SimulatedLog {
  const disk = new SimulatedDisk(random);
  let log = new SimulatedLog({ disk });
  for (let step = 5 + random.below(30); step > 0; step--) {
    const last = log.watermark(Level.Disk);
    log.clock++;
    switch (random.below(12)) {
      case 0:
        log.sequencer.rotate();
        break;
      case 1:
        log.sequencer.updateState((state) => ({ ...state, checkpoint: Math.max(state.checkpoint, last - 5) }));
        break;
      case 2: {
        const gone = log.sequencer.cleanup().map(({ name }) => name);
        for (const spare of retireSegments(disk, gone, random.below(2), SEGMENT_BYTES).spares)
          log.sequencer.addSpare(spare);
        break;
      }
      case 3:
        if (last > log.sequencer.state.checkpoint + 3) {
          const cut = log.sequencer.truncateAfter(last - 1 - random.below(2));
          for (const { name } of cut) disk.remove(name);
        }
        break;
      case 4:
        log.sequencer.close();
        disk.crash();
        {
          const { clock } = log;
          log = SimulatedLog.reopen(disk, 'process');
          log.clock = clock;
        }
        break;
      default:
        for (let i = random.below(4); i >= 0; i--) {
          log.append(random.oneIn(3) ? Level.Os : Level.Disk, 1 + random.below(30));
          log.sequencer.step();
          log.collect();
        }
    }
  }
  if (log.watermark(Level.Disk) === 0) log.append(Level.Disk);
  log.sequencer.sync();
  log.collect();
  if (random.oneIn(2)) log.sequencer.close();
  disk.syncFolder();
  return log;
}

interface FrameAt {
  name: string;
  from: number;
  to: number;
  firstLsn: number;
  lastLsn: number;
}

function framesOf(disk: SimulatedDisk, low: number): FrameAt[] {
  const names = disk.list().filter((name) => name.endsWith('.wal'));
  const headers = names.map((name) => withFile(disk, name, readHeader));
  return chainOf(headers).flatMap((link) => {
    const { segmentId, salt, firstLsn, headerCrc, headerBytes } = link.header;
    const name = segmentName(segmentId);
    const frames: FrameAt[] = [];
    withFile(disk, name, (file) => {
      for (const { header, offset, payload } of walkFrames(new Window(file), headerBytes, {
        salt,
        lsn: firstLsn,
        previousCrc: headerCrc,
      })) {
        const lastLsn = Math.min(header.firstLsn + header.records - 1, lastLsnOf(link) ?? Number.MAX_SAFE_INTEGER);
        frames.push({ name, from: offset, to: offset + 64 + payload.byteLength, firstLsn: header.firstLsn, lastLsn });
        if (header.type === 2) return;
      }
    });
    return frames.filter(({ lastLsn }) => lastLsn >= low);
  });
}

interface Cut {
  name: string;
  /** Undefined when the segment holds nothing yet. */
  first: FrameAt | undefined;
}

/** The segments that begin with a cut, and their first frames. */
function cutsOf(disk: SimulatedDisk, frames: FrameAt[]): Cut[] {
  return disk
    .list()
    .filter((name) => name.endsWith('.wal') && (withFile(disk, name, readHeader).flags & SegmentFlag.Truncates) !== 0)
    .map((name) => ({ name, first: frames.find((frame) => frame.name === name) }));
}

/** That something was cut off is known from both halves of the header and the first frame, and from nothing else. */
function hidesCut({ name, first }: Cut, holes: Hole[]): boolean {
  const here = holes.filter((hole) => hole.name === name);
  const { from: start, to: end } = first ?? { from: SEGMENT_HEADER_UNIT, to: 0 };
  const headHit = [0, SEGMENT_HEADER_UNIT / 2].every((half) =>
    here.some(({ from, to }) => from < half + SEGMENT_HEADER_UNIT / 2 && to > half),
  );
  return headHit && (first === undefined || here.some(({ from, to }) => from < end && to > start));
}

interface Hole {
  name: string;
  from: number;
  to: number;
}

/** Writes over a few bytes, or many, of one to three segments, and over both halves of a header now and then; returns the places. */
function damage(disk: SimulatedDisk, random: Random): Hole[] {
  const names = disk.list().filter((name) => name.endsWith('.wal'));
  const headless = names[random.below(names.length * 3)];
  if (headless !== undefined) {
    loseHeader(disk, headless);
    const at = [60, SEGMENT_HEADER_UNIT / 2 + 60];
    return [...at.map((from) => ({ name: headless, from, to: from + 1 })), ...holesIn(disk, random, names)];
  }
  return holesIn(disk, random, names);
}

function holesIn(disk: SimulatedDisk, random: Random, names: string[]): Hole[] {
  return Array.from({ length: 1 + random.below(3) }, () => {
    const name = random.oneIn(2) ? names[names.length - 1] : names[random.below(names.length)];
    const file = disk.open(name, 'write');
    const size = file.size();
    const from = random.below(random.oneIn(3) ? Math.min(size, 4300) : size);
    const length = Math.min(size - from, random.oneIn(2) ? 1 : 1 + random.below(600));
    const bytes = random.oneIn(3) ? Buffer.alloc(length) : Buffer.from(random.bytes(length));
    file.write([bytes], from);
    file.sync();
    file.close();
    return { name, from, to: from + length };
  });
}

t.test('whatever was damaged, all else is kept, by salvage and by repair, and the log is sound after it', async (t) => {
  const wrong: string[] = [];
  let repaired = 0;
  let refused = 0;
  const first = Number(process.env.REPAIR_SEED ?? 1);
  const seeds = Number(process.env.REPAIR_SEEDS ?? 200);
  for (let seed = first; seed < first + seeds; seed++) {
    const random = new Random(seed);
    const log = randomLog(random);
    const { disk } = log;
    const { low } = log.sequencer.state;
    const last = log.watermark(Level.Disk);
    const ids = new Map((await log.read(last)).map((id, i) => [low + i, id]));
    const frames = framesOf(disk, low);
    disk.crash();
    disk.restart('process');
    const cuts = cutsOf(disk, frames);
    const holes = damage(disk, random);
    if (cuts.some((cut) => hidesCut(cut, holes))) continue;
    const hit = (frame: FrameAt) =>
      holes.some(({ name, from, to }) => name === frame.name && from < frame.to && to > frame.from);
    const safe = new Set<number>();
    for (const frame of frames) {
      if (hit(frame)) continue;
      for (let lsn = Math.max(frame.firstLsn, low); lsn <= frame.lastLsn; lsn++) safe.add(lsn);
    }
    const point = `seed ${seed}`;
    try {
      const before = await verifyFiles(filesOf(disk));
      const { recovered, view } = await salvageLog(disk);
      const salvaged = new Map<number, number | undefined>();
      for (const record of await readAll(filesOf(view), recovered.state.low, recovered.end.lastLsn))
        salvaged.set(record.lsn, idOf(record));
      check(`${point} salvaged`, salvaged);
      if (before.verdict !== 'corrupt') continue;
      repaired++;
      const report = await repairStorage(disk);
      const after = await verifyFiles(filesOf(disk));
      if (after.verdict === 'corrupt') wrong.push(`${point}: ${JSON.stringify(after.damage)}`);
      const again = SimulatedLog.reopen(disk, 'power');
      const records = await readAll(filesOf(disk), again.recovered.state.low, again.recovered.end.lastLsn);
      const found = new Map(records.map((record) => [record.lsn, idOf(record)]));
      check(`${point} repaired`, found);
      if (report.kept !== found.size) wrong.push(`${point}: kept ${report.kept}, read ${found.size}`);
    } catch (error) {
      if ((error as { code?: string }).code === 'ERR_WAL_CORRUPT') {
        refused++;
        wrong.push(`${point} refused: ${(error as Error).message}`);
      } else wrong.push(`${point} ${(error as Error).stack}`);
    }

    function check(what: string, found: Map<number, number | undefined>): void {
      for (const [lsn, id] of found) {
        if (!ids.has(lsn) || ids.get(lsn) !== id) wrong.push(`${what}: LSN ${lsn} is ${id} and was ${ids.get(lsn)}`);
      }
      const missing = [...safe].filter((lsn) => !found.has(lsn));
      if (missing.length > 0) wrong.push(`${what}: lost ${missing} of ${[...safe].length}; ${JSON.stringify(holes)}`);
    }
  }
  t.same(wrong.slice(0, 12), [], `${wrong.length} wrong`);
  t.comment(`${repaired} repaired, ${refused} refused`);
});
