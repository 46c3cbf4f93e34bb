import type { AppendOptions } from '../../producer/arguments.js';
import type { Bytes } from '../../types.js';
import { WriteAheadLog } from '../../wal.js';
import type { Contender, Shape } from './load.js';
import { RawLoop } from './raw-loop.js';

export interface Work extends Shape {
  name: string;
  /** `mixed`: one append in eight at `disk`, the others at `os`. */
  level: 'os' | 'disk' | 'mixed';
  /** The log is cleaned up as it goes: a checkpoint behind each segment. Default: nothing is ever cleaned up. */
  checkpoints?: boolean;
}

/** A log, or a producer of one in another thread. */
export interface Appends {
  append(payload: Bytes, options?: AppendOptions): Promise<unknown>;
  appendMany(payloads: Iterable<Bytes>, options?: AppendOptions): Promise<unknown>;
}

export function workOf(inFlight: number, recordBytes: number, level: Work['level'], recordsPerCall = 1): Work {
  const size = recordBytes < 1024 ? `${recordBytes} B` : `${recordBytes / 1024} KiB`;
  const calls = inFlight.toLocaleString('en');
  const name =
    recordsPerCall === 1
      ? `${calls} in flight, ${size}, ${level}`
      : `appendMany of ${recordsPerCall.toLocaleString('en')}, ${calls} in flight, ${size}, ${level}`;
  return { name, inFlight, recordBytes, recordsPerCall, level };
}

export async function ringwal(work: Work, directory: string): Promise<Contender> {
  const log = await WriteAheadLog.open(directory, { durability: work.level === 'disk' ? 'disk' : 'os' });
  // The first record makes the first segment; that belongs to opening.
  await log.append('first');
  if (work.checkpoints === true) checkpointBehindEachSegment(log);
  return { append: appending(work, log), syncs: () => log.stats().syncs, close: () => log.close() };
}

/** As a state machine does that has taken in what a full segment holds. */
function checkpointBehindEachSegment(log: WriteAheadLog): void {
  log.on('rotate', ({ lastLsn }) => {
    // At the end of the measurement the log is closed under the last of them.
    void log.checkpoint(lastLsn).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ERR_WAL_CLOSED') throw error;
    });
  });
}

/** The calls of the work, on a log whose default level is the work's. */
export function appending(work: Work, log: Appends): () => Promise<unknown> {
  const payload = Buffer.alloc(work.recordBytes, 'x');
  if (work.recordsPerCall > 1) {
    const payloads = new Array<Buffer>(work.recordsPerCall).fill(payload);
    return () => log.appendMany(payloads);
  }
  if (work.level !== 'mixed') return () => log.append(payload);
  const disk: AppendOptions = { durability: 'disk' };
  let calls = 0;
  return () => (++calls % 8 === 0 ? log.append(payload, disk) : log.append(payload));
}

/**
 * The raw loop. A batch is written as one buffer of the same size, made beforehand: the quickest way one thread can put
 * those bytes there.
 */
export async function raw(work: Work, directory: string, beginAgainAt?: number): Promise<Contender> {
  const loop = new RawLoop(directory, work.level === 'disk', work.recordsPerCall === 1, beginAgainAt);
  const payload = Buffer.alloc(work.recordBytes * work.recordsPerCall, 'x');
  const mixed = work.level === 'mixed';
  let calls = 0;
  return {
    append: () => loop.append(payload, mixed && ++calls % 8 === 0),
    syncs: () => loop.syncs,
    close: async () => loop.close(),
  };
}
