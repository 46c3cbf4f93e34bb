// First of all: whatever starts threads after this starts them on a disk that fails on command.
import './fixtures/faults.js';

import { connect, type Producer, WalError, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { actors, Fault, faults, heal, inject } from './fixtures/faults.js';
import { collect, numbers, payloads, temporaryDirectory } from './helpers.js';

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
  fdatasync: row('not made'),
  write: row('not made'),
  open: row('not made'),
  rename: row('not made'),
  ftruncate: row('not made'),
  unlink: row('not made'),
  'fsync of the directory': row('not made'),
};

function row(all: Expected, others: Partial<Record<Phase, Expected>> = {}): Record<Phase, Expected> {
  const phases: Phase[] = ['append', 'rotation', 'checkpoint', 'cleanup', 'truncateAfter', 'close', 'open'];
  return { ...(Object.fromEntries(phases.map((phase) => [phase, all])) as Record<Phase, Expected>), ...others };
}

const OPTIONS = { segmentBytes: 65536, flushIntervalMs: 0, autoCleanup: false };
/** Of records in two segments; the first of them is sealed. */
const BEFORE = 20;

interface Live {
  directory: string;
  wal: WriteAheadLog;
  producer: Producer;
  /** What the log must begin with. */
  promised: string[];
}

async function live(t: Test): Promise<Live> {
  const directory = temporaryDirectory(t);
  const wal = await WriteAheadLog.open(directory, OPTIONS);
  t.teardown(() => wal.close().catch(() => {}));
  wal.on('error', () => {});
  const producer = await connect(wal.producer());
  const promised: string[] = [];
  for (const i of numbers(1, BEFORE)) {
    const payload = `${i} ${'x'.repeat(i * 50)}`;
    promised.push(payload);
    await (i % 2 === 0 ? wal : producer).append(payload, { durability: i % 3 === 0 ? 'os' : 'disk' });
    if (i === BEFORE / 2) await wal.rotate();
  }
  return { directory, wal, producer, promised };
}

const codeOf = (error: unknown) => (error instanceof WalError ? error.code : String(error));
const outcome = (work: Promise<unknown>) => work.then(() => 'resolved', codeOf);

async function follow(wal: WriteAheadLog): Promise<void> {
  for await (const { lsn } of wal.read({ follow: true })) if (lsn > 1_000_000) return;
}

/** What the phase does when the disk works. */
const WORK: Record<Exclude<Phase, 'open'>, (log: Live) => Promise<unknown>> = {
  append: ({ wal }) => wal.append('appended'),
  rotation: ({ wal }) => wal.rotate(),
  checkpoint: ({ wal }) => wal.checkpoint(BEFORE / 2),
  cleanup: ({ wal }) => wal.cleanup(),
  truncateAfter: ({ wal }) => wal.truncateAfter(BEFORE - 5),
  close: ({ wal }) => wal.close(),
};

async function judge(t: Test, call: Call, phase: Exclude<Phase, 'open'>): Promise<Expected> {
  const log = await live(t);
  const { directory, wal, producer, promised } = log;
  if (phase === 'cleanup') await wal.checkpoint(BEFORE / 2);
  const waiters = [outcome(wal.waitFor(1_000_000, 'disk')), outcome(follow(wal))];
  const durable = wal.watermark('disk');
  inject(CALLS[call], 1);
  const done = outcome(WORK[phase](log));
  const failed = await done;
  const hit = Atomics.load(faults, Fault.failures) > 0;
  const seen = wal.watermark('disk');
  const [here, there] = phase === 'close' ? [failed, failed] : await Promise.all([outcome(wal.append('a')), outcome(producer.append('b'))]);
  heal();
  if (here === 'ERR_WAL_FAILED') {
    t.equal(there, 'ERR_WAL_FAILED', 'from a producer too');
    t.match(failed, phase === 'append' ? 'ERR_WAL_INDETERMINATE' : 'ERR_WAL_FAILED');
    t.equal(wal.watermark('disk'), seen);
    t.same(await Promise.all(waiters), phase === 'close' ? waiters : ['ERR_WAL_FAILED', 'ERR_WAL_FAILED'], 'waiters wake');
  }
  void durable; void promised; void directory;
  console.log(call, '|', phase, '|', hit, failed, here, there);
  return 'not made';
}

async function judgeOpen(t: Test, call: Call): Promise<Expected> {
  const { directory, wal, producer, promised } = await live(t);
  await actors.at(-1)?.terminate();
  await producer.close();
  await wal.close();
  inject(CALLS[call], 1);
  const opened = await WriteAheadLog.open(directory, OPTIONS).catch((error) => error as WalError);
  const hit = Atomics.load(faults, Fault.failures) > 0;
  heal();
  console.log(call, '| open |', hit, codeOf(opened));
  if (opened instanceof WriteAheadLog) await opened.close();
  void promised;
  return 'not made';
}

t.afterEach(heal);

for (const call of Object.keys(CALLS) as Call[]) {
  t.test(`an I/O error of ${call}`, async (t) => {
    for (const phase of Object.keys(MATRIX[call]) as Phase[]) {
      const found = phase === 'open' ? await judgeOpen(t, call) : await judge(t, call, phase);
      t.equal(found, MATRIX[call][phase], phase);
    }
  });
}
void payloads; void collect;
