import type { WalRecord } from '../format/record.js';
import type { Lsn } from '../types.js';
import type { FrameDecoder } from './decode-frame.js';
import { LogCursor } from './log-cursor.js';
import type { LogSource } from './log-source.js';
import { firstLsnSince } from './time-lookup.js';

/** How far a long read is. */
export interface ReadProgress {
  /** The last LSN delivered. */
  lsn: Lsn;
  /** Records delivered so far. */
  records: number;
  /** The bounds of the read, as far as they are known. */
  from: Lsn;
  to: Lsn;
}

export interface ReadRequest {
  /** Undefined: the first that there is. A Date: the first record of that time or later. */
  from: Lsn | Date | undefined;
  /** A Date: the last record of that time or earlier. */
  to: Lsn | Date;
  /** Wait for more at this level instead of ending. */
  follow: number | undefined;
  signal: AbortSignal;
  onProgress?: (progress: ReadProgress) => void;
  /** What becomes of the frames. Default: the records as they were written. */
  decoder?: FrameDecoder;
}

/** Reads in order, an array of records at a time. An aborted signal throws its reason. */
export async function* readLog(source: LogSource, request: ReadRequest): AsyncGenerator<WalRecord[], void, undefined> {
  const { signal, follow } = request;
  signal.throwIfAborted();
  const until = request.to instanceof Date ? request.to.getTime() : Number.POSITIVE_INFINITY;
  const to = request.to instanceof Date ? Number.MAX_SAFE_INTEGER : request.to;
  // The start before the end: when a clean-up comes between the two, the start is gone, which is an error. The other way
  // round the end would be, and the read would look like that of an empty log.
  const from = await startOf(source, request.from);
  // What a reader that does not follow may see, it saw when it began.
  const end = follow === undefined ? Math.min(to, await source.readable()) : to;
  // A cut that the last look missed was made before this read began, and is none to it.
  if (source.catalog.outdated) await source.catalog.refresh();
  const cursor = new LogCursor(source, from, { decoder: request.decoder });
  let records = 0;
  const over = follow === undefined ? undefined : source.followed?.();
  try {
    for (;;) {
      cursor.checkPlace();
      const bound = follow === undefined ? end : Math.min(end, source.watermark(follow));
      const batch = cursor.next <= bound ? await cursor.read(bound) : undefined;
      signal.throwIfAborted();
      if (batch === undefined) {
        if (follow === undefined || cursor.next > end) return;
        if (!(await source.reached(follow, cursor.next, signal))) return;
        continue;
      }
      if (batch.length === 0) continue;
      const wanted =
        batch[batch.length - 1].timestamp <= until ? batch : batch.filter(({ timestamp }) => timestamp <= until);
      records += wanted.length;
      if (wanted.length > 0) yield wanted;
      if (wanted.length < batch.length) return;
      request.onProgress?.({ lsn: cursor.next - 1, records, from, to: end });
      signal.throwIfAborted();
    }
  } finally {
    over?.();
    await cursor.close();
  }
}

async function startOf(source: LogSource, from: Lsn | Date | undefined): Promise<Lsn> {
  if (typeof from === 'number') return from;
  await source.catalog.refresh();
  const first = Math.max(source.low(), source.catalog.held[0]?.header.firstLsn ?? 1);
  return from === undefined ? first : Math.max(first, await firstLsnSince(source, from.getTime()));
}
