import type { LaterFrame } from '../segments/walk.js';

/**
 * The verdict table of recovery.
 *
 * A segment is read frame by frame until one does not hold. Let L be the LSN that was expected there. Every frame is
 * stamped with its *durable LSN*: how far the log was on stable storage when that frame was written. So a later frame
 * of the same segment tells whether L had been promised to anybody:
 *
 * | row | segment     | frames end | later frame            | verdict     | why                                              |
 * |-----|-------------|------------|------------------------|-------------|--------------------------------------------------|
 * | A   | any         | sealed     | (not looked for)       | sealed      | the seal is the last thing written               |
 * | B   | not the last| unsealed   | any                    | corrupt     | it was sealed before its successor was created   |
 * | C   | the last    | unsealed   | stamped durable >= L   | corrupt     | L was on disk once, and is gone                  |
 * | H   | the last    | unsealed   | says: all before me    | corrupt     | what was lost was on disk, also if it held no LSN|
 * |     |             |            | was durable            |             | (a state frame, a position)                      |
 * | D   | the last    | unsealed   | stamped durable < L    | torn tail   | blocks of an unsynced group, written out of order|
 * | E   | the last    | unsealed   | none, bytes left over  | torn tail   | a group that was cut short                       |
 * | F   | the last    | unsealed   | none, nothing left over| clean       | the writer stopped between two groups            |
 * | G   | the last    | unsealed   | file shorter than made | corrupt     | only a sealed file is ever cut to its end        |
 *
 * G stands before C to F and H, and is not for segments that grew as they were written: their size says nothing. What
 * the table cannot see: damage to the very last synced group of a log that was not closed and did not fall idle,
 * because no later frame is there to be stamped. It looks like row E.
 */
export type Verdict = 'sealed' | 'clean' | 'torn-tail' | 'corrupt';
export type VerdictRow = 'A' | 'B' | 'C' | 'D' | 'E' | 'F' | 'G' | 'H';

export interface SegmentEnd {
  isLast: boolean;
  sealed: boolean;
  /** The file has the size that it was made with, or was made to grow. */
  fullSize: boolean;
  /** L: the LSN expected where the frames end. */
  expectedLsn: number;
  /** What later valid frames of this segment say. */
  laterFrame: LaterFrame | undefined;
  /** Bytes that are neither zero nor a recycled file's earlier content stand behind the last frame. */
  leftOver: boolean;
}

export function verdictOf(end: SegmentEnd): { row: VerdictRow; verdict: Verdict } {
  if (end.sealed) return { row: 'A', verdict: 'sealed' };
  if (!end.isLast) return { row: 'B', verdict: 'corrupt' };
  if (!end.fullSize) return { row: 'G', verdict: 'corrupt' };
  if (end.laterFrame !== undefined) {
    if (end.laterFrame.durableLsn >= end.expectedLsn) return { row: 'C', verdict: 'corrupt' };
    if (end.laterFrame.provesPrefix) return { row: 'H', verdict: 'corrupt' };
    return { row: 'D', verdict: 'torn-tail' };
  }
  return end.leftOver ? { row: 'E', verdict: 'torn-tail' } : { row: 'F', verdict: 'clean' };
}

/** Why a verdict of corruption was given, in words. */
export function describeRow(row: VerdictRow, lsn: number): string {
  switch (row) {
    case 'B':
      return `the frame that should hold LSN ${lsn} does not hold, though a later segment exists`;
    case 'C':
      return `LSN ${lsn} was on stable storage, as a later frame says, and is not readable now`;
    case 'H':
      return `what stood there before LSN ${lsn} was on stable storage, as a later frame says, and is not readable now`;
    case 'G':
      return `the file is shorter than it was made and ends at LSN ${lsn - 1} without a seal`;
    default:
      return `the frames end before LSN ${lsn}`;
  }
}
