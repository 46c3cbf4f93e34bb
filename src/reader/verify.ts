import { WalError } from '../errors.js';
import { type EncryptionKey, KeyRing, keySourceOf } from '../format/key-ring.js';
import { SegmentFlag, type SegmentHeader } from '../format/segment-header.js';
import { beganAnewFrom, lastLsnOf } from '../segments/chain.js';
import { LOCK_NAME, segmentIdOf, segmentName } from '../segments/names.js';
import { isCompacted } from '../segments/segment-end.js';
import type { Lsn } from '../types.js';
import { Catalog } from './catalog.js';
import { RecycledMemory } from './chunks.js';
import { isGone, nodeFiles, type ReadableFile, type ReadableFiles } from './files.js';
import { type Damage, type SegmentFindings, SegmentVerifier, type Subject } from './verify-segment.js';

export type { Damage };

export interface VerifyOptions {
  /** Ends the verification; it then rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Called after every few hundred KiB. */
  onProgress?: (progress: VerifyProgress) => void;
  /**
   * Of an encrypted log, as for `open`: what it holds is then decrypted and checked too. One that is not the log's:
   * `ERR_WAL_KEY`. Default: only what does not need a key is checked.
   */
  encryptionKey?: EncryptionKey;
}

export interface VerifyProgress {
  /** Read so far. */
  bytes: number;
  totalBytes: number;
  /** Readable records so far. */
  records: number;
}

export interface VerifyReport {
  /** `clean`, or an unfinished group at the end that nobody was promised (`torn-tail`): both are sound. */
  verdict: 'clean' | 'torn-tail' | 'corrupt';
  /** Segment files that belong to the log. */
  segments: number;
  /** Records that are readable. */
  records: number;
  /** The first and last of them; 0 when there are none. */
  firstLsn: Lsn;
  lastLsn: Lsn;
  /** Every place where the log is not what was written, in order. Empty unless the verdict is `corrupt`. */
  damage: Damage[];
  /** LSNs that an earlier repair gave up: the log is sound, and they are not in it. */
  lost: { firstLsn: Lsn; lastLsn: Lsn }[];
  /** The log is encrypted. Absent when it is not. */
  encrypted?: true;
  /**
   * Of the records, those that hold by their checksums and could not be looked at: no key was given, or this Node.js lacks
   * the codec. Absent when there are none.
   */
  unchecked?: number;
}

/**
 * Reads every byte of the log in a directory and checks it: headers, frames, seals, and that each segment follows the
 * one before it. Behind a damage it goes on where it can, so that all of them are reported. Changes nothing, takes no
 * lock, and may run beside a writer: what is being written meanwhile counts as a torn tail at the most.
 *
 * Rejects with `ERR_WAL_NOT_FOUND` when there is no log, `ERR_WAL_VERSION` when a newer version wrote it, and
 * `ERR_WAL_FAILED` when it cannot be read.
 */
export async function verifyLog(directory: string, options: VerifyOptions = {}): Promise<VerifyReport> {
  options.signal?.throwIfAborted();
  const files = nodeFiles(directory);
  const names = await files.list().catch((error: WalError) => {
    const { code, message } = error.cause as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ENOTDIR') throw error;
    throw new WalError('ERR_WAL_NOT_FOUND', `There is no log in ${directory}: ${message}.`, { cause: error.cause });
  });
  if (!names.some((name) => name === LOCK_NAME || segmentIdOf(name) !== undefined)) {
    throw new WalError('ERR_WAL_NOT_FOUND', `There is no log in ${directory}.`);
  }
  const keys = new KeyRing(keySourceOf(options.encryptionKey));
  try {
    return await verifyFiles(files, options, keys);
  } catch (error) {
    if (error instanceof WalError || options.signal?.aborted) throw error;
    throw new WalError('ERR_WAL_FAILED', `The log in ${directory} cannot be read: ${(error as Error).message}.`, {
      cause: error,
    });
  }
}

/** The same for any files that look like a log's directory. */
export async function verifyFiles(
  files: ReadableFiles,
  options: VerifyOptions = {},
  keys = new KeyRing(undefined),
): Promise<VerifyReport> {
  for (let tries = 1; ; tries++) {
    const verifier = new LogVerifier(new Catalog(files), options, keys);
    const report = await verifier.verify();
    // What looks like damage may be a segment that a writer compacted while we read: look again.
    if (report.verdict !== 'corrupt' || tries === MOST_TRIES || !(await verifier.compactedMeanwhile())) return report;
  }
}

/** A writer that compacts its log again and again while we read it is not waited for longer than this. */
const MOST_TRIES = 5;

interface Checked {
  subject: Subject;
  findings: SegmentFindings;
}

class LogVerifier {
  readonly #catalog: Catalog;
  readonly #options: VerifyOptions;
  readonly #keys: KeyRing;
  readonly #memory = new RecycledMemory();
  readonly #headerDamage = new Map<string, string>();
  #bytesBefore = 0;
  #recordsBefore = 0;
  #totalBytes = 0;
  /** Of the segments as they were listed. */
  #headerCrcs: number[] = [];

  constructor(catalog: Catalog, options: VerifyOptions, keys: KeyRing) {
    this.#catalog = catalog;
    this.#keys = keys;
    this.#options = options;
  }

  async verify(): Promise<VerifyReport> {
    const segments = await this.#listSegments();
    // Before any frame is read: with the wrong key, all of them would look like forgeries.
    for (const { header } of segments) if (header) await this.#keys.load(header.logId, header.state.encryption);
    const newest = segments.findLast(({ header }) => header !== undefined)?.header;
    if (newest !== undefined && this.#keys.hasSource) await this.#keys.unlock(newest.logId, newest.state.encryption);
    this.#totalBytes = segments.reduce((sum, { size }) => sum + size, 0);
    const checked: Checked[] = [];
    let expectedLsn = 1;
    for (const [i, { name, header, size }] of segments.entries()) {
      const successor = segments[i + 1]?.header;
      const next = successor?.previous.segmentId === segmentIdOf(name) ? successor : undefined;
      const lastLsn = next && lastLsnOf({ header: next, next });
      const subject = { name, header, next, lastLsn, isLast: i === segments.length - 1, expectedLsn };
      const findings = await this.#checkSegment(subject);
      this.#bytesBefore += size;
      if (findings === undefined) continue;
      this.#recordsBefore += findings.records;
      expectedLsn = findings.endLsn + 1;
      checked.push({ subject, findings });
    }
    return report(checked);
  }

  /** Whether a compacted segment is there that was not when we began. */
  async compactedMeanwhile(): Promise<boolean> {
    const known = new Set(this.#headerCrcs);
    const entries = await new Catalog(this.#catalog.files).refresh(() => undefined);
    return entries.some(({ header }) => isCompacted(header) && !known.has(header.headerCrc));
  }

  /** The segments in order, those with a damaged header included. */
  async #listSegments(): Promise<{ name: string; header: SegmentHeader | undefined; size: number }[]> {
    let entries = await this.#refresh();
    // A directory that changes while it is listed may hide a segment once, but not twice.
    if (entries.some(({ header, next }) => next !== undefined && next.previous.segmentId !== header.segmentId)) {
      entries = await this.#refresh();
    }
    const headers = new Map(entries.map(({ name, header }) => [name, header]));
    this.#headerCrcs = entries.map(({ header }) => header.headerCrc);
    const names = [...headers.keys(), ...this.#headerDamage.keys()].sort();
    return Promise.all(
      names.map(async (name) => ({ name, header: headers.get(name), size: (await this.#sizeOf(name)) ?? 0 })),
    );
  }

  #refresh() {
    this.#headerDamage.clear();
    return this.#catalog.refresh((name, error) => {
      if (!(error instanceof WalError) || error.code !== 'ERR_WAL_CORRUPT') throw error;
      this.#headerDamage.set(name, error.message);
    });
  }

  async #sizeOf(name: string): Promise<number | undefined> {
    return this.#withFile(name, (file) => file.size());
  }

  /** Undefined when the segment is cleaned up, or was while it was read. */
  async #checkSegment(subject: Subject): Promise<SegmentFindings | undefined> {
    const { signal, onProgress } = this.#options;
    const { name, header } = subject;
    const findings = await this.#withFile(name, (file) => {
      const verifier = new SegmentVerifier(
        file,
        subject,
        this.#memory,
        (offset, records) => {
          signal?.throwIfAborted();
          onProgress?.({
            bytes: this.#bytesBefore + offset,
            totalBytes: this.#totalBytes,
            records: this.#recordsBefore + records,
          });
        },
        this.#keys,
      );
      return verifier.verify();
    });
    if (findings === undefined) return undefined;
    const headerDamage = this.#headerDamage.get(name);
    if (headerDamage !== undefined) {
      findings.damage.unshift({ segment: name, offset: 0, lsn: subject.expectedLsn, reason: headerDamage });
    }
    // A writer may have taken the file for its next segment while we read.
    if (findings.damage.length > 0 && header !== undefined) {
      if (!(await this.#catalog.files.list()).includes(name)) return undefined;
    }
    return findings;
  }

  async #withFile<T>(name: string, use: (file: ReadableFile) => Promise<T>): Promise<T | undefined> {
    let file: ReadableFile;
    try {
      file = await this.#catalog.files.open(name);
    } catch (error) {
      if (isGone(error)) return undefined;
      throw error;
    }
    try {
      return await use(file);
    } finally {
      await file.close();
    }
  }
}

/** Puts together what belongs to the log: segments below the clean-up mark do not any more. */
function report(checked: Checked[]): VerifyReport {
  const low = lowOf(checked);
  const kept = keptOf(checked, low);
  // Of a file without a header nobody knows that it was cleaned up: open refuses the log for it.
  const damage = checked.flatMap((each) =>
    each.subject.header === undefined && !kept.includes(each) ? each.findings.damage.slice(0, 1) : [],
  );
  kept.forEach(({ subject, findings }, i) => {
    damage.push(...chainDamage(kept[i - 1], subject, low), ...findings.damage);
  });
  const readable = kept.map(({ findings }) => findings).filter((findings) => findings.records > 0);
  const torn = kept.some(({ findings }) => findings.torn);
  const encrypted = kept.some(({ findings }) => findings.state?.encryption !== undefined);
  const unchecked = readable.reduce((sum, findings) => sum + findings.unchecked, 0);
  return {
    verdict: damage.length > 0 ? 'corrupt' : torn ? 'torn-tail' : 'clean',
    segments: kept.length,
    records: readable.reduce((sum, { records }) => sum + records, 0),
    firstLsn: readable[0]?.firstLsn ?? 0,
    lastLsn: readable[readable.length - 1]?.lastLsn ?? 0,
    damage,
    lost: kept.flatMap(({ findings }) => findings.lost),
    ...(encrypted && { encrypted }),
    ...(unchecked > 0 && { unchecked }),
  };
}

/**
 * The clean-up mark, as the newest segment has it whose header can be read, and what stands behind that. Not the highest of
 * all: a file that does not belong here must not make others look cleaned up.
 */
function lowOf(checked: readonly Checked[]): Lsn {
  const newest = checked.findLastIndex(({ subject }) => subject.header !== undefined);
  return checked
    .slice(Math.max(newest, 0))
    .reduce((highest, { findings }) => Math.max(highest, findings.state?.low ?? 1), 1);
}

/**
 * The segments that were not cleaned up: from the last one on that begins at or below the mark. Where a log was begun anew, all
 * behind the place where it was count, whatever their LSNs are, as they do for open.
 */
function keptOf(checked: readonly Checked[], low: Lsn): Checked[] {
  const first = checked.findLastIndex(({ subject: { header } }) => header !== undefined && header.firstLsn <= low);
  const anew = beganAnewFrom(
    checked.map(({ subject: { name, header } }) => ({
      id: segmentIdOf(name)!,
      previousId: header?.previous.segmentId,
    })),
  );
  return checked.filter(({ subject, findings }, i) => {
    return subject.isLast || i >= anew || (i >= first && findings.endLsn >= low);
  });
}

/** What is wrong between a segment and the one before it. */
function chainDamage(before: Checked | undefined, { name, header }: Subject, low: Lsn): Damage[] {
  if (header === undefined) return [];
  const damage: Damage[] = [];
  const note = (segment: string, lsn: Lsn, reason: string) => damage.push({ segment, offset: 0, lsn, reason });
  const { previous, firstLsn, flags } = header;
  if (before === undefined) {
    if (firstLsn > low) note(name, low, `the segments before it are missing: the log starts at LSN ${low}`);
    return damage;
  }
  const { subject, findings } = before;
  const beforeId = segmentIdOf(subject.name)!;
  const lsn = findings.endLsn + 1;
  const cuts = (flags & SegmentFlag.Truncates) !== 0;
  if (subject.header !== undefined && Buffer.compare(header.logId, subject.header.logId) !== 0) {
    note(name, lsn, 'it belongs to another log');
  } else if (previous.segmentId > beforeId) {
    note(segmentName(previous.segmentId), lsn, `the segment is missing: ${name} follows it`);
  } else if (previous.segmentId < beforeId) {
    note(subject.name, lsn, `${name} does not follow it, but segment ${previous.segmentId}`);
  } else if (firstLsn > previous.lastLsn + 1 || (firstLsn <= previous.lastLsn && !cuts)) {
    note(name, lsn, `it starts at LSN ${firstLsn}, and the segment before it ended at LSN ${previous.lastLsn}`);
  }
  return damage;
}
