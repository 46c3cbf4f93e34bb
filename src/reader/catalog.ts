import { corrupt } from '../errors.js';
import type { IndexEntry } from '../format/seal.js';
import {
  decodeHeaderState,
  decodePrelude,
  SEGMENT_HEADER_UNIT,
  SEGMENT_PRELUDE_BYTES,
  SegmentFlag,
  type SegmentHeader,
  tooShort,
} from '../format/segment-header.js';
import { chainOf, lastLsnOf } from '../segments/chain.js';
import { segmentIdOf, segmentName } from '../segments/names.js';
import type { Lsn } from '../types.js';
import { Cuts } from './cuts.js';
import { isGone, type ReadableFile, type ReadableFiles } from './files.js';

/** A segment as its own header and its successor's describe it. */
export interface CatalogEntry {
  name: string;
  header: SegmentHeader;
  /** The next segment's header, which says where this one ends; undefined for the last. */
  next: SegmentHeader | undefined;
  /** The last LSN that belongs to the log; undefined for the last segment. */
  lastLsn: Lsn | undefined;
}

/**
 * The segments of a log in order, from their headers. Ids are never reused, so a header is read once; but compaction may
 * put another file in the place of a segment. Where names have gone since the last look, the headers behind them are read
 * again; and whoever opens a file compares it with the header known here, and asks for {@link renew} when it is another.
 */
export class Catalog {
  readonly files: ReadableFiles;
  /** Cuts that were found since the first look, or behind what was known before it. */
  readonly cuts = new Cuts();
  #looks = 0;
  #newestLook = 0;
  #headers: ReadonlyMap<string, SegmentHeader> = new Map();
  readonly #indexes = new Map<string, { headerCrc: number; index: readonly IndexEntry[] }>();
  #entries: CatalogEntry[] = [];
  #outdated = false;
  /** Whose headers are read again at the next look. */
  readonly #doubted = new Set<string>();

  readonly #knownId: number;

  /** `knownId`: the id of the last segment that its reader knows already; a cut behind it is news, also at the first look. */
  constructor(files: ReadableFiles, knownId = Number.POSITIVE_INFINITY) {
    this.files = files;
    this.#knownId = knownId;
  }

  /** What the last {@link refresh} found. */
  get entries(): readonly CatalogEntry[] {
    return this.#entries;
  }

  /** The same without files of which cuts left nothing, and that the power brought back when the segments that cut were cleaned up. */
  get held(): readonly CatalogEntry[] {
    return this.#entries.filter(({ header, lastLsn = Number.POSITIVE_INFINITY }) => lastLsn >= header.firstLsn - 1);
  }

  /** The last look failed: what it was for, a cut of the log perhaps, is not known here. */
  get outdated(): boolean {
    return this.#outdated;
  }

  /** Looks at the directory again. `onDamage` gets the headers that cannot be read; without it they throw. */
  async refresh(onDamage?: (name: string, error: unknown) => void): Promise<readonly CatalogEntry[]> {
    try {
      return await this.#look(onDamage);
    } catch (error) {
      this.#outdated = true;
      throw error;
    }
  }

  async #look(onDamage?: (name: string, error: unknown) => void): Promise<readonly CatalogEntry[]> {
    const look = ++this.#looks;
    const names = (await this.files.list()).filter((name) => segmentIdOf(name) !== undefined);
    // A map of its own: reads may run at once, and one's older list must not take from another what it has just read.
    const headers = new Map<string, SegmentHeader>();
    const replaced = this.#behindGone(names);
    for (const name of this.#doubted) replaced.add(name);
    this.#doubted.clear();
    let gone = false;
    for (const name of names) {
      try {
        const known: SegmentHeader | undefined = gone || replaced.has(name) ? undefined : this.#headers.get(name);
        const header: SegmentHeader | undefined = known ?? (await this.#readHeader(name));
        // Gone since the directory was listed: one that stands behind it may have taken its place in the meantime.
        gone ||= header === undefined;
        if (header !== undefined) headers.set(name, header);
      } catch (error) {
        if (onDamage === undefined) throw error;
        onDamage(name, error);
      }
    }
    // One that began earlier and took longer: what it found is old by now.
    if (look < this.#newestLook) return this.#entries;
    this.#noteCuts(headers);
    this.#newestLook = look;
    this.#outdated = false;
    this.#headers = headers;
    for (const name of this.#indexes.keys()) if (!headers.has(name)) this.#indexes.delete(name);
    this.#entries = chainOf([...headers.values()]).map((link) => ({
      name: segmentName(link.header.segmentId),
      ...link,
      lastLsn: lastLsnOf(link),
    }));
    return this.#entries;
  }

  /** The sparse index of a sealed segment, read once; empty when it has none that holds. */
  async index(entry: CatalogEntry, load: () => Promise<IndexEntry[] | undefined>): Promise<readonly IndexEntry[]> {
    const { headerCrc } = entry.header;
    const known = this.#indexes.get(entry.name);
    if (known?.headerCrc === headerCrc) return known.index;
    const index = (await load()) ?? [];
    this.#indexes.set(entry.name, { headerCrc, index });
    return index;
  }

  /** Looks again at the directory and at the header of this file, which is gone, or not the one that was read. */
  async renew(name: string): Promise<void> {
    this.#doubted.add(name);
    await this.refresh();
  }

  /** Whether an open file is the one that the entry speaks of. */
  async isFileOf({ header }: CatalogEntry, file: ReadableFile): Promise<boolean> {
    const bytes = new Uint8Array(4);
    const read = await file.read(bytes, SEGMENT_PRELUDE_BYTES - bytes.byteLength);
    return read === bytes.byteLength && new DataView(bytes.buffer).getUint32(0, true) === header.headerCrc;
  }

  /**
   * Of `names`, those that stand behind one that is not there any more: a compacted file may have taken their place, not
   * always that of the next one, because what it replaced is removed file by file, and a removal may fail.
   */
  #behindGone(names: readonly string[]): Set<string> {
    const there = new Set(names);
    const gone = [...this.#headers.keys()].find((name) => !there.has(name));
    return new Set(gone === undefined ? [] : names.filter((name) => name > gone));
  }

  #noteCuts(headers: ReadonlyMap<string, SegmentHeader>): void {
    const firstLook = this.#newestLook === 0;
    for (const [name, { flags, firstLsn, segmentId }] of headers) {
      const isNew = firstLook ? segmentId > this.#knownId : !this.#headers.has(name);
      if (!isNew || (flags & SegmentFlag.Truncates) === 0) continue;
      // A compacted file repeats the cut that the first segment in it made.
      if ((flags & SegmentFlag.Compacted) === 0 || !this.#knowsCutTo(firstLsn)) this.cuts.add(firstLsn - 1);
    }
  }

  #knowsCutTo(lsn: Lsn): boolean {
    return [...this.#headers.values()].some(
      ({ flags, firstLsn }) => (flags & SegmentFlag.Truncates) !== 0 && firstLsn === lsn,
    );
  }

  async #readHeader(name: string): Promise<SegmentHeader | undefined> {
    let file: ReadableFile;
    try {
      file = await this.files.open(name);
    } catch (error) {
      // Cleaned up since the directory was listed.
      if (isGone(error)) return undefined;
      throw error;
    }
    try {
      return await readSegmentHeader(name, file);
    } catch (error) {
      // A writer may have taken the file for its next segment since we opened it. Ids are never used again, so a name
      // that is there still was there all the while.
      if (!(await this.files.list()).includes(name)) return undefined;
      throw error;
    } finally {
      await file.close();
    }
  }
}

export async function readSegmentHeader(name: string, file: ReadableFile): Promise<SegmentHeader> {
  const unit = new Uint8Array(SEGMENT_HEADER_UNIT);
  const block = unit.subarray(0, await file.read(unit, 0));
  const prelude = decodePrelude(name, block);
  if (prelude.segmentId !== segmentIdOf(name)) {
    throw corrupt(`${name} holds segment ${prelude.segmentId}: it was renamed or copied.`, {
      segment: name,
      offset: 0,
    });
  }
  if (prelude.headerBytes <= unit.byteLength) return decodeHeaderState(name, prelude, block);
  if ((await file.read(new Uint8Array(1), prelude.headerBytes - 1)) === 0) throw tooShort(name);
  const whole = new Uint8Array(prelude.headerBytes);
  return decodeHeaderState(name, prelude, whole.subarray(0, await file.read(whole, 0)));
}
