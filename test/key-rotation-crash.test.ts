import { randomBytes } from 'node:crypto';
import t from 'tap';
import { makeRingKey } from '../src/format/encryption.js';
import { carriesRecords } from '../src/format/frame.js';
import { KeyRing, type WritingKey } from '../src/format/key-ring.js';
import { Level } from '../src/format/levels.js';
import type { WalRecord } from '../src/format/record.js';
import { Appender } from '../src/producer/appender.js';
import { Catalog } from '../src/reader/catalog.js';
import type { LogSource } from '../src/reader/log-source.js';
import { readLog } from '../src/reader/read-log.js';
import { inspectLog, type Recovered } from '../src/recovery/recover.js';
import { endLastSegment } from '../src/recovery/repair-tail.js';
import { Control } from '../src/ring/control.js';
import { Ring } from '../src/ring/ring.js';
import { newestHeader, readHeader, withFile } from '../src/segments/read-segment.js';
import { Window, walkFrames } from '../src/segments/walk.js';
import { Member } from '../src/sequencer/member.js';
import { Sequencer } from '../src/sequencer/sequencer.js';
import { failsWith, text } from './helpers.js';
import { Random } from './simulation/random.js';
import { type CrashKind, readableFiles, SimulatedDisk } from './simulation/simulated-disk.js';
import { during } from './simulation/simulated-log.js';

const KEYS = [1, 2, 3].map((id) => ({ id, key: randomBytes(32) }));
const LOG_ID = randomBytes(16);
const SEGMENT_BYTES = 32 * 1024;
const allKeys = () => new KeyRing((id = 3) => KEYS.find((key) => key.id === id));

/** As the opening thread makes them; what an open asks for is there before the disk is in it. */
const writing: WritingKey[] = [];
t.before(async () => {
  for (const key of KEYS) writing.push((await new KeyRing(() => key).forWriting(LOG_ID, undefined))!);
});

/** An encrypted log on a simulated disk, opened as the actor and the opening thread open it together. */
class EncryptedLog {
  readonly disk: SimulatedDisk;
  readonly control = new Control();
  readonly recovered: Recovered;
  readonly sequencer: Sequencer;
  readonly appender: Appender;
  /** What was appended, in order. */
  readonly appended: string[];

  constructor(disk: SimulatedDisk, key: WritingKey, appended: string[] = []) {
    this.disk = disk;
    this.appended = appended;
    this.recovered = inspectLog(disk, 'tolerate-torn-tail');
    endLastSegment(disk, this.recovered, 1_700_000_000_000);
    const nothing = () => undefined;
    const host = {
      now: () => 1_700_000_000_000,
      randomBytes: (count: number) => disk.random.bytes(count),
      wakeOpener: nothing,
      wantSpare: nothing,
      forgotten: nothing,
      rotated: nothing,
    };
    const options = { segmentBytes: SEGMENT_BYTES, flushIntervalMs: 0, growAbove: 0, key };
    const start = { ...this.recovered, logId: this.recovered.logId ?? LOG_ID };
    this.sequencer = new Sequencer(disk, this.control, host, options, start);
    const ring = Ring.allocate(64 * 1024);
    this.sequencer.addMember(new Member(0, ring, nothing));
    const limits = { frameBytes: 4096, maxRecordBytes: 4096, encodeBytes: 1e9, key: ringKey(key) };
    this.appender = new Appender(ring, this.control, limits, { hold: nothing, backpressure: nothing });
  }

  append(count: number, level: number): void {
    for (let i = 0; i < count; i++) {
      const value = `record ${this.appended.length + 1} ${'.'.repeat(this.appended.length % 700)}`;
      this.appended.push(value);
      const ignore = () => {};
      this.appender.append({ kind: 0, key: undefined, value }, level, ignore, ignore);
    }
    this.appender.publish();
    this.sequencer.step();
    if (this.sequencer.failed) throw new Error(this.control.failure());
  }

  /** As the coordinator does it: first the log, then the producers. */
  rotate(key: WritingKey): void {
    this.sequencer.rotate(key);
    this.appender.setKey(ringKey(key));
  }
}

function ringKey({ id, key }: WritingKey) {
  return makeRingKey(id, key, randomBytes(16));
}

async function readAll(log: EncryptedLog, keys: KeyRing): Promise<WalRecord[]> {
  const to = log.recovered.end.lastLsn;
  const source: LogSource = {
    catalog: new Catalog(readableFiles(log.disk)),
    keys,
    low: () => 1,
    promised: () => to,
    readable: () => Promise.resolve(to),
    liveEnd: () => undefined,
    liveIndex: () => Promise.resolve(undefined),
    watermark: () => to,
    reached: () => Promise.resolve(false),
  };
  const request = { from: 1, to, follow: undefined, signal: new AbortController().signal };
  const records: WalRecord[] = [];
  for await (const batch of readLog(source, request)) records.push(...batch);
  return records;
}

/** The keys that frames name and the header of their own segment does not know. */
function unknownKeys(disk: SimulatedDisk): string[] {
  const unknown: string[] = [];
  for (const name of disk.list().filter((file) => file.endsWith('.wal'))) {
    withFile(disk, name, (file) => {
      const { headerBytes, headerCrc, firstLsn, salt, state } = readHeader(file);
      const start = { salt, lsn: firstLsn, previousCrc: headerCrc };
      for (const { header, payload } of walkFrames(new Window(file), headerBytes, start)) {
        if (!carriesRecords(header.type)) continue;
        const id = new DataView(payload.buffer, payload.byteOffset).getUint32(0, true);
        if (header.encryption !== 1 || state.encryption?.keys[id] === undefined) unknown.push(`${name}: key ${id}`);
      }
    });
  }
  return unknown;
}

const WORKS: Record<string, (log: EncryptedLog) => void> = {
  'a rotation, and appends after it': (log) => {
    log.append(3, Level.Disk);
    log.rotate(writing[1]);
    log.append(3, Level.Disk);
    log.append(2, Level.Os);
  },
  'two rotations, the second of a segment without records': (log) => {
    log.append(2, Level.Os);
    log.rotate(writing[1]);
    log.rotate(writing[2]);
    log.append(3, Level.Disk);
  },
  'a rotation while a frame with the old key is on its way': (log) => {
    log.append(2, Level.Disk);
    const late = ringKey(writing[0]);
    log.sequencer.rotate(writing[1]);
    log.appender.setKey(late);
    log.append(2, Level.Disk);
    log.appender.setKey(ringKey(writing[1]));
    log.append(2, Level.Disk);
  },
  'a rotation to the same key, and a close': (log) => {
    log.append(2, Level.Disk);
    log.rotate(writing[0]);
    log.append(2, Level.Disk);
    log.sequencer.close();
  },
};

for (const [name, work] of Object.entries(WORKS)) {
  t.test(`a crash at any call of ${name}: no record lost, and no key unknown`, async (t) => {
    let points = 0;
    for (const kind of ['process', 'power'] as CrashKind[]) {
      for (let seed = 0; seed < 2; seed++) {
        for (let call = 1, reached = true; reached; call++) {
          // Recovery knows nothing of keys, and has crash tests of its own: here a few are enough.
          const mayCrashAgain = call % 7 === seed;
          for (let again = 0, reachedAgain = true; reachedAgain; again += 3) {
            reachedAgain = mayCrashAgain;
            const disk = new SimulatedDisk(new Random(seed));
            const before = new EncryptedLog(disk, writing[0]);
            before.append(4, Level.Disk);
            reached = during(disk, { crashAt: call }, () => work(before));
            const promised = before.control.watermark(Level.Disk);
            disk.crash();
            disk.restart(kind);
            if (again > 0) {
              reachedAgain = during(disk, { crashAt: again }, () => new EncryptedLog(disk, writing[0]));
              disk.crash();
              disk.restart(kind);
            }
            const point = `${kind}, seed ${seed}, call ${call}, call ${again} of recovery`;
            await judge(t, before, promised, point);
            points++;
          }
        }
      }
    }
    t.ok(points > 50, `${points} crashes`);
  });
}

async function judge(t: { fail(message: string): void }, before: EncryptedLog, promised: number, point: string) {
  const { disk, appended } = before;
  const header = newestHeader(disk)!;
  const keys = allKeys();
  await keys.unlock(header.logId, header.state.encryption);
  const { current } = header.state.encryption!;
  const log = new EncryptedLog(disk, writing[current - 1], [...appended]);
  const { lastLsn } = log.recovered.end;
  if (lastLsn < promised) t.fail(`${point}: ends at LSN ${lastLsn}, and ${promised} was promised`);
  const unknown = unknownKeys(disk);
  if (unknown.length > 0) t.fail(`${point}: ${unknown}`);
  log.appended.length = lastLsn;
  log.append(2, Level.Disk);
  log.sequencer.close();
  const again = new EncryptedLog(disk, writing[current - 1]);
  const records = (await readAll(again, keys)).map(({ payload }) => text(payload));
  const expected = log.appended;
  if (records.join() !== expected.join()) t.fail(`${point}: ${records.length} records of ${expected.length}`);
}

t.test('a full disk keeps a rotation from happening, and the log goes on with the key it has', async (t) => {
  const disk = new SimulatedDisk(new Random(1));
  const log = new EncryptedLog(disk, writing[0]);
  log.append(4, Level.Disk);
  disk.quotaBytes = disk.usedBytes();
  t.throws(() => log.rotate(writing[1]), { code: 'ERR_WAL_NO_SPACE' });
  t.same(log.sequencer.state.encryption?.current, 1);
  log.append(2, Level.Disk);
  disk.quotaBytes = Number.POSITIVE_INFINITY;
  log.rotate(writing[1]);
  log.append(2, Level.Disk);
  log.sequencer.close();
  t.same(unknownKeys(disk), []);
  const keys = allKeys();
  const records = await readAll(new EncryptedLog(disk, writing[1]), keys);
  t.same(
    records.map(({ payload }) => text(payload)),
    log.appended,
  );
  const { logId, state } = newestHeader(disk)!;
  const first = new KeyRing((id = 1) => KEYS.find((key) => key.id === id && id === 1));
  await failsWith(t, 'ERR_WAL_KEY', first.unlock(logId, state.encryption));
});
