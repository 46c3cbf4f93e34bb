import { FrameType } from '../format/frame.js';
import type { Lsn } from '../types.js';
import { isGone } from './files.js';
import { lastEntry, readIndex } from './index-lookup.js';
import { LogCursor } from './log-cursor.js';
import type { LogSource } from './log-source.js';

/**
 * The first LSN whose time is `time` or later; one above the last when there is none. Frames never go back in time, so
 * the segments' headers and the sparse index lead to within 64 KiB of it.
 */
export async function firstLsnSince(source: LogSource, time: number): Promise<Lsn> {
  const cursor = new LogCursor(source, await placeBefore(source, time));
  let found: Lsn | undefined;
  try {
    await cursor.scan(
      (frame) => {
        if (frame.records > 0 && frame.type !== FrameType.Gap && frame.timestamp >= time) found ??= frame.firstLsn;
        return found === undefined;
      },
      await source.readable(),
    );
  } finally {
    await cursor.close();
  }
  return found ?? cursor.next;
}

/** An LSN, of those that an index knows, whose frame is earlier than `time`; the first when there is none. */
async function placeBefore(source: LogSource, time: number): Promise<Lsn> {
  const entries = await source.catalog.refresh();
  const entry = entries.findLast(({ header }) => header.createdAt < time) ?? entries[0];
  if (entry === undefined) return 1;
  const file = await source.catalog.files.open(entry.name).catch((error: unknown) => {
    if (!isGone(error)) throw error;
    return undefined;
  });
  // Cleaned up in this moment.
  if (file === undefined) return placeBefore(source, time);
  try {
    const index =
      entry.next === undefined
        ? await source.liveIndex(entry.header.segmentId)
        : await source.catalog.index(entry, () => readIndex(file, entry));
    const hint = lastEntry(index ?? [], ({ timestamp }) => timestamp < time);
    return Math.max(hint?.firstLsn ?? entry.header.firstLsn, source.low());
  } finally {
    await file.close();
  }
}
