import { HeaderFlag } from '../../src/format/frame.js';
import type { KeyRing } from '../../src/format/key-ring.js';
import type { WalRecord } from '../../src/format/record.js';
import { applier, replayInto, utf8Key } from '../../src/kv/replay.js';
import { Catalog } from '../../src/reader/catalog.js';
import { decodeForReplay } from '../../src/reader/decode-frame.js';
import type { ReadableFiles } from '../../src/reader/files.js';
import type { LogSource } from '../../src/reader/log-source.js';
import { readLog } from '../../src/reader/read-log.js';
import { transactionRecords } from '../../src/reader/transaction-records.js';
import { readHeader, withFile } from '../../src/segments/read-segment.js';
import { Window, walkFrames } from '../../src/segments/walk.js';
import { readableFiles, SimulatedDisk } from './simulated-disk.js';

type Files = SimulatedDisk | ReadableFiles;

/** A log whose records from `low` to `to` are promised. */
export function sourceOf(files: Files, low: number, to: number, keys?: KeyRing): LogSource {
  return {
    catalog: new Catalog(files instanceof SimulatedDisk ? readableFiles(files) : files),
    keys,
    low: () => low,
    promised: () => to,
    readable: () => Promise.resolve(to),
    liveEnd: () => undefined,
    liveIndex: () => Promise.resolve(undefined),
    watermark: () => to,
    reached: () => Promise.resolve(false),
  };
}

const NEVER = new AbortController().signal;

/** Everything from `low` (or `from`) to `to`, by the package's own reader. */
export async function readAll(
  files: Files,
  low: number,
  to: number,
  from?: number,
  keys?: KeyRing,
): Promise<WalRecord[]> {
  const records: WalRecord[] = [];
  const source = sourceOf(files, low, to, keys);
  for await (const batch of readLog(source, { from, to, follow: undefined, signal: NEVER })) records.push(...batch);
  return records;
}

/** Replays into `target` what a log holds from `from` on, as `recover` does. */
export async function replayOnto(
  target: Map<string, Uint8Array>,
  source: LogSource,
  from: number,
): Promise<Map<string, Uint8Array>> {
  const to = source.promised();
  const batches = readLog(source, { from, to, follow: undefined, signal: NEVER, decoder: decodeForReplay });
  await replayInto(batches, (place) => transactionRecords(source, place), applier(target, utf8Key));
  return target;
}

/** What the valid frames of a segment say. */
export interface Frames {
  headerBytes: number;
  /** Behind the last one. */
  end: number;
  /** The highest durable LSN that one of them is stamped with. */
  stamp: number;
  /** How far the last one that vouches for all before it does so: that far, damage must be noticed. */
  vouchedLsn: number;
  /** What stands behind that one, itself included. */
  unvouchedTypes: number[];
  offsets: number[];
}

export function framesOf(disk: SimulatedDisk, name: string): Frames {
  return withFile(disk, name, (file) => {
    const { headerBytes, salt, firstLsn, headerCrc } = readHeader(file);
    const frames: Frames = { headerBytes, end: headerBytes, stamp: 0, vouchedLsn: 0, unvouchedTypes: [], offsets: [] };
    const start = { salt, lsn: firstLsn, previousCrc: headerCrc };
    for (const { header, offset, payload } of walkFrames(new Window(file), headerBytes, start)) {
      frames.end = offset + 64 + payload.byteLength;
      frames.stamp = Math.max(frames.stamp, header.durableLsn);
      if ((header.flags & HeaderFlag.PrefixDurable) !== 0) {
        frames.vouchedLsn = header.firstLsn - 1;
        frames.unvouchedTypes = [];
      }
      frames.unvouchedTypes.push(header.type);
      frames.offsets.push(offset);
    }
    return frames;
  });
}

/** Both halves of a segment's header: one alone can be made of the other. */
export function loseHeader(disk: SimulatedDisk, name: string): void {
  const { headerBytes } = withFile(disk, name, readHeader);
  for (const at of [0, headerBytes / 2]) disk.flip(name, at + 60, 1);
}
