import { corrupt, WalError } from '../errors.js';
import { FrameType } from '../format/frame.js';
import { decodeRecords, type WalRecord } from '../format/record.js';
import type { Lsn } from '../types.js';
import type { Catalog, CatalogEntry } from './catalog.js';
import { isGone, type ReadableFile } from './files.js';
import { FrameStream } from './frame-stream.js';

export interface ReadRange {
  /** Undefined: the first that there is. */
  from: Lsn | undefined;
  /** The last to deliver. */
  to: Lsn;
  /** Every record up to here is in the log: if one is not, that is damage. 0 when that is not known. */
  promised: Lsn;
  /** Records below this were cleaned up, whatever files are still there. */
  low: () => Lsn;
  signal?: AbortSignal;
}

/** Reads `[from, to]` in order, an array of records at a time. */
export async function* readLog(catalog: Catalog, range: ReadRange): AsyncGenerator<WalRecord[], void, undefined> {
  const entries = await catalog.refresh();
  let next = range.from ?? Math.max(range.low(), entries[0]?.header.firstLsn ?? 1);
  if (next > range.to) return;
  if (next < range.low() || (entries.length > 0 && next < entries[0].header.firstLsn))
    throw truncated(next, range.low());
  let entry = lastStartingBefore(entries, next);
  while (entry !== undefined) {
    range.signal?.throwIfAborted();
    const cursor: Cursor = { next, sealed: false };
    yield* readSegment(entry, catalog, range, cursor);
    next = cursor.next;
    if (next > range.to) return;
    if (!cursor.sealed) return;
    entry = await successor(catalog, entry, next, range);
  }
}

interface Cursor {
  /** The next LSN to deliver. */
  next: Lsn;
  /** The segment was read to its seal. */
  sealed: boolean;
}

async function* readSegment(
  entry: CatalogEntry,
  catalog: Catalog,
  range: ReadRange,
  cursor: Cursor,
): AsyncGenerator<WalRecord[]> {
  const file = await openSegment(entry, catalog, cursor.next, range);
  let stream: FrameStream | undefined;
  try {
    const { header, next } = entry;
    const end = next === undefined ? await file.size() : next.previous.endOffset;
    const start = { salt: header.salt, lsn: header.firstLsn, previousCrc: header.headerCrc };
    stream = new FrameStream(file, header.headerBytes, end, start);
    for (let more = true; more; ) {
      const records: WalRecord[] = [];
      more = await stream.advance((frame, bytes, at) => {
        if (frame.type === FrameType.Seal) cursor.sealed = true;
        if (frame.type !== FrameType.Records || frame.firstLsn + frame.records <= cursor.next) return true;
        const { firstLsn, timestamp } = frame;
        decodeRecords(
          bytes,
          at,
          at + frame.storedBytes,
          frame.records,
          firstLsn,
          timestamp,
          cursor.next,
          range.to,
          records,
        );
        return firstLsn + frame.records <= range.to;
      });
      if (records.length > 0) {
        cursor.next = records[records.length - 1].lsn + 1;
        yield records;
        range.signal?.throwIfAborted();
      }
    }
    if (cursor.next > range.to) return;
    await checkEnd(entry, catalog, range, cursor, stream);
  } finally {
    await stream?.settle();
    await file.close();
  }
}

/** The frames of a segment ended before all of the range was read: is that its end, or damage? */
async function checkEnd(
  entry: CatalogEntry,
  catalog: Catalog,
  range: ReadRange,
  cursor: Cursor,
  stream: FrameStream,
): Promise<void> {
  const { next } = entry;
  if (next === undefined ? cursor.sealed || stream.lsn > range.promised : stream.lsn > next.previous.lastLsn) {
    // A segment that was cut at recovery on a full disk has no seal, but a successor.
    if (next !== undefined) cursor.sealed = true;
    return;
  }
  // Cleaned up while it was read, and perhaps overwritten by its next use?
  if (!(await catalog.files.list()).includes(entry.name)) throw truncated(stream.lsn, range.low());
  throw corrupt(
    `${entry.name} is damaged at byte ${stream.offset}: LSN ${stream.lsn} should be there and is not readable. ` +
      "Run 'ringwal verify' on the log's directory to see all of the damage.",
    { segment: entry.name, offset: stream.offset, lsn: stream.lsn },
  );
}

async function openSegment(entry: CatalogEntry, catalog: Catalog, lsn: Lsn, range: ReadRange): Promise<ReadableFile> {
  try {
    return await catalog.files.open(entry.name);
  } catch (error) {
    if (isGone(error)) throw truncated(lsn, range.low());
    throw error;
  }
}

async function successor(
  catalog: Catalog,
  entry: CatalogEntry,
  lsn: Lsn,
  range: ReadRange,
): Promise<CatalogEntry | undefined> {
  const entries = await catalog.refresh();
  const next = entries.find((candidate) => candidate.header.segmentId > entry.header.segmentId);
  if (next === undefined) return undefined;
  if (next.header.firstLsn > lsn) throw truncated(lsn, range.low());
  return next;
}

function lastStartingBefore(entries: readonly CatalogEntry[], lsn: Lsn): CatalogEntry | undefined {
  let low = 0;
  let high = entries.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (entries[middle].header.firstLsn <= lsn) low = middle + 1;
    else high = middle;
  }
  return entries[low - 1];
}

function truncated(lsn: Lsn, low: Lsn): WalError {
  return new WalError('ERR_WAL_TRUNCATED', `LSN ${lsn} was cleaned up; the log begins at LSN ${low} now.`, { lsn });
}
