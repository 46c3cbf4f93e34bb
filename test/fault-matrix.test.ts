// First of all: whatever starts threads after this starts them on a disk that fails on command.
import './fixtures/faults.js';

import { connect, type Producer, WalError, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { actors, Fault, faults, heal, inject } from './fixtures/faults.js';
import { collect, numbers, payloads, segmentFiles, temporaryDirectory } from './helpers.js';

/**
 * An I/O error of each call in each phase of a live log. What is expected:
 * - `poisons`: the call rejects, everything in flight is indeterminate, everything later fails; a reopen has what was promised.
 * - `refused`: the call rejects, and the log goes on as if it had not been made.
 * - `goes on`: it fails in the background or for what is not needed; the call resolves.
 * - `not made`: this phase makes no such call.
 */
type Expected = 'poisons' | 'refused' | 'goes on' | 'not made';

const CALLS = {
  fdatasync: Fault.sync,
  write: Fault.write,
  open: Fault.open,
  rename: Fault.rename,
  ftruncate: Fault.truncate,
  unlink: Fault.remove,
  'fsync of the directory': Fault.folderSync,
} as const;

type Call = keyof typeof CALLS;
type Phase = 'append' | 'rotation' | 'checkpoint' | 'cleanup' | 'truncateAfter' | 'close' | 'open';

const MATRIX: Record<Call, Record<Phase, Expected>> = {
  fdatasync: row('poisons', { open: 'refused' }),
  write: row('poisons', { open: 'refused' }),
  open: row('poisons', {
    append: 'not made',
    checkpoint: 'not made',
    cleanup: 'refused',
    close: 'not made',
    open: 'refused',
  }),
  rename: row('not made', { rotation: 'poisons', truncateAfter: 'poisons', cleanup: 'refused' }),
  ftruncate: row('not made', { rotation: 'poisons', truncateAfter: 'poisons', close: 'poisons', open: 'refused' }),
  unlink: row('not made', { cleanup: 'refused' }),
  'fsync of the directory': row('not made', {
    rotation: 'poisons',
    truncateAfter: 'poisons',
    cleanup: 'refused',
    open: 'refused',
  }),
};

function row(all: Expected, others: Partial<Record<Phase, Expected>> = {}): Record<Phase, Expected> {
  const phases: Phase[] = ['append', 'rotation', 'checkpoint', 'cleanup', 'truncateAfter', 'close', 'open'];
  return { ...(Object.fromEntries(phases.map((phase) => [phase, all])) as Record<Phase, Expected>), ...others };
}

const OPTIONS = { segmentBytes: 65536, flushIntervalMs: 0, autoCleanup: false };
/** Records in three segments; the first two of them are sealed. */
const BEFORE = 21;
const SEALED = 14;
const CUT = BEFORE - 5;

interface Live {
  directory: string;
  wal: WriteAheadLog;
  producer: Producer;
  /** What was acknowledged, by LSN. */
  promised: Map<number, string>;
}

async function live(t: Test): Promise<Live> {
  const directory = temporaryDirectory(t);
  const wal = await WriteAheadLog.open(directory, OPTIONS);
  t.teardown(() => wal.close().catch(() => {}));
  wal.on('error', () => {});
  const producer = await connect(wal.producer());
  const promised = new Map<number, string>();
  for (const first of [1, 1 + SEALED / 2, 1 + SEALED]) {
    const records = numbers(first, first + BEFORE / 3 - 1).map(async (i) => {
      const payload = `${i} ${'x'.repeat(i * 50)}`;
      const durability = i % 3 === 0 ? 'os' : 'disk';
      promised.set(await (i % 2 === 0 ? wal : producer).append(payload, { durability }), payload);
    });
    await Promise.all(records);
    if (first <= SEALED) await wal.rotate();
  }
  return { directory, wal, producer, promised };
}

const codeOf = (error: unknown) => (error instanceof WalError ? error.code : String(error));
const outcome = (work: Promise<unknown>) => work.then(() => 'resolved', codeOf);

async function follow(wal: WriteAheadLog): Promise<void> {
  for await (const { lsn } of wal.read({ follow: true })) if (lsn > 1_000_000) return;
}

type LivePhase = Exclude<Phase, 'open'>;

/** What the phase does when the disk works. */
const WORK: Record<LivePhase, (log: Live) => Promise<unknown>> = {
  append: ({ wal }) => wal.appendMany(['appended', 'appended too']),
  rotation: ({ wal }) => wal.rotate(),
  checkpoint: ({ wal }) => wal.checkpoint(SEALED),
  cleanup: ({ wal }) => wal.cleanup(),
  truncateAfter: ({ wal }) => wal.truncateAfter(CUT),
  close: ({ wal }) => wal.close(),
};

async function judge(t: Test, call: Call, phase: LivePhase): Promise<Expected> {
  const log = await live(t);
  const { wal, producer, promised } = log;
  if (phase === 'cleanup') await wal.checkpoint(SEALED);
  const waiters = [outcome(wal.waitFor(1_000_000, 'disk'))];
  // A reader would keep clean-up from recycling a file.
  if (phase !== 'cleanup') waiters.push(outcome(follow(wal)));
  inject(CALLS[call], 1);
  const inFlight = phase === 'close' ? [] : append(log, 'in flight');
  const failed = await outcome(WORK[phase](log));
  const fates = await Promise.all(inFlight);
  const hit = Atomics.load(faults, Fault.failures) > 0;
  if (phase === 'close') {
    heal();
    await Promise.all(waiters);
    await reopened(t, log, undefined);
    return verdictOf(t, hit, failed, failed === 'ERR_WAL_FAILED');
  }
  const durable = wal.watermark('disk');
  const later = await Promise.all(append(log, 'later'));
  const poisoned = later.every((code) => code === 'ERR_WAL_FAILED');
  heal();
  if (poisoned) {
    t.equal(wal.watermark('disk'), durable, 'no acknowledgement after it');
    const [waiter, follower = waiter] = await Promise.all(waiters);
    t.equal(waiter, 'ERR_WAL_FAILED', 'every waiter is woken');
    // The cut may be there, though nobody was promised it; the follower had gone past it.
    if (phase !== 'truncateAfter' || follower !== 'ERR_WAL_TRUNCATED') t.equal(follower, 'ERR_WAL_FAILED');
    const codes = new Set([failed, ...fates]);
    t.same(
      [...codes].filter((code) => !/^(resolved|ERR_WAL_FAILED|ERR_WAL_INDETERMINATE)$/.test(code)),
      [],
      'right codes',
    );
    if (phase === 'append') t.same([...codes], ['ERR_WAL_INDETERMINATE'], 'in flight');
  } else {
    t.same(fates.concat(later), ['resolved', 'resolved', 'resolved', 'resolved'], 'the log goes on');
    // What could not be done can be done now.
    if (hit) await WORK[phase](log);
    if (phase === 'cleanup') t.equal(segmentFiles(log.directory).length, 1, 'the files are gone in the end');
  }
  await producer.close();
  await wal.close();
  // Nobody heard whether it was made.
  const cut = phase === 'truncateAfter' ? CUT : undefined;
  if (cut !== undefined && !poisoned) for (const lsn of promised.keys()) if (lsn > cut) promised.delete(lsn);
  await reopened(t, log, poisoned ? cut : undefined);
  return verdictOf(t, hit, failed, poisoned);
}

/** Appends from two threads' worth of rings; what is acknowledged is promised. */
function append({ wal, producer, promised }: Live, payload: string): Promise<string>[] {
  return [wal, producer].map((by) => {
    const acknowledged = by.append(payload).then((lsn) => promised.set(lsn, payload));
    return outcome(acknowledged);
  });
}

function verdictOf(t: Test, hit: boolean, failed: string, poisoned: boolean): Expected {
  if (!hit) {
    t.equal(failed, 'resolved');
    return 'not made';
  }
  if (poisoned) return 'poisons';
  return failed === 'resolved' ? 'goes on' : 'refused';
}

/** Everything promised is there; of what may have been cut off, all or nothing. */
async function reopened(t: Test, { directory, promised }: Live, cut: number | undefined): Promise<void> {
  const wal = await WriteAheadLog.open(directory, OPTIONS);
  const { firstLsn, lastLsn } = wal.recovery;
  const found = await collect(wal.read());
  const there = new Map(found.map((record) => [record.lsn, payloads([record])[0]]));
  const expected = [...promised].filter(
    ([lsn]) => lsn >= firstLsn && (cut === undefined || lastLsn > cut || lsn <= cut),
  );
  const missing = expected.filter(([lsn, payload]) => there.get(lsn) !== payload);
  t.same(missing, [], 'everything promised is there');
  t.equal(await wal.append('goes on'), lastLsn + 1);
  await wal.close();
}

async function judgeOpen(t: Test, call: Call): Promise<Expected> {
  const log = await live(t);
  const { directory, wal, producer } = log;
  await actors.at(-1)?.terminate();
  await producer.close();
  await wal.close();
  inject(CALLS[call], 1);
  const opened = await WriteAheadLog.open(directory, OPTIONS).catch((error) => codeOf(error));
  const hit = Atomics.load(faults, Fault.failures) > 0;
  heal();
  if (opened instanceof WriteAheadLog) await opened.close();
  else t.equal(opened, 'ERR_WAL_FAILED');
  await reopened(t, log, undefined);
  return verdictOf(t, hit, opened instanceof WriteAheadLog ? 'resolved' : opened, false);
}

t.afterEach(heal);

for (const call of Object.keys(CALLS) as Call[]) {
  t.test(`an I/O error of ${call}, in each phase of a live log`, async (t) => {
    for (const phase of Object.keys(MATRIX[call]) as Phase[]) {
      await t.test(phase, async (t) => {
        const found = phase === 'open' ? await judgeOpen(t, call) : await judge(t, call, phase);
        t.equal(found, MATRIX[call][phase]);
      });
    }
  });
}
