import { buildFrame, FrameType } from '../format/frame.js';
import { encodeSeal } from '../format/seal.js';
import { QUARANTINE_FOLDER, quarantineName } from '../segments/names.js';
import { isNoSpace } from '../segments/prepare.js';
import type { SegmentInfo } from '../segments/segment-info.js';
import type { Storage, StorageFile } from '../storage/storage.js';
import type { Recovered } from './recover.js';

const CHUNK_BYTES = 1024 * 1024;

/**
 * Ends the last segment where its valid frames end, so that nothing behind them can come back: what is there goes to
 * quarantine, a seal is written in its place, the whole is synced, and only then the file is cut behind the seal.
 * A crash between any two steps leaves a state that recovery judges as it did the first time.
 *
 * A full disk must not keep a log from opening: without room for the quarantine the bytes stay where they are, and the
 * header of the next segment, which repeats where this one ends, buries them.
 */
export function endLastSegment(storage: Storage, recovered: Recovered, now: number): void {
  // What a process left that was killed, the names of files too, may be in the page cache only.
  storage.syncFolder();
  const last = recovered.segments[recovered.segments.length - 1];
  if (last === undefined || (last.state === 'sealed' && recovered.unprovenFrom >= last.endOffset)) return;
  const file = storage.open(last.name, 'write');
  try {
    putOnDisk(file, recovered.unprovenFrom, last.endOffset);
    if (last.state === 'sealed') {
      cut(file, last);
      return;
    }
    try {
      if (recovered.torn !== undefined) quarantine(storage, file, recovered);
      seal(file, last, recovered, now);
    } catch (error) {
      if (!isNoSpace(error)) throw error;
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
  const { segment, from, to } = recovered.torn!;
  if (to <= from) return;
  storage.makeFolder(QUARANTINE_FOLDER);
  const name = quarantineName(segment.name, from);
  if (storage.list(QUARANTINE_FOLDER).some((present) => `${QUARANTINE_FOLDER}/${present}` === name))
    storage.remove(name);
  const copy = storage.open(name, 'create');
  try {
    for (let at = from; at < to; at += CHUNK_BYTES) {
      const chunk = new Uint8Array(Math.min(CHUNK_BYTES, to - at));
      copy.write([chunk.subarray(0, file.read(chunk, at))], at - from);
    }
    copy.sync();
  } catch (error) {
    // Half a copy of bytes that are still where they were is only in the way of a full disk.
    storage.remove(name);
    throw error;
  } finally {
    copy.close();
  }
  storage.syncFolder(QUARANTINE_FOLDER);
  storage.syncFolder();
  recovered.report.quarantined.push(name);
}

function seal(file: StorageFile, last: SegmentInfo, recovered: Recovered, now: number): void {
  const { end, state } = recovered;
  const payload = encodeSeal({ state, index: [] }, end.endOffset);
  const frame = buildFrame(FrameType.Seal, payload, end.lastLsn + 1, end.lastLsn, last.salt, now, end.headerCrc);
  file.write([frame.bytes], end.endOffset);
  file.sync();
  end.endOffset += frame.bytes.byteLength;
  end.headerCrc = frame.headerCrc;
  last.endOffset = end.endOffset;
  last.state = 'sealed';
  cut(file, last);
}
