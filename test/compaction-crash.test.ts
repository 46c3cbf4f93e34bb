import t from 'tap';
import { Codec } from '../src/format/codec.js';
import { withCheckpoint } from '../src/format/state.js';
import { readHeader, withFile } from '../src/segments/read-segment.js';
import { retireSegments } from '../src/segments/retire.js';
import { isCompacted } from '../src/segments/segment-end.js';
import { clear, data, del, faultOf, KeyLog, put } from './compaction-helpers.js';
import { Random } from './simulation/random.js';
import { type Call, type CrashKind, SimulatedDisk } from './simulation/simulated-disk.js';
import { during } from './simulation/simulated-log.js';

const SEEDS = 1;
const KINDS: CrashKind[] = ['process', 'power'];

/** A few segments with garbage in each; LSN 14 was cut off once. */
function prepare(disk: SimulatedDisk): KeyLog {
  const log = new KeyLog({ disk });
  log.write(put('a', '1'), data('first'), put('b', '1'));
  log.write(del('never'), put('c', '1'));
  log.sequencer.rotate();
  log.write(put('a', '2'), del('b'));
  log.write(data('second'), put('', 'empty key'));
  log.sequencer.rotate();
  log.write(clear(), put('a', '3'), put('d', '1'));
  log.write(put('cut', 'off'), put('e', '1'));
  log.cut(12);
  log.write(put('e', '2'), del('d'));
  log.sequencer.rotate();
  log.write(put('e', '3'), put('a', '4'));
  log.sequencer.rotate();
  log.write(put('f', '1'), data('last'));
  return log;
}

const KEY = Buffer.alloc(32, 'key');
const VALUE = 'a value that compresses well. '.repeat(200);

/** Transactions of all kinds among plain records, compressed and encrypted frames; a segment without garbage in it. */
function prepareTransactions(disk: SimulatedDisk): KeyLog {
  const log = new KeyLog({ disk, codec: Codec.Deflate, key: KEY });
  const [doubtful, dropped, late] = [log.begin(), log.begin(), log.begin()];
  log.write(put('a', VALUE), data('first'), put('b', '1'));
  log.writePart(doubtful, put('a', 'doubtful'), del('b'));
  log.writePart(dropped, put('a', 'dropped'), put('x', '1'));
  log.commitWhole(put('a', VALUE), put('c', VALUE), del('b'));
  log.end(doubtful, 'prepare');
  log.end(dropped, 'prepare');
  log.sequencer.rotate();
  log.writePart(late, put('c', 'late'), put('e', '1'));
  log.commitWhole(put('c', '2'), put('d', '1'));
  log.decide(dropped, 'abortPrepared');
  log.write(put('b', '3'), put('a', '3'));
  log.end(late, 'commit');
  log.sequencer.rotate();
  log.commitWhole(put('d', '2'), put('f', VALUE), del('never'));
  log.write(put('b', '4'));
  log.sequencer.rotate();
  log.write(put('g', '1'));
  return log;
}

const WORKS: [name: string, prepare: (disk: SimulatedDisk) => KeyLog, segmentBytes: number][] = [
  ['one new segment', prepare, 32 * 1024],
  ['several new segments', prepare, 60],
  ['an encrypted log with transactions', prepareTransactions, 32 * 1024],
  [
    'a log with a checkpoint',
    (disk) => {
      const log = prepare(disk);
      log.sequencer.updateState((state) => ({ ...state, checkpoint: 7 }));
      return log;
    },
    32 * 1024,
  ],
  [
    'a log that was closed and that nobody has written to since',
    (disk) => {
      const log = prepare(disk);
      log.sequencer.close();
      return log.reopened();
    },
    32 * 1024,
  ],
];

for (const [name, prepareLog, segmentBytes] of WORKS) {
  t.test(`a crash at any call of a compaction leaves the old segments or the new ones: ${name}`, async (t) => {
    let points = 0;
    let compacted = 0;
    for (const kind of KINDS) {
      for (let seed = 0; seed < SEEDS; seed++) {
        for (let call = 1, reached = true; reached; call++) {
          // Of the calls of recovery every third, another one each time.
          for (let again = 0, reachedAgain = true; reachedAgain; again += again === 0 ? 1 + (call % 3) : 3) {
            const disk = new SimulatedDisk(new Random(seed));
            const log = prepareLog(disk);
            reached = during(disk, { crashAt: call }, () => log.compact({ segmentBytes }));
            disk.crash();
            disk.restart(kind);
            reachedAgain = again > 0 && during(disk, { crashAt: again }, () => new KeyLog({ disk }));
            if (again === 0) reachedAgain = true;
            else disk.restart(KINDS[(seed + again) % 2]);
            points++;
            const point = `${kind}, seed ${seed}, call ${call}, call ${again} of recovery`;
            if (hasCompacted(disk)) compacted++;
            const fault = await judge(log.reopened());
            if (fault !== undefined) t.fail(`${point}: ${fault}`);
          }
        }
      }
    }
    t.ok(points > 50, `${points} crashes`);
    t.ok(compacted > 10 && compacted < points - 10, `after ${compacted} of them a new segment was there`);
  });
}

async function judge(log: KeyLog): Promise<string | undefined> {
  const { history } = log;
  const last = log.recovered.end.lastLsn;
  if (last !== history.length - 1) return `ends at LSN ${last}`;
  const fault = await faultOf(log, history);
  if (fault !== undefined) return fault;
  // And it goes on, and can be compacted once more.
  log.write(put('later', '1'), put('a', '5'));
  log.sequencer.rotate();
  log.compact();
  const later = await faultOf(log, log.history);
  return later && `compacted again: ${later}`;
}

function hasCompacted(disk: SimulatedDisk): boolean {
  const names = disk.list().filter((name) => name.endsWith('.wal'));
  return names.some((name) => isCompacted(withFile(disk, name, readHeader)));
}

t.test('a crash at any call of a clean-up that recycles a compacted segment leaves a log that opens', (t) => {
  let crashes = 0;
  for (let seed = 1; seed <= 20; seed++) {
    for (let at = 1, reached = true; reached; at++) {
      const disk = new SimulatedDisk(new Random(seed));
      const log = prepare(disk);
      log.compact();
      log.sequencer.updateState((state) => withCheckpoint(state, log.watermark(2)));
      reached = during(disk, { crashAt: at }, () => {
        const names = log.sequencer.cleanup().map(({ name }) => name);
        retireSegments(disk, names, names.length, 32 * 1024);
      });
      if (!reached) break;
      crashes++;
      const after = log.next('power');
      if (after.watermark(2) !== log.watermark(2)) t.fail(`seed ${seed}, call ${at}: it ends at ${after.watermark(2)}`);
    }
  }
  t.ok(crashes > 100, `${crashes} crashes`);
  t.end();
});

t.test('a call that fails in a compaction leaves a log that goes on and loses nothing', async (t) => {
  const failing: Call[] = ['create', 'write', 'sync', 'rename', 'syncFolder', 'remove'];
  for (const errno of ['EIO', 'ENOSPC'] as const) {
    for (let failAt = 1, reached = true; reached; failAt++) {
      const disk = new SimulatedDisk(new Random(failAt));
      const log = prepare(disk);
      reached = during(disk, { failAt, failing, errno }, () => log.compact({ segmentBytes: 60 }));
      // Writing down what must hold from then on is the sequencer's, which trusts no disk after an error.
      if (log.sequencer.failed) disk.crash();
      const next = log.sequencer.failed ? log.next('power') : log;
      next.write(put('later', '1'));
      const fault = await faultOf(next, next.history);
      if (fault !== undefined) t.fail(`${errno} at ${failAt}: ${fault}`);
      disk.crash();
      const again = next.next('power');
      const left = await faultOf(again, again.history);
      if (left !== undefined) t.fail(`${errno} at ${failAt}, reopened: ${left}`);
    }
  }
  t.pass();
});

t.test('a full disk ends a compaction, which leaves no file behind', async (t) => {
  const disk = new SimulatedDisk(new Random(1));
  const log = prepare(disk);
  for (let free = 0; free <= 4000; free += 500) {
    const before = disk.fileNames();
    disk.quotaBytes = disk.usedBytes() + free;
    t.throws(() => log.compact(), { code: 'ENOSPC' });
    t.same(disk.fileNames(), before);
    t.equal(await faultOf(log, log.history), undefined);
    disk.quotaBytes = Number.POSITIVE_INFINITY;
  }
  t.ok(log.compact() > 0);
  t.equal(await faultOf(log, log.history), undefined);
});
