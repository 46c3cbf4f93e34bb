import { markGarbage } from '../src/compaction/mark.js';
import { CompactionSignals, Pace, Stopped } from '../src/compaction/pace.js';
import { planRuns } from '../src/compaction/plan.js';
import { type CompactionKeys, discardTemporary, rewriteRun } from '../src/compaction/rewrite.js';
import { LogChanged } from '../src/compaction/source.js';
import type {
  CompactionTask,
  GarbageFound,
  MaintenanceTask,
  Swapped,
  TaskEncryption,
  TaskResult,
  Unless,
} from '../src/coordinator/messages.js';
import { toPlainError, WalError } from '../src/errors.js';
import { KeyRing } from '../src/format/key-ring.js';
import { Control } from '../src/ring/control.js';
import { adoptSpare, isNoSpace, prepareSpare } from '../src/segments/prepare.js';
import { retireSegments } from '../src/segments/retire.js';
import type { SegmentInfo } from '../src/segments/segment-info.js';
import { NodeStorage } from '../src/storage/node-storage.js';

/** Memory for the keys of one pass over the log. */
const KEY_BYTES = 48 * 1024 * 1024;

/** The pool's other task: slow work on files, kept off both the write path and the caller's thread. */
export default function maintain(task: MaintenanceTask | CompactionTask): TaskResult<unknown> {
  const storage = new NodeStorage(task.directory);
  try {
    return { ok: true, value: perform(storage, task) };
  } catch (error) {
    const noSpace = isNoSpace(error) && new WalError('ERR_WAL_NO_SPACE', (error as Error).message, { cause: error });
    return { ok: false, error: toPlainError(noSpace || error) };
  }
}

function perform(storage: NodeStorage, task: MaintenanceTask | CompactionTask): unknown {
  switch (task.op) {
    case 'prepare':
      return prepareSpare(storage, task.bytes);
    case 'adopt':
      return adoptSpare(storage, task.spares, task.unfinished, task.segmentBytes);
    case 'retire':
      return retireSegments(storage, task.names, task.recycle, task.segmentBytes);
    case 'findGarbage':
      return unless(() => findGarbage(storage, task));
    case 'rewrite':
      return unless(() => rewrite(storage, task));
    case 'swapIn':
      return swapIn(storage, task.target, task.name);
    case 'discard':
      return discardTemporary(storage, task.names);
  }
}

function findGarbage(storage: NodeStorage, task: Extract<CompactionTask, { op: 'findGarbage' }>): GarbageFound {
  const { segments, checkpoint, whole, segmentBytes, marksName } = task;
  const options = { checkpoint, whole, keyBytes: KEY_BYTES, keys: keysOf(task)?.keys };
  const marked = markGarbage(storage, segments, marksName, options, paceOf(task));
  return {
    runs: planRuns(marked.segments, segmentBytes),
    records: marked.segments.reduce((sum, { records }) => sum + records, 0),
    deletesGone: marked.deletesGone,
  };
}

function rewrite(storage: NodeStorage, task: Extract<CompactionTask, { op: 'rewrite' }>): SegmentInfo {
  return rewriteRun(storage, task.run, task.marksName, task.target, paceOf(task), keysOf(task));
}

function keysOf({ encryption }: { encryption: TaskEncryption | undefined }): CompactionKeys | undefined {
  if (encryption === undefined) return undefined;
  const { logId, keys, current, state } = encryption;
  return { keys: KeyRing.of(keys, logId), current: keys.find(({ id }) => id === current)!, state };
}

function swapIn(storage: NodeStorage, target: string, name: string): Swapped {
  storage.rename(target, name);
  try {
    storage.syncFolder();
    return {};
  } catch (error) {
    return { unsynced: toPlainError(error) };
  }
}

function paceOf({ signals, control }: { signals: SharedArrayBuffer; control: SharedArrayBuffer }): Pace {
  return new Pace(new CompactionSignals(signals), new Control(control));
}

function unless<T>(work: () => T): Unless<T> {
  try {
    return { value: work() };
  } catch (error) {
    if (error instanceof Stopped) return { unless: 'stopped' };
    if (error instanceof LogChanged) return { unless: 'changed' };
    throw error;
  }
}
