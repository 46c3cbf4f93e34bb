import type { MarkedSegment } from './mark.js';

/** Segments that lie side by side and are rewritten into one. */
export type Run = MarkedSegment[];

/** Clean segments above this part of the wanted size are left alone; smaller ones are taken along with their neighbours. */
const SMALL_PART = 4;

/** What is about to be left of a segment. Records are taken to be alike. */
export function liveBytes({ info, records, dead }: MarkedSegment): number {
  return records === 0 ? 0 : (info.endOffset - info.headerBytes) * ((records - dead) / records);
}

/** The runs, oldest first, that hold garbage; each is about to come to one segment of the usual size. */
export function planRuns(segments: readonly MarkedSegment[], segmentBytes: number): Run[] {
  const runs: Run[] = [];
  let run: Run = [];
  let bytes = 0;
  const close = () => {
    const trimmed = withoutCleanEnds(run);
    if (trimmed.length > 0) runs.push(trimmed);
    run = [];
    bytes = 0;
  };
  for (const segment of segments) {
    const live = liveBytes(segment);
    const clean = segment.fixed || (segment.dead === 0 && live > segmentBytes / SMALL_PART);
    if (clean || segment.truncates || bytes + live > segmentBytes) close();
    if (clean) continue;
    run.push(segment);
    bytes += live;
  }
  close();
  return runs;
}

/** Nothing is won by rewriting a segment without garbage, unless it lies between two that have some. */
function withoutCleanEnds(run: Run): Run {
  const first = run.findIndex(({ dead }) => dead > 0);
  const last = run.findLastIndex(({ dead }) => dead > 0);
  return first < 0 ? [] : run.slice(first, last + 1);
}
