import { randomBytes } from 'node:crypto';
import { WalError } from '../errors.js';
import type { Storage, StorageFile } from '../storage/storage.js';
import { preparingName, spareName } from './names.js';
import { withFile } from './read-segment.js';

const ZEROS = new Uint8Array(1024 * 1024);

export interface Spare {
  name: string;
  bytes: number;
  /** It held a segment before, whose bytes are still in it. */
  recycled: boolean;
  /** Bytes a millisecond at which it was filled past the page cache; undefined when it went through it. */
  fillRate?: number;
  /** Bytes that exist of it, if its segment is to grow up to `bytes`. */
  growing?: number;
}

/**
 * Makes a spare of `bytes` bytes: written full of zeros and synced, because overwriting written blocks is quicker than
 * growing a file, and because a full disk must show here, before any record is promised into the segment. (Growing a
 * file with ftruncate reserves nothing.) Its name becomes durable when the segment made of it does.
 */
export function prepareSpare(storage: Storage, bytes: number): Spare {
  const token = randomBytes(6).toString('hex');
  const preparing = preparingName(token);
  const file = storage.open(preparing, 'create');
  const startedAt = performance.now();
  let direct: boolean;
  try {
    direct = fillWithZeros(file, 0, bytes);
    file.sync();
    file.close();
    storage.rename(preparing, spareName(token));
  } catch (error) {
    discard(storage, preparing, () => file.close());
    throw error;
  }
  const spare = { name: spareName(token), bytes, recycled: false };
  return direct ? { ...spare, fillRate: bytes / Math.max(0.001, performance.now() - startedAt) } : spare;
}

/**
 * A spare for a segment that grows, as it is written, up to `bytes`; its first `prepared` bytes exist already, so that the
 * frame that is waiting for it has room. Filling a whole file with zeros first pays while there is time for it; a log
 * that is written as fast as the disk takes it has none, and would only write everything twice.
 */
export function growingSpare(storage: Storage, prepared: number, bytes: number): Spare {
  return { ...prepareSpare(storage, prepared), bytes, growing: prepared };
}

/** Writes zeros to `[from, to)`. Returns whether it went past the page cache. */
export function fillWithZeros(file: StorageFile, from: number, to: number): boolean {
  const filled = file.fillDirectly?.(from, to) ?? from;
  for (let at = filled; at < to; at += ZEROS.byteLength) {
    file.write([ZEROS.subarray(0, Math.min(ZEROS.byteLength, to - at))], at);
  }
  return filled > from;
}

function discard(storage: Storage, name: string, close: () => void): void {
  for (const undo of [close, () => storage.remove(name)]) {
    try {
      undo();
    } catch {
      // It may be closed already; the file is of no use, and the next open removes it.
    }
  }
}

/** A spare of this size that an earlier run left behind. What is in it is not known: it is taken for recycled. */
export function leftSpare(storage: Storage, names: string[], bytes: number): Spare | undefined {
  for (const name of names) {
    if (withFile(storage, name, (file) => file.size()) === bytes) return { name, bytes, recycled: true };
  }
  return undefined;
}

/**
 * Takes over one spare that an earlier run left behind and removes the rest, which nobody would ever use. What is gone
 * already is no error: this may be the second attempt.
 */
export function adoptSpare(storage: Storage, spares: string[], unfinished: string[], bytes: number): Spare | undefined {
  const present = new Set(storage.list());
  const left = spares.filter((name) => present.has(name));
  const adopted = leftSpare(storage, left, bytes);
  for (const name of [...left, ...unfinished.filter((other) => present.has(other))]) {
    if (name !== adopted?.name) storage.remove(name);
  }
  return adopted;
}

/** The errors by which a filesystem says "no room": full, over quota, over the process's file-size limit. */
export function isNoSpace(error: unknown): boolean {
  const { code, errno } = error as NodeJS.ErrnoException;
  // A quota reaches Node as "Unknown system error -122" on some platforms: look at the number too.
  return code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG' || errno === -122;
}

export function noSpace(cause: unknown): WalError {
  return new WalError(
    'ERR_WAL_NO_SPACE',
    'There is no room on the disk for more of the log. Nothing of this was written; free some space and try again.',
    { cause },
  );
}
