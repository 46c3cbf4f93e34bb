import { withKey } from '../../../src/format/state.js';
import { Counter } from '../../../src/ring/control.js';
import type { Operation } from './operation.js';

/** An encrypted log goes on with another key, in a new segment. What was encrypted before is as good as ever. */
export const rotateKey: Operation = {
  name: 'rotate key',
  weight: 1,
  async perform(life) {
    const { keys, random, sequencer } = life;
    if (!keys.encrypted) return;
    keys.add(random);
    const key = (await keys.forWriting(sequencer.logId, sequencer.state.encryption))!;
    const { id, checkValue, headerKey } = key;
    const noted = withKey(sequencer.state, sequencer.logId, id, checkValue);
    const begun = () => life.control.get(Counter.segmentId);
    const before = begun();
    life.model.attempted = [noted];
    sequencer.rotate({ id, checkValue, headerKey });
    // Without a segment (there is none yet, or a full disk refused the last one) the header of the next one knows it,
    // before any frame needs it.
    if (begun() !== before) life.attempt([noted], true, () => undefined);
    else life.model.refused();
    keys.writeWith(key, random);
    life.tally.keyRotations++;
  },
};
