import type { WalRecord } from './format/record.js';
import type { RecoveryMode, RecoveryReport } from './recovery/recover.js';
import type { SyncMethod } from './storage/node-storage.js';

export type { RecoveryMode, RecoveryReport, SyncMethod, WalRecord };

/** Log sequence number: 1 for the first record of a log, then consecutive. */
export type Lsn = number;

/** How safe a record is by the time its append resolves. Each level implies the ones before it. */
export type Durability = 'memory' | 'os' | 'disk' | 'replicated';

export const DurabilityLevel = {
  /** In the shared ring and sequenced. Survives an exception in the producer. */
  Memory: 'memory',
  /** Handed to the kernel. Survives the death of the process. */
  Os: 'os',
  /** On stable storage. Survives power loss. */
  Disk: 'disk',
  /** The same as `Disk`. */
  Strong: 'disk',
  /** On stable storage of the replica too. */
  Replicated: 'replicated',
} as const satisfies Record<string, Durability>;

export type Bytes = Uint8Array | string;
