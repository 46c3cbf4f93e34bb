import { type Work, workOf } from '../../src/cli/bench/contenders.js';
import type { ContenderName } from './contenders.js';
import { ROCKSDB } from './native.js';
import type { ThreadLoad } from './task.js';

export type Runner = ContenderName | typeof ROCKSDB;

/** One line of the comparison: a kind of work, and who takes part. */
export interface Event {
  name: string;
  work: Work;
  runners: Runner[];
  threads?: ThreadLoad[];
}

const PEERS: Runner[] = ['ringwal', 'raw', 'lmdb', 'lmdb-sync', 'level-put', 'level-batch', 'sqlite', ROCKSDB];
/** Those that can put many records into one atomic write. */
const BATCHING: Runner[] = ['ringwal', 'raw', 'lmdb', 'lmdb-sync', 'level-batch', 'sqlite', ROCKSDB];
/** Those that several threads of a process can write to at once. */
const THREADED: Runner[] = ['ringwal', 'raw', 'lmdb', 'lmdb-sync', 'level-batch', 'sqlite'];
const AT_OS: Runner[] = ['ringwal', 'raw', 'lmdb', 'level-batch', 'sqlite', ROCKSDB];

const event = (work: Work, runners: Runner[]): Event => ({ name: work.name, work, runners });

export function threadEvent(count: number): Event {
  const threads = new Array<ThreadLoad>(count).fill({ level: 'disk', inFlight: 1000 });
  const work = workOf(1000, 100, 'disk');
  return {
    name: `${count} ${count === 1 ? 'thread' : 'threads'}, each ${work.name}`,
    work,
    runners: THREADED,
    threads,
  };
}

/** The same on a log that is cleaned up as it goes. */
function checkpointed(work: Work): Work {
  return { ...work, name: `${work.name}, checkpoints`, checkpoints: true };
}

/** `os` commits alone, and beside a thread that commits at `disk` all the time. The bare hand-over has a file and an I/O thread for each. */
const OS_ALONE: ThreadLoad[] = [{ level: 'os', inFlight: 1 }];
export const ISOLATION: [alone: Event, beside: Event] = [
  { name: 'os alone', work: workOf(1, 100, 'os'), runners: ['ringwal', 'hand-over'], threads: OS_ALONE },
  {
    name: 'os beside disk',
    work: workOf(1, 100, 'os'),
    runners: ['ringwal', 'hand-over'],
    threads: [...OS_ALONE, { level: 'disk', inFlight: 64 }],
  },
];

export const EVENTS: Event[] = [
  // 10,000 of 64 KiB would be 640 MiB of payload that waits: that is a test of memory, and left out.
  ...[1, 64, 1000, 10_000].map((inFlight) =>
    event(
      workOf(inFlight, 100, 'disk'),
      inFlight === 1 ? PEERS : [...PEERS, 'hand-over', 'hand-over-again', 'promises'],
    ),
  ),
  event(checkpointed(workOf(1000, 100, 'disk')), ['ringwal', 'raw', 'raw-again']),
  ...[1, 64, 1000, 10_000].map((inFlight) => event(workOf(inFlight, 1024, 'disk'), PEERS)),
  ...[1, 16, 64, 1000].map((inFlight) => event(workOf(inFlight, 65_536, 'disk'), PEERS)),
  event(workOf(4, 100, 'disk', 1000), BATCHING),
  ...[1, 64, 1000].map((inFlight) => event(workOf(inFlight, 100, 'os'), AT_OS)),
  ...[64, 1000].map((inFlight) => event(workOf(inFlight, 100, 'mixed'), ['ringwal', 'raw'])),
  ...[1, 2, 4].map(threadEvent),
  ...ISOLATION,
];
