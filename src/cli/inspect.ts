import fs from 'node:fs';
import { toPlainError, WalError } from '../errors.js';
import { type EncryptionKey, KeyRing, keySourceOf } from '../format/key-ring.js';
import { FORMAT_VERSION, type SegmentHeader } from '../format/segment-header.js';
import type { EncryptionState, LogState } from '../format/state.js';
import { preparedIn } from '../kv/transactions.js';
import { inspectLive } from '../recovery/inspect-live.js';
import { knownKeys } from '../recovery/known-keys.js';
import { openError, type RecoveryReport } from '../recovery/recover.js';
import { chainOf, lastLsnOf } from '../segments/chain.js';
import { LOCK_NAME, segmentIdOf, segmentName } from '../segments/names.js';
import { readContent, readHeader, withFile } from '../segments/read-segment.js';
import { NodeStorage } from '../storage/node-storage.js';
import type { Storage } from '../storage/storage.js';
import type { Lsn } from '../types.js';
import type { Command } from './command.js';
import { plural, size, table } from './figures.js';
import { keyFrom } from './key-file.js';

interface InspectedSegment {
  file: string;
  /** Null when the segment's header cannot be read. */
  firstLsn: Lsn | null;
  /** firstLsn - 1 when it holds no records. */
  lastLsn: Lsn | null;
  bytes: number;
  state: 'sealed' | 'open';
}

interface Corruption {
  verdict: 'corrupt';
  message: string;
  segment?: string;
  offset?: number;
  lsn?: Lsn;
}

interface Inspection {
  /** Null when the log has no segment yet. */
  logId: string | null;
  formatVersion: number;
  checkpoint: Lsn;
  segments: InspectedSegment[];
  subscriptions: { name: string; acknowledged: Lsn; lag: number }[];
  /** Null when the log is not encrypted. */
  encryption: { currentKey: number; keys: number[] } | null;
  /** Prepared, and neither committed nor aborted. */
  transactions: { id: string; firstLsn: Lsn; operations: number }[];
  /** What opening the log would find. */
  recovery: RecoveryReport | Corruption;
}

export const inspect: Command = {
  name: 'inspect',
  synopsis: 'DIR',
  summary: 'Shows what a log consists of, and what opening it would find.',
  details:
    'Reads the headers and the end of the log only, and changes nothing; another process may be writing to it.\n' +
    "Use 'ringwal verify' to read everything.",
  options: {},
  positionals: { least: 1, most: 1 },
  async run({ positionals: [directory], values, out }) {
    const inspection = await inspectDirectory(directory, keyFrom(values));
    await out.write(values.json === true ? `${JSON.stringify(inspection)}\n` : describe(inspection));
    return 0;
  },
};

async function inspectDirectory(directory: string, key: EncryptionKey | undefined): Promise<Inspection> {
  const storage = new NodeStorage(directory);
  try {
    if (!holdsLog(directory)) throw new WalError('ERR_WAL_NOT_FOUND', `There is no log in ${directory}.`);
    const inspection = await inspectStorage(storage, directory);
    // It needs none; but whoever gives one wants to know whether it is the right one.
    const known = key && (await knownKeys(storage, false));
    if (known !== undefined) {
      await new KeyRing(keySourceOf(key)).unlock(known.logId, known.encryption);
    }
    return inspection;
  } catch (error) {
    throw openError(error, directory);
  }
}

function holdsLog(directory: string): boolean {
  if (!fs.statSync(directory, { throwIfNoEntry: false })?.isDirectory()) return false;
  return fs.readdirSync(directory).some((name) => name === LOCK_NAME || segmentIdOf(name) !== undefined);
}

async function inspectStorage(storage: Storage, directory: string): Promise<Inspection> {
  const { names, headers } = segmentsOf(storage);
  const newest = names[names.length - 1];
  const last = contentOf(storage, newest, headers.get(newest));
  const known = [...headers.values()].filter((header) => header !== undefined).pop();
  const state = last?.state ?? known?.state;
  const lastLsn = last?.lastLsn ?? known?.previous.lastLsn ?? 0;
  return {
    logId: known === undefined ? null : Buffer.from(known.logId).toString('hex'),
    formatVersion: FORMAT_VERSION,
    checkpoint: state?.checkpoint ?? 0,
    segments: names.map((file, i) => ({
      file,
      firstLsn: headers.get(file)?.firstLsn ?? null,
      lastLsn: endOf(file, headers.get(names[i + 1])) ?? contentOf(storage, file, headers.get(file))?.lastLsn ?? null,
      bytes: withFile(storage, file, (opened) => opened.size()),
      state: file === newest && !last?.sealed ? 'open' : 'sealed',
    })),
    subscriptions: Object.entries(state?.subscriptions ?? {}).map(([name, { acknowledged }]) => ({
      name,
      acknowledged,
      lag: lastLsn - acknowledged,
    })),
    encryption: state?.encryption === undefined ? null : describeKeys(state.encryption),
    transactions: preparedIn(state).map(({ id, first, operations }) => ({ id, firstLsn: first, operations })),
    recovery: await whatRecoverySays(storage, directory),
  };
}

function describeKeys({ current, keys }: EncryptionState): NonNullable<Inspection['encryption']> {
  return { currentKey: current, keys: Object.keys(keys).map(Number) };
}

/** The files of the log, and their headers as far as they can be read: that they cannot is recovery's to say. */
function segmentsOf(storage: Storage): { names: string[]; headers: Map<string, SegmentHeader | undefined> } {
  const files = storage.list().filter((name) => segmentIdOf(name) !== undefined);
  const headers = new Map(files.map((name) => [name, orUndefined(() => withFile(storage, name, readHeader))] as const));
  const readable = [...headers.values()].filter((header) => header !== undefined);
  const chain = new Set(chainOf(readable).map(({ header }) => segmentName(header.segmentId)));
  // A segment that was cut away is no part of the log any more, and not in the chain.
  const names = files.filter((name) => chain.has(name) || headers.get(name) === undefined);
  return { names, headers };
}

/** The last LSN of a segment, as the one that follows directly tells it. */
function endOf(name: string, next: SegmentHeader | undefined): Lsn | undefined {
  if (next === undefined || next.previous.segmentId !== segmentIdOf(name)) return undefined;
  return lastLsnOf({ header: next, next });
}

/** Undefined when there is no such segment, or it cannot be read. */
function contentOf(
  storage: Storage,
  name: string | undefined,
  header: SegmentHeader | undefined,
): { lastLsn: Lsn; sealed: boolean; state: LogState } | undefined {
  if (name === undefined || header === undefined) return undefined;
  return orUndefined(() => withFile(storage, name, (file) => readContent(file, header)));
}

function orUndefined<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof WalError && error.code === 'ERR_WAL_CORRUPT') return undefined;
    throw error;
  }
}

async function whatRecoverySays(storage: Storage, directory: string): Promise<RecoveryReport | Corruption> {
  const startedAt = performance.now();
  try {
    const { report } = await inspectLive(storage, 'tolerate-torn-tail');
    return { ...report, durationMs: performance.now() - startedAt };
  } catch (error) {
    const { code, message, segment, offset, lsn } = toPlainError(openError(error, directory));
    if (code !== 'ERR_WAL_CORRUPT') throw error;
    return { verdict: 'corrupt', message, segment, offset, lsn };
  }
}

function describe({
  logId,
  formatVersion,
  checkpoint,
  segments,
  subscriptions,
  encryption,
  transactions,
  recovery,
}: Inspection): string {
  const rows = segments.map(({ file, firstLsn, lastLsn, bytes, state }) => [
    file,
    firstLsn ?? '?',
    lastLsn ?? '?',
    size(bytes),
    state,
  ]);
  const readers = subscriptions.map(({ name, acknowledged, lag }) => [name, acknowledged, lag]);
  const doubtful = transactions.map(({ id, firstLsn, operations }) => [id, firstLsn, operations]);
  return [
    `log ${logId ?? '(nothing written yet)'}, format ${formatVersion}, checkpoint at LSN ${checkpoint}\n`,
    encryption === null
      ? ''
      : `encrypted, with key ${encryption.currentKey} now (known: ${encryption.keys.join(', ')})\n`,
    `\n${plural(segments.length, 'segment')}\n`,
    rows.length > 0 ? table(['file', 'first LSN', 'last LSN', 'size', 'state'], rows) : '',
    readers.length > 0 ? `\n${plural(readers.length, 'subscription')}\n` : '',
    readers.length > 0 ? table(['name', 'acknowledged', 'lag'], readers) : '',
    doubtful.length > 0 ? `\n${plural(doubtful.length, 'transaction')} in doubt\n` : '',
    doubtful.length > 0 ? table(['id', 'first LSN', 'operations'], doubtful) : '',
    `\nopening it would find: ${outlook(recovery)}\n`,
  ].join('');
}

function outlook(recovery: RecoveryReport | Corruption): string {
  if (recovery.verdict === 'corrupt') return `corrupt. ${(recovery as Corruption).message}`;
  const { verdict, records, firstLsn, lastLsn, discardedBytes } = recovery as RecoveryReport;
  const range = records === 0 ? '' : `, LSN ${firstLsn} to ${lastLsn}`;
  const cut = verdict === 'torn-tail' ? `, ${size(discardedBytes)} to be cut off at the end` : '';
  return `${verdict}, ${plural(records, 'record')}${range}${cut}`;
}
