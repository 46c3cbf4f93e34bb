import { SegmentFlag, type SegmentHeader } from '../format/segment-header.js';

/** A segment of the log and the header of its successor, which says where it ends; undefined for the last. */
export interface Link {
  header: SegmentHeader;
  next: SegmentHeader | undefined;
  /** All segments behind this one begin above it. Default: nothing is known of them but of `next`. */
  bound?: number;
}

/**
 * The segments that make up the log, oldest first: from the newest one back, from successor to predecessor. What was
 * made void by a cut (`truncateAfter`), or replaced by a compacted segment, is not in the chain, though its file may still be there.
 *
 * When a clean-up is cut short by the power, the segment that cut may be gone, and files that it made void may be back: they
 * are in the chain, below the clean-up mark, because nothing reaches up to where a later segment begins.
 */
export function chainOf(headers: readonly SegmentHeader[]): Link[] {
  const chain: Link[] = [];
  let next: SegmentHeader | undefined;
  let bound = Number.MAX_SAFE_INTEGER;
  for (let i = headers.length - 1; i >= 0; i--) {
    const header = headers[i];
    if (isVoid(header.segmentId, next)) continue;
    chain.push({ header, next, bound });
    next = header;
    bound = Math.min(bound, header.firstLsn - 1);
  }
  return chain.reverse();
}

/** The last LSN of a segment that belongs to the log; undefined for the last segment, which its own frames tell. */
export function lastLsnOf({ next, bound = Number.MAX_SAFE_INTEGER }: Link): number | undefined {
  return next && Math.min(next.previous.lastLsn, next.firstLsn - 1, bound);
}

/** A segment by its id, and that of its predecessor, if its header can be read. */
export interface Place {
  id: number;
  previousId: number | undefined;
}

/**
 * Where point-in-time began a log anew and was cut short while it moved the old one away: there, a segment names one before
 * the segment that stands before it, and does not say that it cut anything. What is behind the one it names was not
 * cleaned up, whatever its LSNs are. Returns the index from which on that is so; Infinity when all is in order.
 */
export function beganAnewFrom(places: readonly Place[]): number {
  const at = places.findIndex(({ previousId = Number.POSITIVE_INFINITY }, i) => i > 0 && previousId < places[i - 1].id);
  return at < 0 ? Number.POSITIVE_INFINITY : places.findIndex(({ id }) => id >= places[at].previousId!);
}

export function placeOf({ segmentId, previous }: SegmentHeader): Place {
  return { id: segmentId, previousId: previous.segmentId };
}

/** Whether a segment with this id, before `next`, was cut away when `next` was begun, or is compacted into it. */
export function isVoid(segmentId: number, next: SegmentHeader | undefined): boolean {
  if (next === undefined || (next.flags & (SegmentFlag.Truncates | SegmentFlag.Compacted)) === 0) return false;
  return segmentId > next.previous.segmentId;
}
