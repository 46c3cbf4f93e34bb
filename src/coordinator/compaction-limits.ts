import { invalidArgument } from '../errors.js';
import type { LogState } from '../format/state.js';

/** What compaction replaced by a record above the cut would be missing below it. */
export function checkCut({ compacted = 0 }: LogState, lsn: number): void {
  if (lsn >= compacted) return;
  throw invalidArgument(
    `LSN ${lsn} is behind LSN ${compacted}, up to which the log was compacted: it can be cut no further back.`,
  );
}

/** A state outside that is older than a delete that compaction took out would keep what it deleted. */
export function checkFirstCheckpoint({ checkpoint, deletesGone = 0 }: LogState, lsn: number): void {
  if (checkpoint > 0 || lsn === 0 || lsn >= deletesGone) return;
  throw invalidArgument(
    `The first checkpoint of this log must be at LSN ${deletesGone} or above, not at LSN ${lsn}: compaction took out ` +
      'deletes up to there, which a state of that time still needs.',
  );
}
