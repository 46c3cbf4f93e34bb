import { randomBytes } from 'node:crypto';
import { SegmentFlag } from '../format/segment-header.js';
import { prepareSpare } from '../segments/prepare.js';
import { SegmentWriter, segmentBytesFor } from '../segments/segment-writer.js';
import type { Storage } from '../storage/storage.js';
import type { Recovered } from './recover.js';

/**
 * Puts an empty segment behind the place where a log was cut, and makes it durable, before what stood there is moved away.
 *
 * The newest state (how far the log was cleaned up, its checkpoint, its subscriptions) and the last LSN are in the last
 * segment, which is among those that go. Without this, a crash or a `close` before the next record would leave segments
 * whose state is too old for them, or none at all, and LSNs that begin at 1 again. As long as the damaged ones are still
 * there, this one does not follow the segment with the number before it, so that every mode of recovery but the one that
 * is at work here refuses the log; and that one comes to the same end again. A full disk ends the work here, with nothing changed.
 */
export function beginAnew(storage: Storage, recovered: Recovered, now: number): void {
  const { state, end, segments } = recovered;
  recovered.logId ??= randomBytes(16);
  const salt = randomBytes(8);
  const time = Math.max(now, recovered.lastTime);
  const writer = SegmentWriter.create(storage, prepareSpare(storage, segmentBytesFor(0, state)), {
    logId: recovered.logId,
    segmentId: recovered.nextSegmentId,
    salt: { low: salt.readUInt32LE(0), high: salt.readUInt32LE(4) },
    firstLsn: end.lastLsn + 1,
    now: time,
    previous: { ...end },
    state,
    // A cut may go through the segment that is the last one now: what its file holds behind the cut stays void.
    flags: (recovered.nextLsnInFile ?? 0) > end.lastLsn + 1 ? SegmentFlag.Truncates : 0,
  });
  try {
    writer.seal(time);
    writer.trim();
  } finally {
    writer.close();
  }
  const { info } = writer;
  segments.push(info);
  recovered.nextSegmentId++;
  recovered.end = { segmentId: info.id, lastLsn: end.lastLsn, endOffset: info.endOffset, headerCrc: info.endCrc };
  recovered.lastTime = time;
}
