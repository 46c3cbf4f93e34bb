import type { Salt } from '../format/frame.js';

/** A segment of the log, as recovery found it or the sequencer wrote it. Plain data: it travels between threads. */
export interface SegmentInfo {
  name: string;
  id: number;
  salt: Salt;
  firstLsn: number;
  /** The last that belongs to the log; firstLsn - 1 when it holds no records. */
  lastLsn: number;
  /** Where the first frame starts. */
  headerBytes: number;
  headerCrc: number;
  /** Checksum of the last frame's header, once that is known. */
  endCrc: number;
  /** Behind the last frame, the seal included. */
  endOffset: number;
  /** Of the file. */
  fileBytes: number;
  /** `sealed`: finished. `open`: the last one, still written or left by a crash. */
  state: 'sealed' | 'open';
}
