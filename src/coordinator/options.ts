import { availableParallelism } from 'node:os';
import { invalidArgument } from '../errors.js';
import { CODEC_NAMES, type CodecName, isAvailable } from '../format/codec.js';
import { type EncryptionKey, type KeyFunction, keySourceOf } from '../format/key-ring.js';
import { checkLevel, checkSignal, describe } from '../producer/arguments.js';
import type { SurveyProgress as RecoveryProgress } from '../recovery/survey.js';
import type { Durability, RecoveryMode, SyncMethod } from '../types.js';

const KIB = 1024;
const MIB = 1024 * KIB;

export interface OpenOptions {
  /** For appends that name none. @default 'disk' */
  durability?: Durability;
  /** Size of a segment file in bytes, prepared ahead of need. A larger record gets a larger file. @default 64 MiB */
  segmentBytes?: number;
  /** Shared memory of each producer thread in bytes; bounds what it has in flight. @default 16 MiB */
  ringBytes?: number;
  /** Limit of one record in bytes, checked at append. @default a quarter of the ring */
  maxRecordBytes?: number;
  /** Limit of one transaction in bytes, which are kept in memory until it is committed. @default 1 GiB */
  maxTransactionBytes?: number;
  /** Target size of one frame in bytes. @default 256 KiB */
  frameBytes?: number;
  /**
   * Threads of the Piscina pool that checksums, compresses and encrypts large frames of the opening thread. Without it, a
   * machine of two processors or less leaves to the pool only what is very large: there the appending thread is quicker
   * by itself. @default by the machine: cores - 1, at least 1, at most 4
   */
  encoders?: number;
  /**
   * How records are compressed, frame by frame, when it pays: 'brotli', 'deflate', and 'zstd' where Node.js has it (22.15).
   * What is written already stays as it is, and every log can be read whatever this says. @default 'none'
   */
  compression?: CodecName;
  /**
   * 32 bytes: what callers append is encrypted with AES-256-GCM. A function: a key by its id, and the one to go on with
   * when no id is asked for (at `open` and `rotate`). A log that is encrypted opens with its key alone: `ERR_WAL_KEY`.
   * The bytes are copied at once. See docs/ENCRYPTION.md. @default none
   */
  encryptionKey?: EncryptionKey;
  /** How bytes reach stable storage: a call after the write, or files opened with O_DSYNC. @default 'fdatasync' */
  syncMethod?: SyncMethod;
  /**
   * Whether what waits for `disk` alone may be written past the page cache and synced in one call (O_DIRECT and O_DSYNC), where
   * the platform and the filesystem have that. For a filesystem that does not keep what O_DSYNC promises. @default true
   */
  writeThrough?: boolean;
  /** The longest that an unsynced record stays so, in milliseconds; 0: never sync on time alone. @default 1000 */
  flushIntervalMs?: number;
  /**
   * What to do about an unfinished end of the log, and about damage. 'strict' refuses both; 'tolerate-torn-tail' cuts an
   * unfinished end off; 'point-in-time' reads everything, ends the log before the first damage and quarantines the rest;
   * 'salvage' opens read-only and reads around every hole. @default 'tolerate-torn-tail'
   */
  recoveryMode?: RecoveryMode;
  /** Whether a directory that does not exist is made. @default true */
  createIfMissing?: boolean;
  /** Takes no lock and may run beside a writer in another process; nothing can be appended. @default false */
  readOnly?: boolean;
  /** Clean up after each checkpoint. @default true */
  autoCleanup?: boolean;
  /**
   * Compact by itself once this part of the sealed segments' bytes is likely to be garbage: a number above 0, up to 1;
   * 0 never does. Looked at after each rotation. @default 0
   */
  autoCompact?: number;
  /** Aborts the opening. */
  signal?: AbortSignal;
  /** Called now and then while a long recovery reads: the last segment, or the whole log with 'point-in-time' and 'salvage'. */
  onProgress?: (progress: RecoveryProgress) => void;
}

export interface ResolvedOptions
  extends Required<Omit<OpenOptions, 'signal' | 'durability' | 'compression' | 'encryptionKey' | 'onProgress'>> {
  level: number;
  codec: number;
  /** Whether the pool has a processor for itself, or the caller wants it used. */
  poolPays: boolean;
  keySource: KeyFunction | undefined;
  signal: AbortSignal | undefined;
  onProgress: OpenOptions['onProgress'];
}

const KNOWN = new Set([
  'durability',
  'segmentBytes',
  'ringBytes',
  'maxRecordBytes',
  'maxTransactionBytes',
  'frameBytes',
  'encoders',
  'compression',
  'encryptionKey',
  'syncMethod',
  'writeThrough',
  'flushIntervalMs',
  'recoveryMode',
  'createIfMissing',
  'readOnly',
  'autoCleanup',
  'autoCompact',
  'signal',
  'onProgress',
  'replica',
]);
const MODES: readonly RecoveryMode[] = ['tolerate-torn-tail', 'strict', 'point-in-time', 'salvage'];

export function resolveOptions(options: OpenOptions): ResolvedOptions {
  if (typeof options !== 'object' || options === null)
    throw invalidArgument(`options must be an object, not ${describe(options)}.`);
  const unknown = Object.keys(options).find((name) => !KNOWN.has(name));
  if (unknown !== undefined) throw invalidArgument(`There is no option '${unknown}'.`);
  refuseWhatIsNotThere(options as Record<string, unknown>);
  const ringBytes = size(options.ringBytes ?? 16 * MIB, 'ringBytes', 64 * KIB, 1024 * MIB);
  const { signal, onProgress } = options;
  if (signal !== undefined) checkSignal(signal);
  if (onProgress !== undefined && typeof onProgress !== 'function')
    throw invalidArgument('onProgress must be a function.');
  const recoveryMode = oneOf(options.recoveryMode ?? 'tolerate-torn-tail', 'recoveryMode', MODES);
  const readOnly = flag(options.readOnly ?? false, 'readOnly') || recoveryMode === 'salvage';
  if (readOnly && recoveryMode === 'point-in-time')
    throw invalidArgument(
      "recoveryMode 'point-in-time' changes the log, and readOnly must not; use 'salvage' to read.",
    );
  return {
    level: checkLevel(options.durability ?? 'disk'),
    codec: codecOf(options.compression ?? 'none'),
    poolPays: options.encoders !== undefined || availableParallelism() > 2,
    keySource: keySourceOf(options.encryptionKey),
    segmentBytes: size(options.segmentBytes ?? 64 * MIB, 'segmentBytes', 64 * KIB, 4096 * MIB),
    ringBytes,
    maxRecordBytes: integer(
      options.maxRecordBytes ?? Math.floor(ringBytes / 4),
      'maxRecordBytes',
      1,
      Math.floor(ringBytes / 4),
    ),
    maxTransactionBytes: integer(
      options.maxTransactionBytes ?? 1024 * MIB,
      'maxTransactionBytes',
      1,
      Number.MAX_SAFE_INTEGER,
    ),
    frameBytes: integer(
      options.frameBytes ?? Math.min(256 * KIB, ringBytes / 4),
      'frameBytes',
      4 * KIB,
      Math.floor(ringBytes / 4),
    ),
    encoders: integer(options.encoders ?? Math.min(4, Math.max(1, availableParallelism() - 1)), 'encoders', 1, 64),
    syncMethod: oneOf(options.syncMethod ?? 'fdatasync', 'syncMethod', ['fdatasync', 'dsync']),
    writeThrough: flag(options.writeThrough ?? true, 'writeThrough'),
    flushIntervalMs: integer(options.flushIntervalMs ?? 1000, 'flushIntervalMs', 0, 2 ** 31 - 1),
    recoveryMode,
    createIfMissing: flag(options.createIfMissing ?? true, 'createIfMissing'),
    readOnly,
    autoCleanup: flag(options.autoCleanup ?? true, 'autoCleanup'),
    autoCompact: ratio(options.autoCompact ?? 0, 'autoCompact'),
    signal,
    onProgress,
  };
}

function refuseWhatIsNotThere(options: Record<string, unknown>): void {
  if (options.replica !== undefined) throw invalidArgument("The option 'replica' is not available in this version.");
}

function codecOf(compression: unknown): number {
  const codec = CODEC_NAMES.indexOf(oneOf(compression, 'compression', CODEC_NAMES));
  if (isAvailable(codec)) return codec;
  throw invalidArgument(
    `compression '${CODEC_NAMES[codec]}' needs Node.js 22.15 or later; this is ${process.version}.`,
  );
}

function integer(value: unknown, name: string, least: number, most: number): number {
  if (Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most) return value as number;
  throw invalidArgument(`${name} must be a whole number from ${least} to ${most}, not ${describe(value)}.`);
}

/** A size in bytes, rounded up to whole blocks. */
function size(value: unknown, name: string, least: number, most: number): number {
  return Math.ceil(integer(value, name, least, most) / 4096) * 4096;
}

function ratio(value: unknown, name: string): number {
  if (typeof value === 'number' && value >= 0 && value <= 1) return value;
  throw invalidArgument(`${name} must be a number from 0 to 1, not ${describe(value)}.`);
}

function flag(value: unknown, name: string): boolean {
  if (typeof value === 'boolean') return value;
  throw invalidArgument(`${name} must be true or false, not ${describe(value)}.`);
}

function oneOf<T extends string>(value: unknown, name: string, allowed: readonly T[]): T {
  if ((allowed as readonly unknown[]).includes(value)) return value as T;
  throw invalidArgument(
    `${name} must be one of ${allowed.map((item) => `'${item}'`).join(', ')}, not ${describe(value)}.`,
  );
}
