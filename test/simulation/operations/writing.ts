import { Level } from '../../../src/format/levels.js';
import { FLUSH_MS, type Life } from '../life.js';
import type { RingProducer } from '../ring-producer.js';
import type { Operation } from './operation.js';

/** One frame: up to three appends of one record or of several that are atomic, at any level. */
export function publish(life: Life, producer: RingProducer): void {
  const { random } = life;
  const ids: number[] = [];
  const appends: number[] = [];
  for (let i = random.between(1, 3); i > 0; i--) {
    appends.push(ids.length);
    for (let records = random.oneIn(3) ? random.between(2, 6) : 1; records > 0; records--) ids.push(life.newId());
  }
  // One that waits for less keeps all of its group from being written through.
  const mixed = !life.disk.writesThrough || random.oneIn(12);
  const level = mixed ? random.pick([Level.Memory, Level.Os, Level.Disk]) : Level.Disk;
  if (producer.publish(ids, appends, level, random.oneIn(2), life.keys.encoding()) === undefined) life.step();
}

export const append: Operation = {
  name: 'append',
  weight: 14,
  perform(life) {
    const { random } = life;
    for (let frames = random.between(1, 5); frames > 0; frames--) publish(life, random.pick(life.producers));
    if (random.oneIn(2)) life.step();
  },
};

export const step: Operation = {
  name: 'step',
  weight: 8,
  perform(life) {
    while (life.step() && !life.down && !life.random.oneIn(4));
  },
};

export const sync: Operation = { name: 'sync', weight: 3, perform: (life) => life.sequencer.sync() };
export const idle: Operation = { name: 'idle', weight: 2, perform: (life) => life.sequencer.idle() };

export const wait: Operation = {
  name: 'wait',
  weight: 2,
  perform(life) {
    life.clock += life.random.between(1, 2 * FLUSH_MS);
    life.step();
  },
};
