import type { KeyRing } from '../format/key-ring.js';
import type { IndexEntry } from '../format/seal.js';
import type { Lsn } from '../types.js';
import type { Catalog } from './catalog.js';

/** A log as its readers see it: its files, and how far it is. The writer's process and a reading one each have theirs. */
export interface LogSource {
  readonly catalog: Catalog;
  /** Of an encrypted log. */
  readonly keys?: KeyRing | undefined;
  /** Records below this were cleaned up, whatever files are still there. */
  low(): Lsn;
  /** Every record up to here is in the files: if one is not, that is damage. */
  promised(): Lsn;
  /** The last LSN that a read may see that begins now and does not follow. */
  readable(): Promise<Lsn>;
  /** Where a segment that is still written ends by now; undefined when only the file knows. */
  liveEnd(segmentId: number): number | undefined;
  /** The sparse index, so far, of a segment that is still written; undefined when only the file knows. */
  liveIndex(segmentId: number): Promise<readonly IndexEntry[] | undefined>;
  /** A read begins that follows the log, and will want what is written next; the result says that it is over. */
  followed?(): () => void;
  /** The highest LSN committed at a level, of those that can be read. */
  watermark(level: number): Lsn;
  /** Resolves once `watermark(level) >= lsn`, or to false when the log was closed. Rejects with the signal's reason. */
  reached(level: number, lsn: Lsn, signal?: AbortSignal): Promise<boolean>;
}
