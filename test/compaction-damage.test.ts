import t, { type Test } from 'tap';
import { Codec } from '../src/format/codec.js';
import { type FrameHeader, FrameType } from '../src/format/frame.js';
import { withCheckpoint } from '../src/format/state.js';
import type { Entry } from '../src/producer/records.js';
import { filesOf } from '../src/reader/storage-files.js';
import { firstLsnSince } from '../src/reader/time-lookup.js';
import { verifyFiles } from '../src/reader/verify.js';
import { inspectPointInTime } from '../src/recovery/point-in-time.js';
import { inspectLog } from '../src/recovery/recover.js';
import { planRepair } from '../src/recovery/repair-plan.js';
import { endLastSegment } from '../src/recovery/repair-tail.js';
import { salvageLog } from '../src/recovery/salvage.js';
import { finish } from '../src/recovery/survey.js';
import { readContent, readHeader, withFile } from '../src/segments/read-segment.js';
import { isCompacted } from '../src/segments/segment-end.js';
import { Window, walkFrames } from '../src/segments/walk.js';
import { repairStorage } from '../src/upkeep/repair-log.js';
import { clear, data, del, faultOf, KeyLog, type LogEncoding, put } from './compaction-helpers.js';
import { partsOf } from './simulation/holes.js';
import { Random } from './simulation/random.js';
import { loseHeader, framesOf as placesOf, readAll } from './simulation/reading.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';
import { during } from './simulation/simulated-log.js';

/** A sound log of a compacted segment between two others. */
function compactedLog(encoding: LogEncoding = {}): { log: KeyLog; name: string; bytes: number } {
  const log = new KeyLog({ disk: new SimulatedDisk(new Random(1)), ...encoding });
  log.write(data('before'), data('before too'));
  log.sequencer.rotate();
  for (let segment = 0; segment < 3; segment++) {
    log.clock += 1000;
    const entries: Entry[] = [];
    for (let i = 0; i < 20; i++) entries.push(put(`key ${i}`, `value ${segment}`), data(`opaque ${segment} ${i}`));
    log.write(...entries);
    if (encoding.codec !== undefined) writeEncoded(log, segment);
    log.sequencer.rotate();
  }
  log.compact();
  log.write(data('behind'));
  log.sequencer.close();
  const names = log.disk.list().filter((name) => name.endsWith('.wal'));
  const name = names.find((candidate) => isCompacted(withFile(log.disk, candidate, readHeader)))!;
  return { log, name, bytes: withFile(log.disk, name, (file) => file.size()) };
}

/** Frames that are large enough to be compressed, with something in each that is replaced and something that is not. */
function writeEncoded(log: KeyLog, segment: number): void {
  const value = `compresses well, ${segment} `.repeat(20);
  log.write(...Array.from({ length: 20 }, (_, i) => put(`large ${i % 2 === 0 ? i : `${segment} ${i}`}`, value)));
  log.commitWhole(...Array.from({ length: 20 }, (_, i) => put(`tx ${i % 2 === 0 ? i : `${segment} ${i}`}`, value)));
}

t.test(
  'a changed byte anywhere in a compacted segment of compressed frames and transactions is noticed, and repaired as far as it goes',
  async (t) => {
    await flipAll(t, { codec: Codec.Deflate }, 2 + 60 + 20 + 2 * (3 * 10 + 10) + 1);
  },
);

t.test(
  'point-in-time that ends within a compacted segment comes to the same end, whatever call it was cut short in',
  async (t) => {
    const open = (disk: SimulatedDisk) => {
      const recovered = finish(inspectPointInTime(disk));
      endLastSegment(disk, recovered, 1_700_000_000_000);
      return recovered.end.lastLsn;
    };
    const damaged = () => {
      const { log, name } = compactedLog({ codec: Codec.Deflate });
      const { offsets } = placesOf(log.disk, name);
      log.disk.flip(name, offsets[offsets.length >> 1] + 70, 1);
      return log.disk;
    };
    const end = open(damaged());
    const { lastLsn } = inspectLog(compactedLog({ codec: Codec.Deflate }).log.disk, 'strict').end;
    t.ok(end > 2 && end < lastLsn - 1, `it ends in the middle, at LSN ${end} of ${lastLsn}`);
    let calls = 0;
    for (let reached = true; reached; calls++) {
      const disk = damaged();
      reached = during(disk, { crashAt: calls + 1 }, () => open(disk));
      disk.restart(calls % 2 === 0 ? 'power' : 'process');
      t.equal(open(disk), end, `cut short in call ${calls + 1}`);
      t.equal(inspectLog(disk, 'strict').end.lastLsn, end);
      t.equal((await verifyFiles(filesOf(disk))).verdict, 'clean');
    }
    t.ok(calls > 10, `it was cut short in each of ${calls} calls`);
  },
);

t.test('a changed byte anywhere in a compacted segment is noticed, and repaired as far as it goes', async (t) => {
  await flipAll(t, {}, 2 + 60 + 20 + 1);
});

async function flipAll(t: Test, encoding: LogEncoding, records: number): Promise<void> {
  const { log, name, bytes } = compactedLog(encoding);
  const sound = await verifyFiles(filesOf(log.disk));
  t.match(sound, { verdict: 'clean', records });
  let repaired = 0;
  for (let at = 0; at < bytes; at += at < 140 ? 1 : at < 4096 ? 509 : 7) {
    const copy = compactedLog(encoding);
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
}

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

t.test(
  'bytes that came into a compacted segment, or went from it: what a repair makes of it opens, and is sound',
  async (t) => {
    let repairs = 0;
    for (const at of [4096, 4104, 5000, 6000]) {
      for (const by of [-8, 8, 4096]) {
        const { log, name, bytes } = compactedLog();
        const before = Buffer.alloc(bytes);
        const file = log.disk.open(name, 'write');
        file.read(before, 0);
        const moved = before.subarray(at - Math.min(by, 0));
        file.truncate(bytes + by);
        file.write([Buffer.alloc(Math.max(by, 0)), moved], at);
        file.close();
        const what = `${by} bytes at ${at}`;
        const repaired = await repairStorage(log.disk).catch((error) => t.match(error, { code: 'ERR_WAL_CORRUPT' }));
        // Too little came in for a gap to stand there: refused.
        if (typeof repaired === 'boolean') continue;
        const { kept } = repaired;
        repairs++;
        t.match(await verifyFiles(filesOf(log.disk)), { verdict: 'clean', records: kept }, what);
        const again = new KeyLog({ disk: log.disk });
        t.equal((await again.records()).length, kept, what);
        again.write(data('goes on'));
        t.equal((await again.records()).length, kept + 1, what);
      }
    }
    t.ok(repairs >= 5, `${repairs} were repaired`);
  },
);

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

interface Frame extends FrameHeader {
  text: string;
}

function framesOf(log: KeyLog, name: string): Frame[] {
  return withFile(log.disk, name, (file) => {
    const { salt, firstLsn: lsn, headerBytes, headerCrc: previousCrc } = readHeader(file);
    return [...walkFrames(new Window(file), headerBytes, { salt, lsn, previousCrc })].map(({ header, payload }) => {
      return { ...header, text: Buffer.from(payload).toString('latin1') };
    });
  });
}

function segmentsOf({ disk }: KeyLog): string[] {
  return disk.list().filter((name) => name.endsWith('.wal'));
}

async function kindsOf(log: KeyLog): Promise<[lsn: number, kind: string][]> {
  return (await log.records()).map(({ lsn, kind }) => [lsn, kind]);
}

t.test(
  'a frame of a later version: without records it stays as it is, with records nothing is compacted',
  async (t) => {
    const later = 200;
    const log = new KeyLog({ disk: new SimulatedDisk(new Random(1)) });
    log.write(put('a', '1'), put('b', '1'), del('b'));
    log.writeFrame(later, []);
    log.write(put('a', '2'));
    log.sequencer.rotate();
    log.compact();
    const [name] = segmentsOf(log);
    t.same(
      framesOf(log, name).map(({ type }) => type),
      [FrameType.Sparse, later, FrameType.Sparse, FrameType.Seal],
    );
    t.same(await kindsOf(log), [[4, 'put']]);
    log.writeFrame(later, [put('a', 'in it'), put('c', 'in it')]);
    log.write(put('a', '3'));
    log.sequencer.rotate();
    const before = segmentsOf(log).map((name) => withFile(log.disk, name, readHeader));
    t.throws(() => log.compact(), { code: 'ERR_WAL_VERSION' });
    t.same(
      segmentsOf(log).map((name) => withFile(log.disk, name, readHeader)),
      before,
      'nothing was touched',
    );
  },
);

t.test(
  'a segment whose key is not at hand is left as it is, and so is every delete that may hide something in it',
  async (t) => {
    const disk = new SimulatedDisk(new Random(1));
    const plain = new KeyLog({ disk });
    plain.write(put('a', '1'), put('b', '1'));
    plain.sequencer.close();
    const encrypted = { disk, key: Buffer.alloc(32, 'a key') };
    const log = new KeyLog(encrypted);
    log.history.push(...plain.history.slice(1));
    log.write(put('a', '2'), put('secret', '1'));
    log.sequencer.close();
    const again = new KeyLog({ disk });
    again.history.push(...log.history.slice(1));
    again.write(put('a', '3'), del('secret'), put('b', '2'), put('b', '3'));
    again.sequencer.rotate();
    const [, second] = segmentsOf(log);
    const before = withFile(log.disk, second, readHeader);
    t.equal(again.compact(), 3, 'what is in the segment stays');
    t.same(withFile(log.disk, second, readHeader), before);
    const reader = new KeyLog(encrypted);
    t.same(await kindsOf(reader), [
      [3, 'put'],
      [4, 'put'],
      [5, 'put'],
      [6, 'del'],
      [8, 'put'],
    ]);
    reader.history.push(...again.history.slice(1));
    t.equal(await faultOf(reader, reader.history), undefined);
  },
);

t.test('what is left of an encrypted log is encrypted, whoever wrote it in plain before', async (t) => {
  const disk = new SimulatedDisk(new Random(1));
  const plain = new KeyLog({ disk });
  plain.write(put('a', '1'), data('was plain'), put('b', '1'));
  plain.sequencer.close();
  const key = Buffer.alloc(32, 'a key');
  const log = new KeyLog({ disk, key });
  log.history.push(...plain.history.slice(1));
  log.write(put('a', '2'), data('secret'), put('secret key', '1'));
  log.commitWhole(put('c', '1'), put('secret, too', '1'), put('a', '3'));
  log.sequencer.rotate();
  log.write(put('c', '2'));
  log.sequencer.rotate();
  const written = watchWrites(disk);
  t.equal(log.compact(), 3);
  t.notMatch(written(), /secret|plain/, 'neither into a segment nor into a temporary file');
  t.equal(await faultOf(log, log.history), undefined);
  const [name] = segmentsOf(log);
  const frames = framesOf(log, name);
  t.same(
    frames.map(({ type, encryption, records }) => [type, encryption, records]),
    [
      [FrameType.Sparse, 1, 3],
      [FrameType.Sparse, 1, 3],
      [FrameType.SparseTransaction, 1, 3],
      [FrameType.Seal, 0, 0],
    ],
  );
  t.same(Object.keys(withFile(disk, name, readHeader).state.encryption?.keys ?? {}), ['1'], 'its header knows the key');
  // No nonce comes twice: each compaction has a salt of its own, and within it each frame its number.
  const envelopes = frames.filter(({ encryption }) => encryption === 1).map(({ text }) => text.slice(4, 28));
  t.equal(new Set(envelopes).size, envelopes.length);
  const withoutKey = await verifyFiles(filesOf(disk));
  const { records } = await verifyFiles(filesOf(disk), {}, log.keys);
  t.match(withoutKey, { verdict: 'clean', encrypted: true, records, unchecked: records }, 'counted without the key');
});

/** All that is written from here on. */
function watchWrites(disk: SimulatedDisk): () => string {
  const open = disk.open.bind(disk);
  let written = '';
  disk.open = (name, mode) => {
    const file = open(name, mode);
    const write = file.write.bind(file);
    file.write = (chunks, position) => {
      for (const chunk of chunks) written += Buffer.from(chunk).toString('latin1');
      return write(chunks, position);
    };
    return file;
  };
  return () => written;
}

t.test('what is left of compressed frames is compressed, and takes no more room', async (t) => {
  const log = new KeyLog({ disk: new SimulatedDisk(new Random(1)), codec: Codec.Brotli });
  const lines = (from: number): Entry[] =>
    Array.from({ length: 200 }, (_, i) => put(`key ${from + i}`, `GET /images/item-${from * i}.png HTTP/1.1`));
  for (let segment = 0; segment < 4; segment++) {
    log.write(...lines(segment * 150));
    log.commitWhole(...lines(1000 + segment * 150));
    log.sequencer.rotate();
  }
  const stored = () =>
    segmentsOf(log)
      .flatMap((name) => framesOf(log, name))
      .filter(({ type }) => type !== FrameType.Seal && type !== FrameType.State)
      .reduce((sum, { storedBytes }) => sum + storedBytes, 0);
  const before = stored();
  t.equal(log.compact(), 2 * 3 * 50);
  t.ok(stored() < before, `${stored()} bytes of ${before}`);
  const frames = segmentsOf(log).flatMap((name) => framesOf(log, name));
  for (const type of [FrameType.Sparse, FrameType.SparseTransaction]) {
    t.ok(frames.some((frame) => frame.type === type && frame.codec === Codec.Brotli));
  }
  t.equal(await faultOf(log, log.history), undefined);
  const { lsn } = (await log.records())[100];
  t.equal(await firstLsnSince(log.source(), log.clock - 1), (await log.records())[0].lsn, 'by time');
  t.equal((await log.replay(lsn))[0].lsn, lsn, 'from the middle of a frame');
});

t.test(
  'transactions: what counts replaces and is replaced, what was aborted goes, what is in doubt stays',
  async (t) => {
    const log = new KeyLog({ disk: new SimulatedDisk(new Random(1)) });
    const [kept, dropped, large] = [log.begin(), log.begin(), log.begin()];
    log.write(put('a', '1'), put('b', '1'));
    log.writePart(kept, put('a', 'kept'));
    log.writePart(dropped, put('a', 'dropped'), put('b', 'dropped'));
    log.writePart(large, put('a', 'large'), put('b', 'large'));
    log.end(kept, 'prepare');
    log.end(dropped, 'prepare');
    log.sequencer.rotate();
    log.commitWhole(put('a', '2'), put('c', '1'), put('d', '1'));
    log.decide(dropped, 'abortPrepared');
    log.sequencer.rotate();
    log.end(large, 'commit');
    log.write(put('c', '2'));
    log.sequencer.rotate();
    const state = structuredClone(log.sequencer.state.transactions);
    t.equal(log.compact(), 4, 'a at 1, both operations of the aborted one, and c in the transaction');
    t.equal(await faultOf(log, log.history), undefined);
    t.same(
      (await log.records()).map(({ lsn, kind, transaction }) => [lsn, kind, transaction]),
      [
        [2, 'put', undefined],
        [3, 'put', kept],
        [6, 'put', large],
        [7, 'put', large],
        [8, 'put', log.history[8]?.transaction],
        [10, 'put', log.history[8]?.transaction],
        [11, 'data', large],
        [12, 'put', undefined],
      ],
    );
    const shown = (await log.replay(1)).map(({ lsn, op }) => [
      lsn,
      op.type === 'clear' ? '' : Buffer.from(op.key).toString(),
    ]);
    t.same(
      shown,
      [
        [2, 'b'],
        [10, 'a'],
        [10, 'd'],
        [11, 'a'],
        [11, 'b'],
        [12, 'c'],
      ],
      'at the LSNs of their commits',
    );
    t.same(await log.replay(9), (await log.replay(1)).slice(1), 'whole also from the middle of it');
    t.same(log.sequencer.state.transactions, state);
    t.equal(log.compact(), 0, 'a second time there is nothing to do');
    log.decide(kept, 'commitPrepared');
    t.equal(await faultOf(log, log.history), undefined);
    t.equal(await faultOf(log.reopened(), log.history), undefined);
  },
);

t.test('a delete in a transaction stays until the checkpoint has passed its commit', async (t) => {
  const log = new KeyLog({ disk: new SimulatedDisk(new Random(1)) });
  log.write(data('first'), put('a', '1'));
  log.commitWhole(del('a'), put('b', '1'), put('c', '1'));
  log.sequencer.rotate();
  log.sequencer.updateState((state) => withCheckpoint(state, 3));
  t.equal(
    log.compact(),
    1,
    'the put alone: the state outside may hold what the delete, whose commit is above, takes away',
  );
  log.sequencer.updateState((state) => withCheckpoint(state, 5));
  t.equal(log.compact(), 1);
  t.equal(await faultOf(log, log.history), undefined);
});

/** A log whose transactions changed the state of its only segment, after a crash. */
function crashedLog(): KeyLog {
  const log = new KeyLog({ disk: new SimulatedDisk(new Random(1)) });
  const [undecided, aborted] = [log.begin(), log.begin()];
  log.write(put('a', '1'), put('a', '2'));
  log.writePart(undecided, put('b', '1'));
  log.writePart(aborted, put('b', '2'));
  log.end(undecided, 'prepare');
  log.end(aborted, 'prepare');
  log.decide(aborted, 'abortPrepared');
  log.disk.crash();
  log.disk.restart('process');
  return log;
}

t.test(
  'a segment without a seal, as recovery leaves it on a full disk, is sealed with what its transactions led to',
  async (t) => {
    let unsealed = 0;
    for (let failAt = 1; failAt < 100; failAt++) {
      const crashed = crashedLog();
      const { disk } = crashed;
      disk.arm({ failAt, failing: ['write'], errno: 'ENOSPC' });
      let log: KeyLog;
      try {
        log = crashed.reopened();
      } catch {
        // The disk was full before what had been written was made sure of.
        continue;
      } finally {
        disk.arm();
      }
      log.write(put('c', '1'));
      const [first] = segmentsOf(log);
      const before = withFile(disk, first, (file) => readContent(file, readHeader(file)));
      if (before.sealed) continue;
      unsealed++;
      t.ok(log.compact() > 0);
      const after = withFile(disk, first, (file) => readContent(file, readHeader(file)));
      t.ok(after.sealed);
      t.same(after.state.transactions, before.state.transactions);
      t.same(Object.keys(after.state.transactions?.prepared ?? {}).length, 1);
      t.equal(await faultOf(log, log.history), undefined);
    }
    t.ok(unsealed > 0, `${unsealed} without a seal`);
  },
);

t.test('a transaction that a cut goes through counts no more: it replaces nothing', async (t) => {
  const log = new KeyLog({ disk: new SimulatedDisk(new Random(1)) });
  log.write(put('a', '1'), put('b', '1'));
  log.commitWhole(put('a', '2'), del('b'), put('c', '2'));
  log.cut(4);
  log.write(put('c', '3'));
  log.sequencer.rotate();
  t.equal(log.compact(), 0);
  t.equal(await faultOf(log, log.history), undefined);
  log.write(put('a', '4'));
  log.sequencer.rotate();
  t.equal(log.compact(), 1);
  t.equal(await faultOf(log, log.history), undefined);
});

t.test('a delete behind parts that may be committed later stays', async (t) => {
  const log = new KeyLog({ disk: new SimulatedDisk(new Random(1)) });
  const id = log.begin();
  log.write(put('a', '1'));
  log.writePart(id, put('a', '2'), put('b', '2'));
  log.end(id, 'commit');
  log.write(del('a'), clear());
  log.sequencer.rotate();
  t.equal(log.compact(), 2, 'the put, and the delete before the clear');
  t.same(
    (await log.replay(1)).map(({ lsn, op }) => [lsn, op.type]),
    [
      [4, 'put'],
      [4, 'put'],
      [6, 'clear'],
    ],
  );
  t.equal(await faultOf(log, log.history), undefined);
});

t.test('a compacted segment that was cleaned up may be in any condition, while its file is still there', async (t) => {
  for (const damaged of [false, true]) {
    const log = new KeyLog({ disk: new SimulatedDisk(new Random(1)) });
    for (let segment = 0; segment < 3; segment++) {
      for (let i = 0; i < 20; i++) log.write(put(`key ${i}`, `value ${segment}`));
      log.sequencer.rotate();
    }
    log.compact();
    const [name] = log.disk.list().filter((file) => file.endsWith('.wal') && isCompacted(headerOf(log.disk, file)));
    log.write(data('behind'));
    log.sequencer.updateState((state) => ({ ...state, checkpoint: 60 }));
    // A crash keeps the file.
    t.ok(log.sequencer.cleanup().some((gone) => gone.name === name));
    log.sequencer.close();
    if (damaged) log.disk.flip(name, withFile(log.disk, name, (file) => file.size()) - 20, 1);
    t.match(await verifyFiles(filesOf(log.disk)), { verdict: 'clean', records: 1, firstLsn: 61 });
    const { obsolete, state, end } = inspectLog(log.disk, 'strict');
    t.match({ obsolete, state, end }, { obsolete: [name], state: { low: 61 }, end: { lastLsn: 61 } });
  }
});

t.test(
  'a segment that compaction replaced, and whose file is still there, may lose its header: nothing is lost',
  async (t) => {
    let seen = 0;
    const cutShort = (call: number) => {
      const log = new KeyLog({ disk: new SimulatedDisk(new Random(1)) });
      for (let segment = 0; segment < 4; segment++) {
        for (let i = 0; i < 20; i++) log.write(put(`key ${i}`, `value ${segment}`));
        log.sequencer.rotate();
      }
      const reached = during(log.disk, { crashAt: call }, () => log.compact());
      log.disk.restart('process');
      return { disk: log.disk, reached, obsolete: inspectLog(log.disk, 'tolerate-torn-tail').obsolete };
    };
    for (let call = 1, reached = true; reached; call++) {
      const first = cutShort(call);
      reached = first.reached;
      for (const name of first.obsolete) {
        const { disk } = cutShort(call);
        loseHeader(disk, name);
        const salvaged = await salvageLog(disk);
        t.same([salvaged.recovered.end.lastLsn, salvaged.recovered.report.lost ?? []], [80, []]);
        const recovered = finish(inspectPointInTime(disk));
        t.same([recovered.end.lastLsn, recovered.setAside], [80, [name]], `${name}, cut short in call ${call}`);
        endLastSegment(disk, recovered, 1_700_000_000_000);
        t.equal((await verifyFiles(filesOf(disk))).verdict, 'clean');
        seen++;
      }
    }
    t.ok(seen > 2, `${seen} files without a header`);
  },
);

function headerOf(disk: SimulatedDisk, name: string) {
  return withFile(disk, name, readHeader);
}

t.test(
  'of a compacted segment that was cut, and lost its end, only what the cut had left is reported as lost',
  async (t) => {
    const log = new KeyLog({ disk: new SimulatedDisk(new Random(1)) });
    for (let segment = 0; segment < 3; segment++) {
      for (let i = 0; i < 2; i++) log.write(put('key', `${segment}`), data(`opaque ${segment} ${i}`));
      log.sequencer.rotate();
    }
    log.compact();
    const [{ name, lastLsn }] = log.sequencer.sealed;
    t.equal(lastLsn, 12);
    log.cut(9);
    log.write(data('behind'));
    log.sequencer.close();
    const { offsets } = placesOf(log.disk, name);
    // Everything behind the first frame, the seal included.
    for (const at of offsets.slice(1)) log.disk.flip(name, at + 20, 1);
    const { recovered } = await salvageLog(log.disk);
    const { kept, lost } = finish(planRepair(log.disk));
    t.same(lost, [{ firstLsn: 5, lastLsn: 9 }]);
    t.same(recovered.report.lost, lost);
    t.equal(recovered.end.lastLsn, 10);
    t.match(await repairStorage(log.disk), { verdict: 'repaired', kept, lost });
    t.match(await verifyFiles(filesOf(log.disk)), { verdict: 'clean', records: kept, lost: [{}] });
  },
);

/** What can be read of a damaged log, by salvage and after a repair, must be all that was not hit. */
async function losesNothing(t: Test, disk: SimulatedDisk, expected: readonly number[], what: string): Promise<void> {
  const { recovered, view } = await salvageLog(disk);
  const { low } = recovered.state;
  const lsns = async (files: Parameters<typeof readAll>[0], last: number) =>
    (await readAll(files, low, last)).map(({ lsn }) => lsn);
  const isLost = (lsn: number) =>
    (recovered.report.lost ?? []).some((span) => span.firstLsn <= lsn && lsn <= span.lastLsn);
  const salvaged = await lsns(filesOf(view), recovered.end.lastLsn);
  t.same(
    expected.filter((lsn) => !salvaged.includes(lsn)),
    [],
    `${what}: salvage reads all that was not hit`,
  );
  t.notOk(salvaged.some(isLost), `${what}: and reports none of it as lost`);
  const { kept, lost } = await repairStorage(disk);
  t.same([kept, lost], [salvaged.length, recovered.report.lost ?? []], `${what}: a repair keeps the same`);
  t.match(await verifyFiles(filesOf(disk)), { verdict: 'clean', records: kept }, `${what}: and the log is sound`);
  const { end, report } = inspectLog(disk, 'strict');
  t.same(await lsns(disk, end.lastLsn), salvaged, `${what}: with the same records`);
  t.equal(report.records, kept, `${what}: and counts them`);
}

/**
 * A compacted segment that goes on far behind where the old one ended, in whose place it is, and that was cut short in this
 * call: files that it replaced may still be there.
 */
function cutShort(call: number): { disk: SimulatedDisk; reached: boolean; compacted: string | undefined } {
  const log = new KeyLog({ disk: new SimulatedDisk(new Random(1)) });
  const large = (name: string) => data(name.repeat(3000));
  log.write(data('before'));
  log.sequencer.rotate();
  log.write(large('ab'), large('cd'));
  log.write(put('a', '1'), put('b', '1'));
  log.sequencer.rotate();
  log.write(put('a', '2'), data('between'));
  log.write(large('ef'));
  log.sequencer.rotate();
  log.write(put('a', '3'), put('b', '3'));
  log.write(put('b', '4'));
  log.sequencer.rotate();
  const reached = during(log.disk, { crashAt: call }, () => log.compact());
  log.disk.restart('process');
  const again = log.reopened();
  again.write(data('behind'));
  again.sequencer.close();
  const { segments } = inspectLog(log.disk, 'strict');
  const compacted = segments.find(({ name }) => isCompacted(headerOf(log.disk, name)))?.name;
  return { disk: log.disk, reached, compacted };
}

t.test(
  'a compacted segment without a header loses no more than what else was hit, with the files that it replaced and without',
  async (t) => {
    let seen = 0;
    for (let call = 1, reached = true; reached; call++) {
      const sound = cutShort(call);
      reached = sound.reached;
      if (sound.compacted === undefined) continue;
      const { low } = inspectLog(sound.disk, 'strict').state;
      const all = (await readAll(sound.disk, low, inspectLog(sound.disk, 'strict').end.lastLsn)).map(({ lsn }) => lsn);
      const frames = partsOf(sound.disk).filter(({ name, isHeader }) => name === sound.compacted && !isHeader);
      const leftOver = inspectLog(sound.disk, 'strict').obsolete.length;
      // Which files it replaced, as long as they are there, the header says and the seal, and nothing else.
      const alone = leftOver > 0 ? frames.slice(0, -1) : frames;
      for (const frame of [undefined, ...alone]) {
        for (const at of frame === undefined ? [0] : [10, 70]) {
          if (frame !== undefined && frame.from + at >= frame.to) continue;
          const { disk } = cutShort(call);
          loseHeader(disk, sound.compacted);
          if (frame !== undefined) disk.flip(sound.compacted, frame.from + at, 1);
          const hit = (lsn: number) => frame !== undefined && frame.firstLsn <= lsn && lsn <= frame.lastLsn;
          const expected = all.filter((lsn) => !hit(lsn));
          const what = `call ${call}, ${leftOver} files left, ${frame === undefined ? 'nothing else' : `${frames.indexOf(frame) + 1} of ${frames.length} + ${at}`}`;
          await losesNothing(t, disk, expected, what);
          seen++;
        }
      }
    }
    t.ok(seen > 20, `${seen} times`);
  },
);
