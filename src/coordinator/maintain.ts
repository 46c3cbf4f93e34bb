import { markGarbage } from '../compaction/mark.js';
import { CompactionSignals, Pace, Stopped } from '../compaction/pace.js';
import { planRuns } from '../compaction/plan.js';
import { type CompactionKeys, discardTemporary, rewriteRun } from '../compaction/rewrite.js';
import { LogChanged } from '../compaction/source.js';
import { toPlainError, WalError } from '../errors.js';
import { KeyRing } from '../format/key-ring.js';
import { Control } from '../ring/control.js';
import { adoptSpare, isNoSpace, prepareSpare } from '../segments/prepare.js';
import { retireSegments } from '../segments/retire.js';
import type { SegmentInfo } from '../segments/segment-info.js';
import type { Storage } from '../storage/storage.js';
import type {
  CompactionTask,
  GarbageFound,
  MaintenanceTask,
  Swapped,
  TaskEncryption,
  TaskResult,
  Unless,
} from './messages.js';

/** Memory for the keys of one pass over the log. */
const KEY_BYTES = 48 * 1024 * 1024;

/** Slow work on files, whichever thread does it and wherever they lie. */
export function maintain(storage: Storage, task: MaintenanceTask | CompactionTask): TaskResult<unknown> {
  try {
    return { ok: true, value: perform(storage, task) };
  } catch (error) {
    const noSpace = isNoSpace(error) && new WalError('ERR_WAL_NO_SPACE', (error as Error).message, { cause: error });
    return { ok: false, error: toPlainError(noSpace || error) };
  }
}

function perform(storage: Storage, task: MaintenanceTask | CompactionTask): unknown {
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

function findGarbage(storage: Storage, task: Extract<CompactionTask, { op: 'findGarbage' }>): GarbageFound {
  const { segments, checkpoint, whole, segmentBytes, marksName } = task;
  const options = { checkpoint, whole, keyBytes: KEY_BYTES, keys: keysOf(task)?.keys };
  const marked = markGarbage(storage, segments, marksName, options, paceOf(task));
  return {
    runs: planRuns(marked.segments, segmentBytes),
    records: marked.segments.reduce((sum, { records }) => sum + records, 0),
    deletesGone: marked.deletesGone,
  };
}

function rewrite(storage: Storage, task: Extract<CompactionTask, { op: 'rewrite' }>): SegmentInfo {
  return rewriteRun(storage, task.run, task.marksName, task.target, paceOf(task), keysOf(task));
}

function keysOf({ encryption }: { encryption: TaskEncryption | undefined }): CompactionKeys | undefined {
  if (encryption === undefined) return undefined;
  const { logId, keys, current, state } = encryption;
  return { keys: KeyRing.of(keys, logId), current: keys.find(({ id }) => id === current)!, state };
}

function swapIn(storage: Storage, target: string, name: string): Swapped {
  storage.rename(target, name, true);
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
