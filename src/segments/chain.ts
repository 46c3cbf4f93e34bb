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
    if (isVoid(header, next)) continue;
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

/**
 * The segment before the one that says that it has no predecessor; Infinity when there is none. It was not cleaned up,
 * whatever its LSNs are: point-in-time began the log anew, and was cut short while it moved the old one away.
 */
export function beforeBeginning(chain: readonly (Pick<SegmentHeader, 'previous'> | undefined)[]): number {
  const at = chain.findIndex((header, i) => i > 0 && header?.previous.segmentId === 0);
  return at < 0 ? Number.POSITIVE_INFINITY : at - 1;
}

/** Whether a segment before `next` was cut away when `next` was begun, or is compacted into it. */
function isVoid(header: SegmentHeader, next: SegmentHeader | undefined): boolean {
  if (next === undefined || (next.flags & (SegmentFlag.Truncates | SegmentFlag.Compacted)) === 0) return false;
  return header.segmentId > next.previous.segmentId;
}
