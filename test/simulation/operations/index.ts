import { compact } from './compact.js';
import { decide } from './decide.js';
import type { Operation } from './operation.js';
import { consume, leave } from './reading.js';
import { replay } from './replay.js';
import { rotateKey } from './rotate-key.js';
import { transact } from './transact.js';
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
  consume,
  leave,
  transact,
  decide,
  compact,
  replay,
  rotateKey,
];
