import { type Predecessor, SegmentFlag } from '../format/segment-header.js';

/**
 * What is said of a segment's end by the header of the one that follows it; undefined when nothing does, and the file
 * itself must tell: it is the last one, or it was compacted, and the successor speaks of the file that stood there
 * before. A compacted file ends where its seal does, which was on disk before the file took its name. (The *last LSN*
 * that a successor names holds for a compacted segment too.)
 */
export function statedEnd(
  header: { flags: number } | undefined,
  next: { previous: Predecessor } | undefined,
): Predecessor | undefined {
  return isCompacted(header) ? undefined : next?.previous;
}

export function isCompacted(header: { flags: number } | undefined): boolean {
  return header !== undefined && (header.flags & SegmentFlag.Compacted) !== 0;
}
