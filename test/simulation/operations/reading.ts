import { Level } from '../../../src/format/levels.js';
import { CONSUMER_NAMES } from '../consumers.js';
import { readAll } from '../reading.js';
import type { Operation } from './operation.js';

export const read: Operation = {
  name: 'read',
  weight: 1,
  async perform(life) {
    const { disk, model, sequencer } = life;
    const to = life.watermark(Level.Os);
    const { low } = sequencer.state;
    if (to >= low) model.checkRecords(await readAll(disk, low, to), low, to);
  },
};

/** A consumer is given some records and acknowledges some. Whatever it did not, it is given again. */
export const consume: Operation = {
  name: 'consume',
  weight: 4,
  async perform({ consumers, random }) {
    const name = random.pick(CONSUMER_NAMES);
    await consumers.open(name);
    await consumers.take(name, random.between(0, 25));
    if (!random.oneIn(3)) await consumers.acknowledge(name);
  },
};

export const leave: Operation = {
  name: 'leave',
  weight: 1,
  async perform({ consumers, random }) {
    const name = random.pick(CONSUMER_NAMES);
    if (random.oneIn(3)) await consumers.forget(name);
    else await consumers.leave(name);
  },
};
