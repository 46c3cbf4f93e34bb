import { randomBytes } from 'node:crypto';
import type { Storage } from '../storage/storage.js';
import { spareName } from './names.js';
import { fillWithZeros, isNoSpace, type Spare } from './prepare.js';
import { withFile } from './read-segment.js';

export interface Retired {
  segments: number;
  bytes: number;
  spares: Spare[];
}

/**
 * Takes files out of the log that a durable clean-up mark lies above: the first `recycle` of them become spares, the
 * others are removed. Files that are gone already, by a clean-up that a crash cut short, are no error.
 *
 * A recycled file keeps the bytes it held, whose salt no later segment has; only what was cut off behind its seal is
 * written again, because every block of a spare must exist.
 */
export function retireSegments(storage: Storage, names: string[], recycle: number, segmentBytes: number): Retired {
  const present = new Set(storage.list());
  const retired: Retired = { segments: 0, bytes: 0, spares: [] };
  for (const name of names.filter((candidate) => present.has(candidate))) {
    const bytes = withFile(storage, name, (file) => file.size());
    if (retired.spares.length < recycle) {
      const spare = recycled(storage, name, bytes, segmentBytes);
      if (spare !== undefined) retired.spares.push(spare);
    } else {
      storage.remove(name);
    }
    retired.segments++;
    retired.bytes += bytes;
  }
  if (retired.segments > 0) storage.syncFolder();
  return retired;
}

/** A spare of the file; undefined, and the file is gone, when the disk is full: cleaning up makes room, and must not need any. */
function recycled(storage: Storage, name: string, bytes: number, segmentBytes: number): Spare | undefined {
  const spare = spareName(randomBytes(6).toString('hex'));
  storage.rename(name, spare);
  const file = storage.open(spare, 'write');
  let full = false;
  try {
    fillWithZeros(file, bytes, segmentBytes);
    file.sync();
  } catch (error) {
    full = isNoSpace(error);
    if (!full) throw error;
  } finally {
    file.close();
  }
  if (!full) return { name: spare, bytes: Math.max(bytes, segmentBytes), recycled: true };
  storage.remove(spare);
  return undefined;
}
