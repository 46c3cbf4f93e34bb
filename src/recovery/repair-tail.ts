import { buildFrame, FrameType } from '../format/frame.js';
import { encodeSeal } from '../format/seal.js';
import { QUARANTINE_FOLDER } from '../segments/names.js';
import { isNoSpace } from '../segments/prepare.js';
import type { SegmentInfo } from '../segments/segment-info.js';
import type { Storage, StorageFile } from '../storage/storage.js';
import { applyPatches, settleRepair } from './apply-repair.js';
import { beginAnew } from './begin-anew.js';
import { keepCopy, setAside } from './quarantine.js';
import type { Recovered } from './recover.js';

const CHUNK_BYTES = 1024 * 1024;

/**
 * Ends the last segment where its valid frames end, so that nothing behind them can come back: what is there goes to
 * quarantine, a seal is written in its place, the whole is synced, and only then the file is cut behind the seal.
 * A crash between any two steps leaves a state that recovery judges as it did the first time.
 *
 * A full disk must not keep a log from opening: without room for the quarantine the bytes stay where they are, and the
 * header of the next segment, which repeats where this one ends, buries them. Point-in-time throws instead.
 */
export function endLastSegment(storage: Storage, recovered: Recovered, now: number): void {
  // What a process left that was killed, the names of files too, may be in the page cache only.
  if (storage.list(QUARANTINE_FOLDER).length > 0) storage.syncFolder(QUARANTINE_FOLDER);
  storage.syncFolder();
  if (recovered.mended !== undefined) {
    recovered.report.quarantined.push(...applyPatches(storage, recovered.mended));
    // Also when there is nothing to do: an attempt that was cut short may have done it in the page cache alone.
    settleRepair(storage);
  }
  endFrames(storage, recovered, now);
  if (recovered.setAside.length > 0 && recovered.report.verdict === 'salvaged') beginAnew(storage, recovered, now);
  moveAway(storage, recovered);
}

function endFrames(storage: Storage, recovered: Recovered, now: number): void {
  const last = recovered.segments[recovered.segments.length - 1];
  const whole = last?.state === 'sealed' && recovered.unprovenFrom >= last.endOffset;
  if (last === undefined) return;
  const file = storage.open(last.name, 'write');
  try {
    if (whole && recovered.torn === undefined) {
      // That the file ends here may be in the page cache alone, when a point-in-time was cut short behind its cut: with
      // more of it back, an older seal would stand at its end.
      file.sync();
      return;
    }
    putOnDisk(file, recovered.unprovenFrom, last.endOffset);
    if (last.state === 'sealed' && recovered.torn === undefined) {
      cut(file, last);
      return;
    }
    try {
      if (recovered.torn !== undefined) quarantine(storage, file, recovered);
      if (last.state === 'sealed') cut(file, last);
      else seal(file, last, recovered, now);
    } catch (error) {
      // What point-in-time cuts off may end in a seal that holds: left in its place, it would all be there again.
      if (!isNoSpace(error) || recovered.report.verdict === 'salvaged') throw error;
    }
  } finally {
    file.close();
  }
}

/**
 * Makes durable what is about to be reported as durable. The bytes are written again, not only synced: when a sync fails,
 * some filesystems keep the bytes in their cache, take them for clean, and have the next sync succeed without them.
 */
function putOnDisk(file: StorageFile, from: number, to: number): void {
  for (let at = from; at < to; at += CHUNK_BYTES) {
    const chunk = new Uint8Array(Math.min(CHUNK_BYTES, to - at));
    file.write([chunk.subarray(0, file.read(chunk, at))], at);
  }
  file.sync();
}

/** Cuts a sealed segment behind its seal, which is on disk. */
function cut(file: StorageFile, segment: SegmentInfo): void {
  file.truncate(segment.endOffset);
  file.sync();
  segment.fileBytes = segment.endOffset;
}

function quarantine(storage: Storage, file: StorageFile, recovered: Recovered): void {
  const { from, to } = recovered.torn!;
  const name = keepCopy(storage, file, from, to);
  if (name !== undefined) recovered.report.quarantined.push(name);
}

/**
 * Moves the segments behind a cut away. The first one goes first, durably: without it, what is left of them does not fit
 * the log any more, so that every mode of recovery notices if this is cut short.
 */
function moveAway(storage: Storage, { setAside: names, report }: Recovered): void {
  if (names.length === 0) return;
  storage.makeFolder(QUARANTINE_FOLDER);
  storage.syncFolder();
  for (const [i, name] of names.entries()) {
    report.quarantined.push(setAside(storage, name));
    if (i > 0 && i < names.length - 1) continue;
    storage.syncFolder(QUARANTINE_FOLDER);
    storage.syncFolder();
  }
}

function seal(file: StorageFile, last: SegmentInfo, recovered: Recovered, now: number): void {
  const { end, state } = recovered;
  const payload = encodeSeal({ state, index: [] }, end.endOffset);
  const lsn = recovered.nextLsnInFile ?? end.lastLsn + 1;
  const frame = buildFrame(FrameType.Seal, payload, lsn, lsn - 1, last.salt, now, end.headerCrc);
  const size = file.size();
  // In a file that was closed once, a new seal may end just where the old one did. A file that ends with its seal counts as
  // durable at the next open, and after a crash before the sync this one would be in the page cache alone.
  if (size === end.endOffset + frame.bytes.byteLength) file.truncate(size + 1);
  try {
    file.write([frame.bytes], end.endOffset);
  } catch (error) {
    // Half a seal looks like one that was damaged. Where there were blocks before there is room for zeros.
    if (isNoSpace(error)) {
      file.write([new Uint8Array(Math.min(frame.bytes.byteLength, size - end.endOffset))], end.endOffset);
      file.truncate(size);
    }
    throw error;
  }
  file.sync();
  end.endOffset += frame.bytes.byteLength;
  end.headerCrc = frame.headerCrc;
  last.endOffset = end.endOffset;
  // A later cut through this segment repeats where it ended.
  last.endCrc = end.headerCrc;
  last.state = 'sealed';
  cut(file, last);
}
