export type { CommitEvent } from './coordinator/commits.js';
export type { CompactionProgress, CompactionReport, CompactOptions } from './coordinator/compactor.js';
export type { OpenOptions } from './coordinator/options.js';
export { WAL_ERROR_CODES, WalError, type WalErrorCode } from './errors.js';
export type { CodecName } from './format/codec.js';
export type { EncryptionKey, KeyFunction, NumberedKey } from './format/key-ring.js';
export type { RecoverTarget, Replayed, ReplayHandler, ReplayOperation } from './kv/replay.js';
export type { Transaction } from './kv/transaction.js';
export type { PreparedOperation, PreparedTransaction } from './kv/transactions.js';
export type { AppendOptions, BatchOperation } from './producer/arguments.js';
export { connect, type Producer, type ProducerHandle } from './producer/connect.js';
export type { LsnRange } from './producer/producer.js';
export type { ReadProgress } from './reader/read-log.js';
export type { Reader } from './reader/reader.js';
export {
  type Damage,
  type VerifyOptions,
  type VerifyProgress,
  type VerifyReport,
  verifyLog,
} from './reader/verify.js';
export type { SubscribeOptions, Subscription } from './subscriptions/subscription.js';
export type { SubscriptionStats } from './subscriptions/subscriptions.js';
export {
  type Bytes,
  type Durability,
  DurabilityLevel,
  type Lsn,
  type RecoveryMode,
  type RecoveryReport,
  type SyncMethod,
  type WalRecord,
} from './types.js';
export { type RepairOptions, type RepairReport, repairLog } from './upkeep/repair-log.js';
export {
  type CleanupResult,
  type ReadOptions,
  type RecoverOptions,
  type ReplayOptions,
  type WalEvents,
  type WalStats,
  WriteAheadLog,
} from './wal.js';
