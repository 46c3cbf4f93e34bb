import { CONSUMER_NAMES } from '../consumers.js';
import type { Operation } from './operation.js';

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
