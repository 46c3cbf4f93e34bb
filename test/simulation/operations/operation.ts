import type { Recovered } from '../../../src/recovery/recover.js';
import type { Life } from '../life.js';

/**
 * Something that is done to a log while it lives. One more kind is one more file here and one line in `index.ts`; all
 * of its choices come from `life.random`. It may throw what the log throws: errors that are answers to a fault of the
 * disk are known as such.
 */
export interface Operation {
  name: string;
  /** How often it is chosen, beside the others. */
  weight: number;
  perform(life: Life): void | Promise<void>;
  /** Judges what a recovery brought back, when there is more to say than that every record is there. */
  judge?(life: Life, recovered: Recovered): void | Promise<void>;
}
