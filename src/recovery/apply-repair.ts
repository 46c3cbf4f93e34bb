import { randomBytes } from 'node:crypto';
import { preparingName, QUARANTINE_FOLDER, segmentIdOf } from '../segments/names.js';
import type { Storage, StorageFile } from '../storage/storage.js';
import { keepCopy, setAside } from './quarantine.js';
import type { Patch, RepairPlan, SegmentPatch } from './repair-plan.js';

const CHUNK_BYTES = 1024 * 1024;

/**
 * Carries out a plan. Only places that cannot be read are ever written to, after what stands there was copied to
 * quarantine, durably. So a crash at any moment leaves a log in which all that could be read still can be, and a repair
 * that begins anew comes to the same end. Returns the names of what is in quarantine now.
 */
export function applyRepair(storage: Storage, { segments, setAside: lost }: RepairPlan): string[] {
  const quarantined = applyPatches(storage, segments);
  for (const name of lost) quarantined.push(setAside(storage, name));
  if (lost.length > 0) storage.syncFolder(QUARANTINE_FOLDER);
  storage.syncFolder();
  return quarantined;
}

/** The same for some segments. */
export function applyPatches(storage: Storage, segments: readonly SegmentPatch[]): string[] {
  const quarantined: string[] = [];
  for (const segment of segments) {
    if (segment.create) create(storage, segment);
    else quarantined.push(...mend(storage, segment));
  }
  return quarantined;
}

/** A repair that was cut short may have left changes that are not durable yet: makes all that is there so. */
export function settleRepair(storage: Storage): void {
  for (const name of storage.list().filter((file) => segmentIdOf(file) !== undefined)) {
    const file = storage.open(name, 'write');
    try {
      file.sync();
    } finally {
      file.close();
    }
  }
  if (storage.list(QUARANTINE_FOLDER).length > 0) storage.syncFolder(QUARANTINE_FOLDER);
  storage.syncFolder();
}

function mend(storage: Storage, { name, patches, fileBytes }: SegmentPatch): string[] {
  const file = storage.open(name, 'write');
  try {
    const kept = patches.map(({ from, keepTo }) => keepCopy(storage, file, from, keepTo));
    for (const patch of patches) write(file, patch);
    file.sync();
    if (fileBytes !== undefined && fileBytes < file.size()) {
      file.truncate(fileBytes);
      file.sync();
    }
    return kept.filter((copy) => copy !== undefined);
  } finally {
    file.close();
  }
}

/** A file in place of one that is missing: whole before it takes its name. */
function create(storage: Storage, { name, patches }: SegmentPatch): void {
  const preparing = preparingName(randomBytes(6).toString('hex'));
  const file = storage.open(preparing, 'create');
  try {
    for (const patch of patches) write(file, patch);
    file.sync();
  } finally {
    file.close();
  }
  storage.rename(preparing, name);
  storage.syncFolder();
}

function write(file: StorageFile, patch: Patch): void {
  for (let at = patch.from; at < patch.to; at += CHUNK_BYTES) {
    const bytes = new Uint8Array(Math.min(CHUNK_BYTES, patch.to - at));
    layOver(bytes, at, patch);
    file.write([bytes], at);
  }
}

/** Makes `bytes`, which stand at `at` in a file, what they are with a patch. */
export function layOver(bytes: Uint8Array, at: number, { from, to, pieces }: Patch): void {
  const end = at + bytes.byteLength;
  if (end <= from || at >= to) return;
  bytes.fill(0, Math.max(from - at, 0), Math.min(to - at, bytes.byteLength));
  for (const piece of pieces) {
    const start = Math.max(piece.at, at);
    const stop = Math.min(piece.at + piece.bytes.byteLength, end);
    if (start < stop) bytes.set(piece.bytes.subarray(start - piece.at, stop - piece.at), start - at);
  }
}
