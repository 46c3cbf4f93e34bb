import { isDeepStrictEqual } from 'node:util';
import { WalError } from '../../src/errors.js';
import { FrameType } from '../../src/format/frame.js';
import { inspectLog } from '../../src/recovery/recover.js';
import type { Life } from './life.js';
import { hold } from './model.js';
import { framesOf, readAll } from './reading.js';

const CHANGES_STATE: ReadonlySet<number> = new Set([FrameType.State, FrameType.Positions, FrameType.Transaction]);

/** Flips one bit of a segment, looks whether anybody notices, and flips it back. */
export async function lookForFlippedBit({ disk, keys, model, random, trace }: Life): Promise<void> {
  const found = inspectLog(disk, 'tolerate-torn-tail');
  if (found.segments.length === 0) return;
  const last = found.segments[found.segments.length - 1];
  const { name } = random.oneIn(2) ? last : random.pick(found.segments);
  const frames = framesOf(disk, last.name);
  const position = random.below(framesOf(disk, name).end);
  const bit = random.below(8);
  trace?.(`    flip bit ${bit} of byte ${position} of ${name}`);
  disk.flip(name, position, bit);
  try {
    const damaged = inspectLog(disk, 'tolerate-torn-tail');
    const end = damaged.end.lastLsn;
    const proven = Math.max(frames.vouchedLsn, frames.stamp, last.firstLsn - 1);
    hold(end >= proven, 'Loud', () => `a flipped bit cut the log at ${end}, and ${proven} had been promised`);
    const unvouched = frames.unvouchedTypes.some((type) => CHANGES_STATE.has(type));
    const same = isDeepStrictEqual(damaged.state, found.state);
    hold(same || unvouched, 'Loud', () => 'a flipped bit changed the state');
    const { low } = damaged.state;
    if (end >= low) model.checkRecords(await readAll(disk, low, end, undefined, keys.ring), low, end);
  } catch (error) {
    if (!(error instanceof WalError) || error.code !== 'ERR_WAL_CORRUPT') throw error;
  } finally {
    disk.flip(name, position, bit);
  }
}
