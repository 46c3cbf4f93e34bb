import { maintain } from '../src/coordinator/maintain.js';
import type { CompactionTask, MaintenanceTask, TaskResult } from '../src/coordinator/messages.js';
import { NodeStorage } from '../src/storage/node-storage.js';

/** The pool's other task: slow work on files, kept off both the write path and the caller's thread. */
export default function run(task: MaintenanceTask | CompactionTask): TaskResult<unknown> {
  return maintain(new NodeStorage(task.directory), task);
}
