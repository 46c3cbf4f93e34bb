import { withFile } from '../segments/read-segment.js';
import { lastNonZero } from '../segments/walk.js';
import type { Storage } from '../storage/storage.js';
import { headerBlock } from './damaged-header.js';
import type { Patch } from './repair-plan.js';
import { isRecycled, type Survey } from './survey.js';

/**
 * What puts a segment right up to `end` and takes nothing from it: a damaged header from what its halves still tell, and
 * zeros behind frames, where there is something else.
 */
export function losslessPatches({ head, headContent, dirt }: Survey, end = Number.MAX_SAFE_INTEGER): Patch[] {
  const patches = dirt.filter(({ to }) => to <= end).map(({ from, to }) => ({ from, to, pieces: [], keepTo: to }));
  if (headContent === undefined) return patches;
  const { headerBytes } = head!;
  const bytes = headerBlock(headContent, headerBytes);
  return [{ from: 0, to: headerBytes, pieces: [{ at: 0, bytes }], keepTo: headerBytes }, ...patches];
}

/** Whether something stands behind the seal of a segment, where nothing ever stood. */
export function hasStrayBytes(storage: Storage, { name, head, runs, fileBytes }: Survey, end: number): boolean {
  const sealed = runs.at(-1)?.sealAt !== undefined;
  if (!sealed || fileBytes <= end || head === undefined || isRecycled(head)) return false;
  return withFile(storage, name, (file) => {
    const bytes = new Uint8Array(64 * 1024);
    for (let at = end; at < fileBytes; at += bytes.byteLength) {
      if (lastNonZero(bytes.subarray(0, file.read(bytes, at))) >= 0) return true;
    }
    return false;
  });
}
