import { QUARANTINE_FOLDER, quarantineName } from '../segments/names.js';
import { lastNonZero } from '../segments/walk.js';
import type { Storage, StorageFile } from '../storage/storage.js';

const CHUNK_BYTES = 1024 * 1024;
/** A copy that is not finished: worth nothing, and in nobody's way. */
const UNFINISHED = '.tmp';

/**
 * Copies `[from, to)` of a segment to quarantine, durably, and returns the copy's name; undefined when there is nothing
 * but zeros. What is there already is never overwritten: work that was cut short may find its own half-done changes in
 * the segment, and the first copy is the one that counts.
 */
export function keepCopy(storage: Storage, file: StorageFile, from: number, to: number): string | undefined {
  const end = lastByte(file, from, Math.min(to, file.size()));
  if (end <= from) return undefined;
  storage.makeFolder(QUARANTINE_FOLDER);
  const taken = new Set(storage.list(QUARANTINE_FOLDER).map((name) => `${QUARANTINE_FOLDER}/${name}`));
  const first = quarantineName(file.name, from);
  let name = first;
  for (let i = 2; taken.has(name); i++) {
    if (sameContent(storage, name, file, from, end)) return durable(storage, name);
    name = `${first}.${i}`;
  }
  const unfinished = name + UNFINISHED;
  if (taken.has(unfinished)) storage.remove(unfinished);
  const copy = storage.open(unfinished, 'create');
  try {
    for (const { bytes, at } of chunks(file, from, end)) copy.write([bytes], at - from);
    copy.sync();
    copy.close();
    storage.rename(unfinished, name);
  } catch (error) {
    // Half a copy of bytes that are still where they were is only in the way of a full disk.
    discard(storage, copy, unfinished);
    throw error;
  }
  return durable(storage, name);
}

/** Moves a whole segment file to quarantine; durable once {@link Storage.syncFolder} was called for both folders. */
export function setAside(storage: Storage, name: string): string {
  storage.makeFolder(QUARANTINE_FOLDER);
  const taken = new Set(storage.list(QUARANTINE_FOLDER).map((present) => `${QUARANTINE_FOLDER}/${present}`));
  const first = quarantineName(name, 0);
  let target = first;
  for (let i = 2; taken.has(target); i++) target = `${first}.${i}`;
  storage.rename(name, target);
  return target;
}

function durable(storage: Storage, name: string): string {
  storage.syncFolder(QUARANTINE_FOLDER);
  storage.syncFolder();
  return name;
}

function* chunks(file: StorageFile, from: number, to: number): Generator<{ bytes: Uint8Array; at: number }> {
  for (let at = from; at < to; at += CHUNK_BYTES) {
    const bytes = new Uint8Array(Math.min(CHUNK_BYTES, to - at));
    yield { bytes: bytes.subarray(0, file.read(bytes, at)), at };
  }
}

/** Behind the last byte in `[from, to)` that is not zero. */
export function lastByte(file: StorageFile, from: number, to: number): number {
  let end = from;
  for (const { bytes, at } of chunks(file, from, to)) {
    const last = lastNonZero(bytes);
    if (last >= 0) end = at + last + 1;
  }
  return end;
}

function sameContent(storage: Storage, name: string, file: StorageFile, from: number, to: number): boolean {
  const copy = storage.open(name, 'read');
  try {
    if (copy.size() !== to - from) return false;
    const other = new Uint8Array(CHUNK_BYTES);
    for (const { bytes, at } of chunks(file, from, to)) {
      const count = copy.read(other.subarray(0, bytes.byteLength), at - from);
      if (Buffer.compare(bytes, other.subarray(0, count)) !== 0) return false;
    }
    return true;
  } finally {
    copy.close();
  }
}

function discard(storage: Storage, copy: StorageFile, name: string): void {
  for (const undo of [() => copy.close(), () => storage.remove(name)]) {
    try {
      undo();
    } catch {
      // It may be closed, or renamed, or the disk may be gone.
    }
  }
}
