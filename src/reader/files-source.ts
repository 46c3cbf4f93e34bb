import type { KeyRing } from '../format/key-ring.js';
import type { IndexEntry } from '../format/seal.js';
import type { LogState } from '../format/state.js';
import type { SegmentInfo } from '../segments/segment-info.js';
import type { Lsn } from '../types.js';
import type { Catalog } from './catalog.js';
import { FileWatermarks } from './file-watermarks.js';
import type { LogSource } from './log-source.js';

/** What was found in the files when the log was opened. */
export interface FoundLog {
  state: LogState;
  segments: readonly SegmentInfo[];
  end: { lastLsn: Lsn };
}

/** A log that was opened with `readOnly`: all that is known of it is in its files. */
export class FilesSource implements LogSource {
  readonly catalog: Catalog;
  readonly keys: KeyRing | undefined;
  readonly #recovered: FoundLog;
  readonly #watermarks: FileWatermarks;

  constructor(directory: string, catalog: Catalog, recovered: FoundLog, keys?: KeyRing) {
    this.catalog = catalog;
    this.keys = keys;
    this.#recovered = recovered;
    const last = recovered.segments[recovered.segments.length - 1];
    this.#watermarks = new FileWatermarks(directory, this, last?.firstLsn ?? 1);
  }

  low(): Lsn {
    return this.#recovered.state.low;
  }

  promised(): Lsn {
    return Math.min(this.#recovered.end.lastLsn, this.catalog.cuts.keptSince(0));
  }

  readable(): Promise<Lsn> {
    return this.#watermarks.latest();
  }

  liveEnd(): undefined {}

  liveIndex(): Promise<readonly IndexEntry[] | undefined> {
    return Promise.resolve(undefined);
  }

  watermark(level: number): Lsn {
    return this.#watermarks.watermark(level);
  }

  reached(level: number, lsn: Lsn, signal?: AbortSignal): Promise<boolean> {
    return this.#watermarks.reached(level, lsn, signal);
  }

  close(): Promise<void> {
    return this.#watermarks.close();
  }
}
