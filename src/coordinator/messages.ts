import type { Run } from '../compaction/plan.js';
import type { PlainError } from '../errors.js';
import type { ActorKey, NumberedKey } from '../format/key-ring.js';
import type { EncryptionState, LogState, Positions } from '../format/state.js';
import type { TransactionNote } from '../format/transaction.js';
import type { FrameEncoding } from '../producer/encode-in-ring.js';
import type { RecoveryMode, RecoveryReport } from '../recovery/recover.js';
import type { SurveyProgress as RecoveryProgress } from '../recovery/survey.js';
import type { Spare } from '../segments/prepare.js';
import type { SegmentInfo } from '../segments/segment-info.js';
import type { SyncMethod } from '../storage/node-storage.js';

/** What the opening thread and the I/O actor say to each other. Records never travel this way. */

export interface ActorData {
  directory: string;
  control: SharedArrayBuffer;
  ring: SharedArrayBuffer;
  sync: SharedArrayBuffer;
  segmentBytes: number;
  flushIntervalMs: number;
  syncMethod: SyncMethod;
  writeThrough: boolean;
  recoveryMode: RecoveryMode;
  /** Undefined: the log is not encrypted. */
  encryption: { logId: Uint8Array; key: ActorKey } | undefined;
}

export type ActorRequest =
  | { op: 'sync' | 'cleanup' | 'sealed' | 'close' }
  | { op: 'rotate'; key: ActorKey | undefined }
  | { op: 'checkpoint' | 'truncateAfter'; lsn: number }
  | { op: 'noteCompaction'; compacted: number; deletesGone: number }
  | { op: 'replaceSealed'; ids: number[]; info: SegmentInfo }
  | { op: 'positions'; positions: Positions }
  | { op: 'transaction'; note: TransactionNote }
  | { op: 'liveIndex'; segmentId: number }
  | { op: 'addSpare'; spare: Spare | undefined }
  | { op: 'addRing'; id: number; ring: SharedArrayBuffer; channel: string }
  | { op: 'dropRing'; id: number };

/** The finished segments, oldest first, and the state as it is. */
export interface Sealed {
  segments: SegmentInfo[];
  state: LogState;
}

export interface ActorReady {
  report: RecoveryReport;
  state: LogState;
  /** Files that a crash or an earlier close left over. */
  spares: string[];
  unfinished: string[];
  obsolete: string[];
}

/** The answer to a request; requests are answered in the order in which they were posted. */
export type ActorReply = { op: 'reply'; ok: true; value: unknown } | { op: 'reply'; ok: false; error: PlainError };

export type ActorMessage =
  | { op: 'wake' | 'wantSpare' | 'wantSyncer' }
  | { op: 'ready'; ready: ActorReady }
  | { op: 'recovering'; progress: RecoveryProgress }
  | { op: 'unable'; error: PlainError }
  | { op: 'rotated'; current: SegmentInfo; sealed: SegmentInfo | undefined }
  | { op: 'ringDropped'; id: number }
  | ActorReply;

export interface SyncerData {
  control: SharedArrayBuffer;
  sync: SharedArrayBuffer;
}

export interface EncodeTask {
  ring: SharedArrayBuffer;
  control: SharedArrayBuffer;
  frame: number;
  encoding: FrameEncoding | undefined;
}

export type MaintenanceTask =
  | { op: 'prepare'; directory: string; bytes: number }
  | { op: 'adopt'; directory: string; spares: string[]; unfinished: string[]; segmentBytes: number }
  | { op: 'retire'; directory: string; names: string[]; recycle: number; segmentBytes: number };

interface Shared {
  directory: string;
  control: SharedArrayBuffer;
  signals: SharedArrayBuffer;
}

export type { Run };

/** What a thread of the pool needs to compact an encrypted log: its keys, as far as they are at hand. */
export interface TaskEncryption {
  logId: Uint8Array;
  keys: NumberedKey[];
  /** The one to write with. */
  current: number;
  state: EncryptionState;
}

/** The steps of a compaction; see {@link Compactor}. */
export type CompactionTask =
  | (Shared & {
      op: 'findGarbage';
      segments: SegmentInfo[];
      checkpoint: number;
      whole: boolean;
      segmentBytes: number;
      marksName: string;
      encryption: TaskEncryption | undefined;
    })
  | (Shared & {
      op: 'rewrite';
      run: Run;
      marksName: string;
      target: string;
      encryption: TaskEncryption | undefined;
    })
  | { op: 'swapIn'; directory: string; target: string; name: string }
  | { op: 'discard'; directory: string; names: string[] };

export interface GarbageFound {
  runs: Run[];
  /** In all segments. */
  records: number;
  deletesGone: number;
}

/** The outcome of work that may be told to stop, or find that the log is not any more what it was. */
export interface Unless<T> {
  unless?: 'stopped' | 'changed';
  value?: T;
}

export interface Swapped {
  /** The directory could not be synced. */
  unsynced?: PlainError;
}

/** An error thrown in a pool thread loses its fields on the way, so tasks return this instead. */
export type TaskResult<T> = { ok: true; value: T } | { ok: false; error: PlainError };
