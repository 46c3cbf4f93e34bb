import type { Operation } from './operation.js';

/** One of those in doubt is committed or aborted, by its id; in whatever run it was prepared. */
export const decide: Operation = {
  name: 'decide',
  weight: 2,
  async perform({ random, sequencer, transactions }) {
    const ids = Object.keys(sequencer.state.transactions?.prepared ?? {});
    if (ids.length === 0) return;
    await transactions.decide(random.pick(ids), random.oneIn(2));
  },
};
