import { Level } from '../../../src/format/levels.js';
import { compact as compactLog } from '../compaction.js';
import { judgeContents } from '../contents.js';
import { nowAndThen } from './meanwhile.js';
import type { Operation } from './operation.js';
import { consume } from './reading.js';
import { checkpoint, cleanup, rotate, truncate } from './upkeep.js';
import { append } from './writing.js';

const meanwhile = nowAndThen(() => [append, append, rotate, checkpoint, cleanup, truncate, consume], 4);

/** The sealed segments are rewritten without what no replay needs; others use the log while that goes on. */
export const compact: Operation = {
  name: 'compact',
  weight: 2,
  async perform(life) {
    await compactLog(life, meanwhile);
    // A record that it took out is known to be gone from here on.
    life.collect();
    await judgeContents(life, life.sequencer.state, life.watermark(Level.Os));
  },
};
