import type { FrameHeader } from '../format/frame.js';
import type { PayloadKeys } from '../format/frame-payload.js';
import { RecordKind } from '../format/record.js';
import { SegmentFlag } from '../format/segment-header.js';
import { type RawRecord, scanRecords } from '../format/sparse.js';
import type { SegmentInfo } from '../segments/segment-info.js';
import type { Storage } from '../storage/storage.js';
import { FULL, KeyTable, type Part, SUPERSEDED } from './key-table.js';
import { Marks, MarksFile, type MarksPlace } from './marks.js';
import type { Pace } from './pace.js';
import { type Look, lookInto, withSegment } from './source.js';

/** A sealed segment, and what of it is garbage. */
export interface MarkedSegment {
  info: SegmentInfo;
  marks: MarksPlace;
  /** Records in it, those of frames included that are not looked into. */
  records: number;
  /** How many of them are garbage. */
  dead: number;
  /** Transactions that were aborted, of which it holds parts: these are garbage. */
  aborted: string[];
  /** It is not rewritten: it holds frames that are encrypted with a key that is not at hand. */
  fixed: boolean;
  /** It cut off what segments before it held: it is not merged with them. */
  truncates: boolean;
}

export interface MarkOptions {
  /** The log's: everything up to it is safe outside. */
  checkpoint: number;
  /** The log holds its whole history, and no state outside it is known: what was deleted is nowhere. */
  whole: boolean;
  /** Memory for keys. */
  keyBytes: number;
  /** Of an encrypted log. */
  keys?: PayloadKeys;
}

export interface Marked {
  /** Oldest first. */
  segments: MarkedSegment[];
  /** The highest LSN of a delete or clear above the checkpoint that is garbage because it hides nothing; 0: none. */
  deletesGone: number;
}

/** Segments are numbered from the oldest on; a position is the number times this, plus the number of the operation in it. */
const SEGMENT_STRIDE = 2 ** 32;
/** Of so many transactions, the newest, it is known at a time that they were aborted: memory does not grow with the log. */
const MOST_ABORTED = 10_000;

/**
 * Finds the operations that no replay needs: a put or delete whose key a later one has, everything before a clear, and
 * deletes that hide nothing any more. From the newest segment to the oldest, so that a key that is known was met later.
 */
export function markGarbage(
  storage: Storage,
  infos: readonly SegmentInfo[],
  marksName: string,
  options: MarkOptions,
  pace: Pace,
): Marked {
  const file = new MarksFile(storage, marksName, 'create');
  try {
    let foreignFrom = Number.POSITIVE_INFINITY;
    for (;;) {
      const marker = new Marker(storage, infos, file, options, foreignFrom, pace);
      marker.run();
      // A delete behind operations that are not looked into may hide some of them. Known only now: once more, without.
      if (marker.foreignFrom >= foreignFrom || marker.lastDropped < marker.foreignFrom) return marker.result();
      foreignFrom = marker.foreignFrom;
    }
  } finally {
    file.close();
  }
}

class Marker {
  readonly #storage: Storage;
  readonly #infos: readonly SegmentInfo[];
  readonly #file: MarksFile;
  readonly #options: MarkOptions;
  readonly #keepDeletesFrom: number;
  readonly #pace: Pace;
  readonly #table: KeyTable;
  readonly #segments: MarkedSegment[] = [];
  /** Parts of the keys that are still to be looked at. */
  readonly #parts: Part[] = [{ bits: 0, value: 0 }];
  /** A newer segment holds a clear: all operations of this one are dead. */
  #cleared = false;
  /** Transactions whose end was met. */
  readonly #aborted = new Set<string>();
  /** The LSN of the first operations that are not looked into. */
  foreignFrom = Number.POSITIVE_INFINITY;
  /** The last delete or clear that hides nothing. */
  lastDropped = 0;

  constructor(
    storage: Storage,
    infos: readonly SegmentInfo[],
    file: MarksFile,
    options: MarkOptions,
    keepDeletesFrom: number,
    pace: Pace,
  ) {
    this.#storage = storage;
    this.#infos = infos;
    this.#file = file;
    this.#options = options;
    this.#keepDeletesFrom = keepDeletesFrom;
    this.#pace = pace;
    this.#table = new KeyTable(options.keyBytes);
  }

  run(): void {
    for (let first = true, part = this.#parts.pop(); part !== undefined; part = this.#parts.pop(), first = false) {
      this.#table.begin(part);
      this.#cleared = false;
      // The first pass speaks for the rewriting too, which reads no more than that.
      this.#pace.expect(this.#infos.reduce((sum, { endOffset }) => sum + endOffset, 0) * (first ? 2 : 1));
      for (let number = this.#infos.length - 1; number >= 0; number--) {
        if (first) this.#segments[number] = this.#markFirst(number);
        else if (!this.#cleared) this.#markAgain(number);
      }
    }
  }

  result(): Marked {
    const { checkpoint } = this.#options;
    return { segments: this.#segments, deletesGone: this.lastDropped > checkpoint ? this.lastDropped : 0 };
  }

  #markFirst(number: number): MarkedSegment {
    const marks = new Marks();
    const { parts, operations, ...found } = this.#walk(number, marks);
    const place = this.#file.append(marks, operations);
    const aborted: string[] = [];
    let dead = marks.count();
    for (const [id, { records, firstLsn }] of parts) {
      if (this.#aborted.has(id)) {
        aborted.push(id);
        dead += records;
      } else this.#noteForeign(firstLsn);
    }
    return { ...found, info: this.#infos[number], marks: place, dead, aborted };
  }

  #markAgain(number: number): void {
    const segment = this.#segments[number];
    const marks = this.#file.read(segment.marks);
    const before = marks.count();
    this.#walk(number, marks);
    this.#file.replace(marks, segment.marks);
    segment.dead += marks.count() - before;
  }

  #walk(number: number, marks: Marks): Found {
    const info = this.#infos[number];
    const found: Found = { records: 0, operations: 0, truncates: false, fixed: false, parts: new Map() };
    withSegment(this.#storage, info, (source) => {
      found.truncates = (source.header.flags & SegmentFlag.Truncates) !== 0;
      source.walk(this.#pace, (header, frame, offset) => {
        const look = lookInto(header, frame, info.lastLsn, this.#options.keys, { segment: info.name, offset });
        if (look.is === 'records') this.#markRecords(number, header, look, marks, found);
        else this.#noteOther(number, header, look, found);
      });
    });
    const { clear, ...rest } = found;
    if (clear !== undefined) {
      marks.setBelow(clear);
      this.#cleared = true;
    }
    return rest;
  }

  #markRecords(number: number, header: FrameHeader, look: Records, marks: Marks, found: Found): void {
    const { payload, at, sparse, committed } = look;
    const { lastLsn } = this.#infos[number];
    scanRecords(payload, at, payload.byteLength, sparse, header.firstLsn, header.timestamp, (record) => {
      if (record.lsn > lastLsn) return false;
      found.records++;
      if (record.kind === RecordKind.Data) return true;
      const operation = found.operations++;
      if (record.kind === RecordKind.Clear) found.clear = operation;
      if (this.#cleared) marks.set(operation);
      // What one frame commits lies side by side: the order of its operations in the log is that in which they count.
      else this.#markOperation(number, operation, payload, record, committed?.lsn ?? record.lsn, marks);
      return true;
    });
  }

  #noteOther(number: number, header: FrameHeader, look: Look, found: Found): void {
    if (look.is === 'gap' || look.is === 'spare') return;
    const { firstLsn, encryption } = header;
    const records = Math.max(0, Math.min(header.records, this.#infos[number].lastLsn - firstLsn + 1));
    found.records += records;
    if (look.is === 'foreign') {
      found.fixed ||= encryption !== 0;
      this.#noteForeign(firstLsn);
    } else if (look.is === 'abort') {
      if (this.#aborted.size < MOST_ABORTED) this.#aborted.add(look.id);
    } else if (look.is === 'part') {
      const known = found.parts.get(look.id) ?? { records: 0, firstLsn };
      found.parts.set(look.id, { ...known, records: known.records + records });
    }
  }

  #noteForeign(firstLsn: number): void {
    this.foreignFrom = Math.min(this.foreignFrom, firstLsn);
  }

  /** `lsn`: where it counts. */
  #markOperation(
    number: number,
    operation: number,
    bytes: Uint8Array,
    { kind, bodyAt, end }: RawRecord,
    lsn: number,
    marks: Marks,
  ): void {
    if (kind === RecordKind.Clear) {
      if (this.#hidesNothing(lsn)) marks.set(operation);
      return;
    }
    const [from, to] = kind === RecordKind.Put ? putKey(bytes, bodyAt) : [bodyAt, end];
    const hash = this.#table.hash(bytes, from, to);
    if (!this.#table.takes(hash)) return;
    const newer = (number + 1) * SEGMENT_STRIDE;
    const position = number * SEGMENT_STRIDE + operation;
    let before = this.#table.note(bytes, from, to, hash, position, newer);
    while (before === FULL) {
      this.#parts.push(this.#table.split());
      if (!this.#table.takes(hash)) return;
      before = this.#table.note(bytes, from, to, hash, position, newer);
    }
    if (before >= 0) marks.set(before % SEGMENT_STRIDE);
    if (before === SUPERSEDED || (kind === RecordKind.Delete && this.#hidesNothing(lsn))) marks.set(operation);
  }

  /**
   * Whether a delete or clear can go. All that it hides in the log goes too, or went before it. What the state outside
   * holds at the checkpoint has seen the ones up to there. Above it they must stay for that state, unless there is none.
   */
  #hidesNothing(lsn: number): boolean {
    const { checkpoint, whole } = this.#options;
    if (lsn >= this.#keepDeletesFrom || (lsn > checkpoint && !whole)) return false;
    this.lastDropped = Math.max(this.lastDropped, lsn);
    return true;
  }
}

/** What one pass over a segment found in it. */
interface Found extends Pick<MarkedSegment, 'records' | 'truncates' | 'fixed'> {
  operations: number;
  /** The number of the last clear. */
  clear?: number;
  /** Of transactions of more than one frame. */
  parts: Map<string, { records: number; firstLsn: number }>;
}

type Records = Extract<Look, { is: 'records' }>;

/** Where the key of a put is, whose body begins at `at`. */
function putKey(bytes: Uint8Array, at: number): [from: number, to: number] {
  let length = 0;
  for (let scale = 1; ; scale *= 0x80) {
    const byte = bytes[at++];
    length += (byte & 0x7f) * scale;
    if (byte < 0x80) return [at, at + length];
  }
}
