import { type FrameHeader, FrameType } from '../format/frame.js';
import { scanRecords } from '../format/sparse.js';
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
    await cursor.scanDecoded(
      (frame, bytes, at) => {
        if (frame.type === FrameType.Sparse) found ??= firstSince(frame, bytes, at, time);
        else if (frame.records > 0 && frame.type !== FrameType.Gap && frame.timestamp >= time) found ??= frame.firstLsn;
        return found === undefined;
      },
      await source.readable(),
      ({ type }) => type === FrameType.Sparse,
    );
  } finally {
    await cursor.close();
  }
  return found ?? cursor.next;
}

/** The first record of a compacted frame of that time or later: each has a time of its own. */
function firstSince(frame: FrameHeader, bytes: Uint8Array, at: number, time: number): Lsn | undefined {
  const { storedBytes, firstLsn, timestamp } = frame;
  let found: Lsn | undefined;
  scanRecords(bytes, at, at + storedBytes, true, firstLsn, timestamp, (record) => {
    if (record.timestamp >= time) found = record.lsn;
    return found === undefined;
  });
  return found;
}

/** An LSN, of those that an index knows, whose frame is earlier than `time`; the first when there is none. */
async function placeBefore(source: LogSource, time: number): Promise<Lsn> {
  await source.catalog.refresh();
  const entries = source.catalog.held;
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
