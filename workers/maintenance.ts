import type { MaintenanceTask, TaskResult } from '../src/coordinator/messages.js';
import { toPlainError, WalError } from '../src/errors.js';
import { adoptSpare, isNoSpace, prepareSpare } from '../src/segments/prepare.js';
import { retireSegments } from '../src/segments/retire.js';
import { NodeStorage } from '../src/storage/node-storage.js';

/** The pool's other task: slow work on files, kept off both the write path and the caller's thread. */
export default function maintain(task: MaintenanceTask): TaskResult<unknown> {
  const storage = new NodeStorage(task.directory);
  try {
    if (task.op === 'prepare') return { ok: true, value: prepareSpare(storage, task.bytes) };
    if (task.op === 'adopt')
      return { ok: true, value: adoptSpare(storage, task.spares, task.unfinished, task.segmentBytes) };
    return { ok: true, value: retireSegments(storage, task.names, task.recycle, task.segmentBytes) };
  } catch (error) {
    const noSpace = isNoSpace(error) && new WalError('ERR_WAL_NO_SPACE', (error as Error).message, { cause: error });
    return { ok: false, error: toPlainError(noSpace || error) };
  }
}
