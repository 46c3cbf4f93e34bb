import type { PlainError } from '../errors.js';
import type { ActorKey } from '../format/key-ring.js';
import type { LogState, Positions } from '../format/state.js';
import type { TransactionNote } from '../format/transaction.js';
import type { RecoveryMode, RecoveryReport } from '../recovery/recover.js';
import type { SurveyProgress as RecoveryProgress } from '../recovery/survey.js';
import type { Spare } from '../segments/prepare.js';
import type { SegmentInfo } from '../segments/segment-info.js';
import type { SyncMethod } from '../storage/node-storage.js';
import type { PoolEncoding } from './encode-frame.js';

/** What the opening thread and the I/O actor say to each other. Records never travel this way. */

export interface ActorData {
  directory: string;
  control: SharedArrayBuffer;
  ring: SharedArrayBuffer;
  sync: SharedArrayBuffer;
  segmentBytes: number;
  flushIntervalMs: number;
  syncMethod: SyncMethod;
  recoveryMode: RecoveryMode;
  /** Undefined: the log is not encrypted. */
  encryption: { logId: Uint8Array; key: ActorKey } | undefined;
}

export type ActorRequest =
  | { op: 'sync' | 'cleanup' | 'close' }
  | { op: 'rotate'; key: ActorKey | undefined }
  | { op: 'checkpoint' | 'truncateAfter'; lsn: number }
  | { op: 'positions'; positions: Positions }
  | { op: 'transaction'; note: TransactionNote }
  | { op: 'liveIndex'; segmentId: number }
  | { op: 'addSpare'; spare: Spare | undefined }
  | { op: 'addRing'; id: number; ring: SharedArrayBuffer; channel: string }
  | { op: 'dropRing'; id: number };

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
  encoding: PoolEncoding | undefined;
}

export type MaintenanceTask =
  | { op: 'prepare'; directory: string; bytes: number }
  | { op: 'adopt'; directory: string; spares: string[]; unfinished: string[]; segmentBytes: number }
  | { op: 'retire'; directory: string; names: string[]; recycle: number; segmentBytes: number };

/** An error thrown in a pool thread loses its fields on the way, so tasks return this instead. */
export type TaskResult<T> = { ok: true; value: T } | { ok: false; error: PlainError };
