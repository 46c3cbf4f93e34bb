import { checkCut, checkFirstCheckpoint } from '../../../src/coordinator/compaction-limits.js';
import type { WalError } from '../../../src/errors.js';
import { Level } from '../../../src/format/levels.js';
import { clampedTo, withCheckpoint } from '../../../src/format/state.js';
import { adoptSpare, prepareSpare, type Spare } from '../../../src/segments/prepare.js';
import type { Life } from '../life.js';
import { hold } from '../model.js';
import type { Operation } from './operation.js';

export const rotate: Operation = { name: 'rotate', weight: 2, perform: (life) => life.sequencer.rotate() };

export const checkpoint: Operation = {
  name: 'checkpoint',
  weight: 3,
  perform(life) {
    const lsn = life.random.between(0, life.watermark(Level.Disk));
    if (!isAllowed(() => checkFirstCheckpoint(life.sequencer.state, lsn))) return;
    life.changeState((state) => withCheckpoint(state, lsn));
  },
};

export const cleanup: Operation = {
  name: 'cleanup',
  weight: 3,
  perform(life) {
    const { model, sequencer } = life;
    const limit = Math.min(model.keepFrom(sequencer.state), model.neededByTransactions(sequencer.state));
    const before = new Set(life.disk.fileNames());
    model.cleaning = true;
    const gone = sequencer.cleanup();
    model.cleaning = false;
    if (gone.length > 0) model.changed(sequencer.state, true);
    for (const { lastLsn, name } of gone) {
      hold(lastLsn < limit, 'Durable', () => `${name} up to LSN ${lastLsn} was cleaned up above ${limit}`);
      hold(before.has(name), 'Prefix', () => `${name} was cleaned up twice`);
    }
    life.obsolete.push(...gone.map((segment) => segment.name));
    life.retire();
  },
};

/** The log is cut off in the middle, above all that anybody was told to be rid of. */
export const truncate: Operation = {
  name: 'truncate',
  weight: 1,
  async perform(life) {
    const { model, sequencer } = life;
    const { state } = sequencer;
    const least = Math.max(state.checkpoint, state.low - 1);
    sequencer.sync();
    life.collect();
    const { last } = model;
    if (last <= least) return;
    const end = life.random.between(least, last);
    life.trace?.(`    after ${end} of ${last}`);
    if (end === last || !isAllowed(() => checkCut(sequencer.state, end))) return;
    await life.consumers.cutAfter(end);
    model.attemptedEnd = end;
    model.attempted = [clampedTo(sequencer.state, end)];
    const names = sequencer.truncateAfter(end).map((segment) => segment.name);
    model.recovered(end, sequencer.state);
    model.cuts++;
    life.obsolete.push(...names);
    await life.consumers.refresh();
  },
};

/** Whether the opening thread lets it through: a compaction asks something of the log. */
function isAllowed(check: () => void): boolean {
  try {
    check();
    return true;
  } catch (error) {
    if ((error as WalError).code === 'ERR_WAL_INVALID_ARGUMENT') return false;
    throw error;
  }
}

/** The answer to a wish for a spare. */
export const spare: Operation = {
  name: 'spare',
  weight: 3,
  perform(life) {
    if (!life.spareWanted) return;
    life.spareWanted = false;
    provideSpare(life);
  },
};

function provideSpare(life: Life): void {
  const { disk, segmentBytes } = life;
  let made: Spare | undefined;
  try {
    const { spares, unfinished } = life.left;
    life.left = { spares: [], unfinished: [] };
    made = adoptSpare(disk, spares, unfinished, segmentBytes);
    made ??= prepareSpare(disk, segmentBytes);
  } finally {
    if (!disk.crashed) life.sequencer.addSpare(made);
  }
}
