import type { Life } from '../life.js';
import type { Meanwhile } from '../transactions.js';
import type { Operation } from './operation.js';

/** Now and then one of `others` is done to the log while something longer is under way. */
export function nowAndThen(others: () => readonly Operation[], oneIn: number): Meanwhile {
  return async (life: Life) => {
    if (life.down || !life.random.oneIn(oneIn)) return;
    const { doing } = life;
    // What was written since, others may read.
    life.collect();
    const operation = life.random.pick(others());
    life.trace?.(`    meanwhile ${operation.name}`);
    life.doing = operation.name;
    await operation.perform(life);
    life.collect();
    life.doing = doing;
  };
}
