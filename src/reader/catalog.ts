import { corrupt } from '../errors.js';
import type { IndexEntry } from '../format/seal.js';
import {
  decodeHeaderState,
  decodePrelude,
  SEGMENT_HEADER_UNIT,
  SegmentFlag,
  type SegmentHeader,
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

/** The segments of a log in order, from their headers. Ids are never reused, so a header is read once. */
export class Catalog {
  readonly files: ReadableFiles;
  /** Cuts that were found since the first look, or behind what was known before it. */
  readonly cuts = new Cuts();
  #looks = 0;
  #newestLook = 0;
  #headers: ReadonlyMap<string, SegmentHeader> = new Map();
  readonly #indexes = new Map<string, readonly IndexEntry[]>();
  #entries: CatalogEntry[] = [];

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

  /** Looks at the directory again. `onDamage` gets the headers that cannot be read; without it they throw. */
  async refresh(onDamage?: (name: string, error: unknown) => void): Promise<readonly CatalogEntry[]> {
    const look = ++this.#looks;
    const names = (await this.files.list()).filter((name) => segmentIdOf(name) !== undefined);
    // A map of its own: reads may run at once, and one's older list must not take from another what it has just read.
    const headers = new Map<string, SegmentHeader>();
    for (const name of names) {
      try {
        const header = this.#headers.get(name) ?? (await this.#readHeader(name));
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
    const known = this.#indexes.get(entry.name);
    if (known !== undefined) return known;
    const index = (await load()) ?? [];
    this.#indexes.set(entry.name, index);
    return index;
  }

  #noteCuts(headers: ReadonlyMap<string, SegmentHeader>): void {
    const firstLook = this.#newestLook === 0;
    for (const [name, { flags, firstLsn, segmentId }] of headers) {
      const isNew = firstLook ? segmentId > this.#knownId : !this.#headers.has(name);
      if (isNew && (flags & SegmentFlag.Truncates) !== 0) this.cuts.add(firstLsn - 1);
    }
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
  const block = new Uint8Array(SEGMENT_HEADER_UNIT);
  const prelude = decodePrelude(name, block.subarray(0, await file.read(block, 0)));
  if (prelude.segmentId !== segmentIdOf(name)) {
    throw corrupt(`${name} holds segment ${prelude.segmentId}: it was renamed or copied.`, {
      segment: name,
      offset: 0,
    });
  }
  if (prelude.headerBytes <= block.byteLength) return decodeHeaderState(name, prelude, block);
  const whole = new Uint8Array(prelude.headerBytes);
  return decodeHeaderState(name, prelude, whole.subarray(0, await file.read(whole, 0)));
}
