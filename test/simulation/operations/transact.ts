import type { WalError } from '../../../src/errors.js';
import { judgeInDoubt } from '../contents.js';
import type { Life } from '../life.js';
import { hold } from '../model.js';
import { nowAndThen } from './meanwhile.js';
import type { Operation } from './operation.js';
import { checkpoint, cleanup, rotate, truncate } from './upkeep.js';
import { append, sync } from './writing.js';

const meanwhile = nowAndThen(() => [append, append, append, sync, rotate, checkpoint, cleanup, truncate], 3);

/**
 * A transaction: in one frame or many, committed, or prepared first; some are given up, some left in doubt. Others use the
 * log between its parts.
 */
export const transact: Operation = {
  name: 'transact',
  weight: 4,
  async perform(life) {
    const { cuts } = life.model;
    try {
      await perform(life);
    } catch (error) {
      // One whose parts are being written when the log is cut has to begin anew.
      if ((error as WalError).code !== 'ERR_WAL_TRANSACTION' || life.model.cuts === cuts) throw error;
    }
  },
  async judge(life, { state, end: { lastLsn } }) {
    const known = state.transactions?.prepared ?? {};
    for (const [id, told] of life.model.transactions) {
      const inDoubt = Object.hasOwn(known, id);
      const { phase, preparedAt, durable } = told;
      const must = phase === 'prepared' && durable && preparedAt <= lastLsn;
      const mustNot = phase === 'open' || (phase === 'decided' && durable);
      hold(inDoubt ? !mustNot : !must, 'Whole', () => `${id}, ${phase}, is ${inDoubt ? '' : 'not '}in doubt`);
      told.phase = inDoubt ? 'prepared' : 'decided';
    }
    await judgeInDoubt(life, state, lastLsn);
  },
};

async function perform(life: Life): Promise<void> {
  const { random, transactions } = life;
  const { tx, told } = transactions.begin(random.oneIn(3) ? random.between(8, 24) : random.between(1, 7), meanwhile);
  const options = { durability: random.pick(['os', 'disk'] as const) };
  const fate = random.below(8);
  if (fate === 0) {
    await tx.abort();
    told.phase = 'decided';
    return;
  }
  if (fate < 4) {
    await transactions.settled(tx.id, () => tx.commit(options));
    return;
  }
  await transactions.settled(tx.id, () => tx.prepare());
  if (fate < 6) return;
  await transactions.settled(tx.id, async () => (fate === 6 ? tx.commit(options) : tx.abort(options)));
}
