import { FRAME_HEADER_BYTES, type FrameHeader, FrameType, HeaderFlag } from '../../src/format/frame.js';
import { decodeSeal } from '../../src/format/seal.js';
import { encodeStateOf, SEGMENT_PRELUDE_BYTES, SegmentFlag } from '../../src/format/segment-header.js';
import { decodeState } from '../../src/format/state.js';
import { chainOf, lastLsnOf } from '../../src/segments/chain.js';
import { segmentIdOf, segmentName } from '../../src/segments/names.js';
import { readHeader, withFile } from '../../src/segments/read-segment.js';
import { isCompacted, statedEnd } from '../../src/segments/segment-end.js';
import { Window, walkFrames } from '../../src/segments/walk.js';
import type { Random } from './random.js';
import type { SimulatedDisk } from './simulated-disk.js';

/** A stretch of a file whose bytes were changed. */
export interface Hole {
  name: string;
  from: number;
  to: number;
}

/** A frame of the log, or the header of a segment, and where it stands. */
export interface Part {
  name: string;
  from: number;
  to: number;
  isHeader: boolean;
  /** Where the same bytes stand once more. */
  copyAt?: number;
  /** The clean-up mark that it tells. */
  low?: number;
  /** The LSNs that it holds; `lastLsn` below `firstLsn` when it holds none. */
  firstLsn: number;
  lastLsn: number;
  /** What was in the segment before was cut away when it was begun. */
  cuts: boolean;
  /** Of a header: its segment is compacted. */
  compacted?: boolean;
  /** The file grew as it was written: its size does not tell that something is missing. */
  grew: boolean;
  /** Of a frame: what its header says of what was on stable storage before it. */
  stamp?: Pick<FrameHeader, 'durableLsn' | 'flags'>;
}

/** All that a sound log consists of, in order. */
export function partsOf(disk: SimulatedDisk): Part[] {
  const headers = segmentNames(disk).map((name) => withFile(disk, name, readHeader));
  return chainOf(headers).flatMap((link) => {
    const { segmentId, salt, firstLsn, headerCrc, headerBytes, flags, state } = link.header;
    const name = segmentName(segmentId);
    const cuts = (flags & SegmentFlag.Truncates) !== 0;
    const grew = (flags & SegmentFlag.Growing) !== 0;
    const { low } = state;
    const [to, copyAt] = [SEGMENT_PRELUDE_BYTES + encodeStateOf(link.header).byteLength, headerBytes / 2];
    const common = { name, cuts, grew };
    const place = { from: 0, to, copyAt, firstLsn, lastLsn: firstLsn - 1 };
    const parts: Part[] = [{ ...common, ...place, isHeader: true, compacted: isCompacted(link.header), low }];
    const end = statedEnd(link.header, link.next)?.endOffset ?? Number.MAX_SAFE_INTEGER;
    const last = lastLsnOf(link) ?? Number.MAX_SAFE_INTEGER;
    withFile(disk, name, (file) => {
      const start = { salt, lsn: firstLsn, previousCrc: headerCrc };
      for (const { header, offset, payload } of walkFrames(new Window(file), headerBytes, start)) {
        if (offset >= end) return;
        const lastLsn = Math.min(header.firstLsn + header.records - 1, last);
        const to = offset + FRAME_HEADER_BYTES + payload.byteLength;
        const first = Math.min(header.firstLsn, last + 1);
        const low = lowIn(header.type, payload);
        const place = { from: offset, to, isHeader: false, firstLsn: first, lastLsn };
        parts.push({ ...common, ...place, low, cuts: false, stamp: header });
      }
    });
    return parts;
  });
}

function segmentNames(disk: SimulatedDisk): string[] {
  return disk.list().filter((name) => segmentIdOf(name) !== undefined);
}

function lowIn(type: number, payload: Uint8Array): number | undefined {
  if (type === FrameType.State) return decodeState(payload).low;
  return type === FrameType.Seal ? decodeSeal(payload).state.low : undefined;
}

/** What stands twice is hit when both of it are. */
export function isHit({ name, from, to, copyAt = from }: Part, holes: readonly Hole[]): boolean {
  return [from, copyAt].every((start) =>
    holes.some((hole) => hole.name === name && hole.from < start + to - from && hole.to > start),
  );
}

/** Chooses one to three places, anywhere in the segments, and now and then two that take a header with both its halves. */
export function chooseHoles(disk: SimulatedDisk, random: Random): Hole[] {
  const names = segmentNames(disk);
  if (random.oneIn(6)) {
    const name = random.pick(names);
    const half = withFile(disk, name, readHeader).headerBytes / 2;
    const from = random.below(128);
    return [from, half + from].map((at) => ({ name, from: at, to: at + random.between(1, 500) }));
  }
  return Array.from({ length: random.oneIn(2) ? 1 : random.between(2, 3) }, () => {
    const name = random.oneIn(2) ? names[names.length - 1] : random.pick(names);
    const size = withFile(disk, name, (file) => file.size());
    const from = random.below(random.oneIn(3) ? Math.min(size, 4300) : size);
    const length = random.oneIn(2) ? 1 : Math.min(size - from, random.between(1, 1500));
    return { name, from, to: from + length };
  });
}

/** Changes the bytes: one bit, or noise, or zeros. */
export function damage(disk: SimulatedDisk, random: Random, { name, from, to }: Hole): void {
  if (to === from + 1) disk.flip(name, from, random.below(8));
  else disk.overwrite(name, random.oneIn(2) ? new Uint8Array(to - from) : random.bytes(to - from), from);
}

/**
 * That something was cut off is known from the two halves of the header that says so, and from the first frame behind it, and
 * from nothing else: with all three gone nobody can tell. Nor is it known, without the header, which whole segments were cut
 * away, as long as their files are still there.
 */
export function hidesCut(disk: SimulatedDisk, parts: readonly Part[], holes: readonly Hole[]): boolean {
  const leftBehind = hasLeftBehind(disk, parts);
  return parts.some((part, i) => {
    if (!part.isHeader || !part.cuts || !isHit(part, holes)) return false;
    const first = parts[i + 1];
    return leftBehind || first === undefined || first.isHeader || isHit(first, holes);
  });
}

/**
 * Which files a compacted segment replaced is known from the two halves of its header and from its seal: with all three gone
 * nobody can tell, as long as those files are still there.
 */
export function hidesReplaced(disk: SimulatedDisk, parts: readonly Part[], holes: readonly Hole[]): boolean {
  if (!hasLeftBehind(disk, parts)) return false;
  return parts.some((part) => {
    const seal = parts.findLast(({ name }) => name === part.name);
    return part.compacted && isHit(part, holes) && seal !== undefined && isHit(seal, holes);
  });
}

function hasLeftBehind(disk: SimulatedDisk, parts: readonly Part[]): boolean {
  return segmentNames(disk).some((name) => !parts.some((part) => part.name === name));
}

/** Every place that tells the newest clean-up mark was hit. */
export function hidesMark(parts: readonly Part[], holes: readonly Hole[], low: number): boolean {
  return low > 1 && parts.every((part) => part.low !== low || isHit(part, holes));
}

/**
 * The end of the log from the first damage on, when it looks as if the power had gone before that was synced, and so is cut
 * off with what is whole in it: the seal is hit, and no header of a frame that is left says that any of it was on stable
 * storage. Nor does the size of a file that grew.
 */
export function tornEnd(parts: readonly Part[], holes: readonly Hole[]): Hole | undefined {
  const { name, grew, isHeader } = parts[parts.length - 1];
  const [header, ...frames] = parts.filter((part) => part.name === name);
  const first = frames.findIndex((part) => isHit(part, holes));
  if (!grew || isHeader || first < 0 || isHit(header, holes) || !isHit(frames[frames.length - 1], holes))
    return undefined;
  const { from, firstLsn } = frames[first];
  const vouched = frames.slice(first + 1).some((part) => {
    const { durableLsn, flags } = part.stamp!;
    const vouches = durableLsn >= firstLsn || (flags & HeaderFlag.PrefixDurable) !== 0;
    return vouches && !isHit({ ...part, to: part.from + FRAME_HEADER_BYTES }, holes);
  });
  return vouched ? undefined : { name, from, to: Number.MAX_SAFE_INTEGER };
}
