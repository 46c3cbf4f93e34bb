// First of all: whatever starts threads after this starts them on a disk that fails on command.
import './fixtures/faults.js';

import fs from 'node:fs';
import { type CompactionReport, verifyLog, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { Compactor, type CompactorHost } from '../src/coordinator/compactor.js';
import type { ActorRequest, CompactionTask, TaskResult } from '../src/coordinator/messages.js';
import { fromPlainError } from '../src/errors.js';
import { FRAME_HEADER_BYTES } from '../src/format/frame.js';
import { SEGMENT_HEADER_UNIT } from '../src/format/segment-header.js';
import type { LogState } from '../src/format/state.js';
import { inspectLog } from '../src/recovery/recover.js';
import { Control } from '../src/ring/control.js';
import type { SegmentInfo } from '../src/segments/segment-info.js';
import { NodeStorage } from '../src/storage/node-storage.js';
import maintain from '../workers/maintenance.js';
import { del, KeyLog, put } from './compaction-helpers.js';
import { Fault, faults, heal, inject } from './fixtures/faults.js';
import {
  collect,
  failsWith,
  nextEvent,
  numbers,
  openLog,
  segmentFiles,
  snapshot,
  temporaryDirectory,
  text,
} from './helpers.js';

t.afterEach(heal);

const SMALL = { segmentBytes: 65_536, autoCleanup: false };

/** Three sealed segments with garbage in the first two. */
async function makeLog(t: Test, puts = 1): Promise<string> {
  const directory = temporaryDirectory(t);
  const log = await openLog(t, SMALL, directory);
  for (const round of ['1', '2', '3']) {
    await log.batch(numbers(1, puts).map((i) => ({ type: 'put', key: `key ${i}`, value: `value ${round}` })));
    await log.put(`only ${round}`, 'stays');
    if (round === '2') await log.delete('only 1');
    await log.rotate();
  }
  await log.close();
  return directory;
}

async function mapOf(directory: string): Promise<Record<string, string>> {
  const log = await WriteAheadLog.open(directory);
  const map = new Map<string, Uint8Array>();
  await log.recover(map);
  await log.close();
  return Object.fromEntries([...map].sort().map(([key, value]) => [key, text(value)]));
}

/** What a coordinator is to a compactor, over the files of a closed log; `before` may change what a task finds. */
class ClosedLog implements CompactorHost {
  readonly directory: string;
  readonly segmentBytes = SMALL.segmentBytes;
  readonly control = new Control().memory;
  readonly tasks: CompactionTask['op'][] = [];
  readonly reports: CompactionReport[] = [];
  before: (task: CompactionTask) => CompactionTask = (task) => task;
  segments: SegmentInfo[];
  state: LogState;

  constructor(directory: string) {
    this.directory = directory;
    const { segments, state } = inspectLog(new NodeStorage(directory), 'strict');
    this.segments = segments;
    this.state = state;
  }

  async encryption() {
    return undefined;
  }

  async request<T>(request: ActorRequest): Promise<T> {
    return this.#answer(request) as T;
  }

  #answer(request: ActorRequest): unknown {
    switch (request.op) {
      case 'sealed':
        return { segments: [...this.segments], state: this.state };
      case 'noteCompaction':
        return { ...this.state, compacted: request.compacted };
      case 'replaceSealed': {
        const at = this.segments.findIndex(({ id }) => id === request.ids[0]);
        return this.segments.splice(at, request.ids.length, request.info);
      }
      default:
        throw new Error(`A compactor does not ask for ${request.op}.`);
    }
  }

  async run<T>(task: CompactionTask): Promise<T> {
    this.tasks.push(task.op);
    const result = maintain(this.before(task)) as TaskResult<T>;
    if (result.ok) return result.value;
    throw fromPlainError(result.error);
  }

  exclusively<T>(work: () => Promise<T>): Promise<T> {
    return work();
  }

  setState(state: LogState): void {
    this.state = state;
  }

  done(report: CompactionReport): void {
    this.reports.push(report);
  }

  async retire(names: string[]): Promise<void> {
    for (const name of names) fs.unlinkSync(`${this.directory}/${name}`);
  }
}

function leftOver(directory: string): string[] {
  return fs.readdirSync(directory).filter((name) => name.startsWith('compacting-'));
}

t.test('a log that changes under every attempt is let be in the end, as it was', async (t) => {
  const directory = await makeLog(t);
  const files = snapshot(directory);
  for (const op of ['findGarbage', 'rewrite'] as const) {
    const host = new ClosedLog(directory);
    host.before = (task) => {
      if (task.op !== op) return task;
      // Before the swap: the newest segment has become another. In a thread: it finds one that it was not told of.
      const change = (info: SegmentInfo) => ({ ...info, headerCrc: info.headerCrc ^ 1 });
      if (task.op === 'findGarbage') return { ...task, segments: task.segments.map(change) };
      host.segments = [...host.segments.slice(0, -1), change(host.segments[host.segments.length - 1])];
      return task;
    };
    const report = await new Compactor(host).compact();
    t.equal(report.removed, 0, op);
    const tries = host.tasks.filter((task) => task === 'findGarbage').length;
    t.ok(tries > 1 && tries <= 10, `${tries} attempts`);
    t.notOk(host.tasks.includes('swapIn'), 'nothing was put in the place of anything');
    t.same(snapshot(directory), files);
  }
});

t.test('a log that changed under one attempt is compacted by the next', async (t) => {
  const directory = await makeLog(t);
  const map = await mapOf(directory);
  const host = new ClosedLog(directory);
  let changed = false;
  host.before = (task) => {
    if (task.op !== 'rewrite' || changed) return task;
    changed = true;
    const run = task.run.map(({ info, ...rest }) => ({ ...rest, info: { ...info, headerCrc: info.headerCrc ^ 1 } }));
    return { ...task, run };
  };
  const report = await new Compactor(host).compact();
  t.equal(report.removed, 4, 'two values, a value and its delete');
  t.same(host.reports, [report]);
  t.same(leftOver(directory), []);
  t.same(await mapOf(directory), map);
  t.match(await verifyLog(directory), { verdict: 'clean' });
});

t.test('a first checkpoint that comes while a log forgets its deletes: the deletes above it stay', async (t) => {
  const directory = await makeLog(t);
  const host = new ClosedLog(directory);
  host.before = (task) => {
    if (task.op === 'rewrite') host.state = { ...host.state, checkpoint: 1 };
    return task;
  };
  await new Compactor(host).compact();
  const log = await openLog(t, { readOnly: true }, directory);
  const kinds = (await collect(log.read())).map(({ kind, key }) => `${kind} ${text(key)}`);
  t.ok(kinds.includes('del only 1'), 'a state outside that is at LSN 1 still needs it');
  await log.close();
});

t.test(
  'a compaction that is told to stop in the middle of the log stops there, and leaves the log as it was',
  async (t) => {
    const directory = await makeLog(t, 20_000);
    const files = snapshot(directory);
    for (const op of ['findGarbage', 'rewrite'] as const) {
      for (const how of ['signal', 'close'] as const) {
        const host = new ClosedLog(directory);
        const compactor = new Compactor(host);
        const controller = new AbortController();
        let closing: Promise<void> | undefined;
        // The task has begun: what it is told from here on it finds out by itself.
        host.before = (task) => {
          if (task.op !== op) return task;
          if (how === 'signal') controller.abort(new Error('enough'));
          else closing = compactor.close();
          return task;
        };
        const compacting = compactor.compact({ signal: controller.signal });
        await t.rejects(
          compacting,
          how === 'signal' ? { message: 'enough' } : { code: 'ERR_WAL_CLOSED' },
          `${op} ${how}`,
        );
        await closing;
        t.equal(host.tasks.filter((task) => task !== 'discard').at(-1), op, 'nothing came behind it');
        t.same(host.reports, []);
        t.same(snapshot(directory), files);
      }
    }
  },
);

t.test('compactions that wait when the log is closed are told so, and leave nothing behind', async (t) => {
  const directory = await makeLog(t, 20_000);
  const map = await mapOf(directory);
  const log = await openLog(t, SMALL, directory);
  const fates = [log.compact(), log.compact(), log.compact()].map((compaction) =>
    compaction.then(
      () => 'done',
      ({ code }) => code,
    ),
  );
  await log.close();
  const [, ...waiting] = await Promise.all(fates);
  t.same(waiting, ['ERR_WAL_CLOSED', 'ERR_WAL_CLOSED']);
  t.same(leftOver(directory), []);
  t.same(await mapOf(directory), map);
});

t.test('a compaction by itself and one that was asked for at the same moment are one', async (t) => {
  const directory = await makeLog(t, 100);
  const log = await openLog(t, { ...SMALL, autoCompact: 0.01 }, directory);
  let compactions = 0;
  log.on('compact', () => compactions++);
  await log.put('key 1', 'new');
  const asked = new Promise<CompactionReport>((resolve) => {
    log.once('rotate', () => resolve(log.compact()));
  });
  await log.rotate();
  t.ok((await asked).removed > 0);
  await log.close();
  t.equal(compactions, 1);
});

t.test(
  'a directory that cannot be synced when a segment takes its place: ERR_WAL_FAILED, and either segment is the log',
  async (t) => {
    const directory = await makeLog(t);
    const map = await mapOf(directory);
    const log = await openLog(t, SMALL, directory);
    // Its segment is there before the directory fails.
    await log.put('later', '1');
    await log.sync();
    inject(Fault.folderSync, 1);
    const error = await failsWith(t, 'ERR_WAL_FAILED', log.compact());
    t.match(error, { message: /durable is not known/, cause: { code: 'ERR_WAL_FAILED' } });
    t.equal(Atomics.load(faults, Fault.failures), 1, 'of the one sync that there was');
    heal();
    t.same(leftOver(directory), []);
    await log.put('after it', '1');
    const records = await collect(log.read());
    t.ok(records.some(({ key }) => text(key) === 'only 3'));
    await log.close();
    t.same(await mapOf(directory), { ...map, later: '1', 'after it': '1' });
    t.match(await verifyLog(directory), { verdict: 'clean' });
    t.ok(segmentFiles(directory).length > 0);
  },
);

t.test('what compaction wrote and cannot read back does not take the place of anything', async (t) => {
  const log = new KeyLog();
  log.write(put('a', '1'), put('b', '1'));
  log.sequencer.rotate();
  log.write(put('a', '2'), del('c'));
  log.sequencer.rotate();
  const before = log.disk.list().filter((name) => name.endsWith('.wal'));
  const open = log.disk.open.bind(log.disk);
  log.disk.open = (name, mode) => {
    // It is written by now, and about to be read once more.
    if (name.startsWith('compacting-') && mode === 'read' && withFrames(name))
      log.disk.flip(name, SEGMENT_HEADER_UNIT + FRAME_HEADER_BYTES + 1, 3);
    return open(name, mode);
  };
  const withFrames = (name: string) => {
    const file = open(name, 'read');
    const large = file.size() > SEGMENT_HEADER_UNIT;
    file.close();
    return large;
  };
  t.throws(() => log.compact(), { code: 'ERR_WAL_CORRUPT', message: /does not read back/ });
  log.disk.open = open;
  t.same(
    log.disk.list().filter((name) => name.endsWith('.wal')),
    before,
  );
  t.equal((await log.records()).length, 4);
});

t.test('events go to listeners that were added by any name, and to none that was removed', async (t) => {
  const log = await openLog(t, SMALL);
  const told: string[] = [];
  log.addListener('commit:disk', ({ lsn }) => {
    told.push(`first ${lsn}`);
  });
  log.on('commit:disk', () => {
    throw 'not an error';
  });
  const warning = new Promise<Error>((resolve) => process.once('warning', resolve));
  const event = nextEvent(log, 'commit:disk');
  await log.append('1');
  await event;
  t.match(await warning, { message: 'not an error' }, 'what nobody listens to is not silent');
  log.removeAllListeners('commit:disk');
  await log.append('2');
  await log.sync();
  t.same(told, ['first 1']);
});

t.test('a compaction that begins while the log looks whether it needs one is not followed by another', async (t) => {
  const host = new ClosedLog(await makeLog(t));
  const compactor = new Compactor(host);
  const own = compactor.compactIfWorthIt(0.1);
  const { removed } = await compactor.compact();
  await own;
  t.ok(removed > 0);
  t.equal(host.reports.length, 1);
});

t.test('a compaction that is told to stop between two of its tasks begins no other', async (t) => {
  const directory = await makeLog(t);
  const files = snapshot(directory);
  const host = new ClosedLog(directory);
  const compactor = new Compactor(host);
  let closed: Promise<void> | undefined;
  host.encryption = async () => {
    closed = compactor.close();
    return undefined;
  };
  await failsWith(t, 'ERR_WAL_CLOSED', compactor.compact());
  await closed;
  t.same(host.tasks, ['discard'], 'but for what tidies up');
  t.same(snapshot(directory), files);
});

t.test('a compaction that is told to stop when a segment is rewritten puts it in the place of nothing', async (t) => {
  const directory = await makeLog(t);
  const files = snapshot(directory);
  const host = new ClosedLog(directory);
  const compactor = new Compactor(host);
  const run = host.run.bind(host);
  let closed: Promise<void> | undefined;
  host.run = async <T>(task: CompactionTask): Promise<T> => {
    const value = await run<T>(task);
    if (task.op === 'rewrite') closed = compactor.close();
    return value;
  };
  await failsWith(t, 'ERR_WAL_CLOSED', compactor.compact());
  await closed;
  t.same(host.tasks, ['findGarbage', 'rewrite', 'discard', 'discard']);
  t.same(snapshot(directory), files, 'and what it wrote is gone');
});
