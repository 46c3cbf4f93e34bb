import { SegmentFlag } from '../../src/format/segment-header.js';
import { chainOf, lastLsnOf } from '../../src/segments/chain.js';
import { segmentIdOf, segmentName } from '../../src/segments/names.js';
import { readHeader, withFile } from '../../src/segments/read-segment.js';
import { statedEnd } from '../../src/segments/segment-end.js';
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
  /** The LSNs that it holds; `lastLsn` below `firstLsn` when it holds none. */
  firstLsn: number;
  lastLsn: number;
  /** What was in the segment before was cut away when it was begun. */
  cuts: boolean;
}

/** All that a sound log consists of, in order. */
export function partsOf(disk: SimulatedDisk): Part[] {
  const headers = segmentNames(disk).map((name) => withFile(disk, name, readHeader));
  return chainOf(headers).flatMap((link) => {
    const { segmentId, salt, firstLsn, headerCrc, headerBytes, flags } = link.header;
    const name = segmentName(segmentId);
    const cuts = (flags & SegmentFlag.Truncates) !== 0;
    const parts: Part[] = [{ name, from: 0, to: headerBytes, isHeader: true, firstLsn, lastLsn: firstLsn - 1, cuts }];
    const end = statedEnd(link.header, link.next)?.endOffset ?? Number.MAX_SAFE_INTEGER;
    const last = lastLsnOf(link) ?? Number.MAX_SAFE_INTEGER;
    withFile(disk, name, (file) => {
      const start = { salt, lsn: firstLsn, previousCrc: headerCrc };
      for (const { header, offset, payload } of walkFrames(new Window(file), headerBytes, start)) {
        if (offset >= end) return;
        const lastLsn = Math.min(header.firstLsn + header.records - 1, last);
        const to = offset + 64 + payload.byteLength;
        const first = Math.min(header.firstLsn, last + 1);
        parts.push({ name, from: offset, to, isHeader: false, firstLsn: first, lastLsn, cuts: false });
      }
    });
    return parts;
  });
}

function segmentNames(disk: SimulatedDisk): string[] {
  return disk.list().filter((name) => segmentIdOf(name) !== undefined);
}

export function isHit(part: Part, holes: readonly Hole[]): boolean {
  return holes.some(({ name, from, to }) => name === part.name && from < part.to && to > part.from);
}

/** Chooses one to three places, anywhere in the segments. */
export function chooseHoles(disk: SimulatedDisk, random: Random): Hole[] {
  const names = segmentNames(disk);
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
 * That something was cut off is known from the header that says so and from the first frame behind it, and from nothing
 * else: without both nobody can tell. Nor is it known, without the header, which whole segments were cut away, as long as
 * their files are still there.
 */
export function hidesCut(disk: SimulatedDisk, parts: readonly Part[], holes: readonly Hole[]): boolean {
  const leftBehind = segmentNames(disk).some((name) => !parts.some((part) => part.name === name));
  return parts.some((part, i) => {
    if (!part.isHeader || !part.cuts || !isHit(part, holes)) return false;
    const first = parts[i + 1];
    return leftBehind || first === undefined || first.isHeader || isHit(first, holes);
  });
}
