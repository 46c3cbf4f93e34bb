import { Level } from '../../../src/format/levels.js';
import { judgeContents } from '../contents.js';
import type { Operation } from './operation.js';

/** Somebody reads all of the log, and replays it, while it is open. */
export const replay: Operation = {
  name: 'replay',
  weight: 1,
  async perform(life) {
    await judgeContents(life, life.sequencer.state, life.watermark(Level.Os));
  },
};
