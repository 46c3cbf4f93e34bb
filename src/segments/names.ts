/** The files of a log's directory. */

export const LOCK_NAME = 'LOCK';
export const QUARANTINE_FOLDER = 'quarantine';
const SEGMENT_NAME = /^(\d{16})\.wal$/;
const SPARE_PREFIX = 'spare-';
const PREPARING_PREFIX = 'preparing-';
const COMPACTING_PREFIX = 'compacting-';
const TEMPORARY_SUFFIX = '.tmp';

/** Segment ids count up from 1 and are never reused, so that a name never means two different segments. */
export function segmentName(id: number): string {
  return `${String(id).padStart(16, '0')}.wal`;
}

/** The id in a segment's name; undefined for every other name, and for a number that the log can never come to. */
export function segmentIdOf(name: string): number | undefined {
  const match = SEGMENT_NAME.exec(name);
  const id = match === null ? Number.NaN : Number(match[1]);
  return Number.isSafeInteger(id) && id > 0 ? id : undefined;
}

/** A file that is whole, of its full size and not part of the log: the next segment will be made of it. */
export function spareName(token: string): string {
  return SPARE_PREFIX + token + TEMPORARY_SUFFIX;
}

export function isSpare(name: string): boolean {
  return name.startsWith(SPARE_PREFIX) && name.endsWith(TEMPORARY_SUFFIX);
}

/** A spare that is still being written. One that is found at open was left by a crash and is of no use. */
export function preparingName(token: string): string {
  return PREPARING_PREFIX + token + TEMPORARY_SUFFIX;
}

export function isPreparing(name: string): boolean {
  return name.startsWith(PREPARING_PREFIX) && name.endsWith(TEMPORARY_SUFFIX);
}

/** What compaction is writing. One that is found at open was left by a crash and is of no use. */
export function compactingName(token: string): string {
  return COMPACTING_PREFIX + token + TEMPORARY_SUFFIX;
}

export function isCompacting(name: string): boolean {
  return name.startsWith(COMPACTING_PREFIX) && name.endsWith(TEMPORARY_SUFFIX);
}

/** Where damaged or cut bytes go: named for the segment and the offset they came from. */
export function quarantineName(segment: string, offset: number): string {
  return `${QUARANTINE_FOLDER}/${segment}@${offset}`;
}

/** The id of the segment that a quarantined file came from. */
export function quarantinedIdOf(name: string): number | undefined {
  return segmentIdOf(name.split('@')[0]);
}
