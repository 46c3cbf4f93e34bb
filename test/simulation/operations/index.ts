import type { Operation } from './operation.js';
import { consume, leave, read } from './reading.js';
import { checkpoint, cleanup, rotate, spare, truncate } from './upkeep.js';
import { append, idle, step, sync, wait } from './writing.js';

/** All that is done to a log while it lives. */
export const OPERATIONS: readonly Operation[] = [
  append,
  step,
  sync,
  idle,
  wait,
  rotate,
  checkpoint,
  cleanup,
  truncate,
  spare,
  read,
  consume,
  leave,
];
