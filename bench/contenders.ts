import { WriteAheadLog } from 'ringwal';
import type { Contender } from './load.js';
import { RawLoop } from './raw-loop.js';

export interface Work {
  name: string;
  inFlight: number;
  recordBytes: number;
  /** 1: `append`. More: `appendMany` of so many. */
  recordsPerCall: number;
  level: 'os' | 'disk';
  /** What issue of the project asks of the ratio, if anything. */
  goal?: number;
}

export async function ringwal(work: Work, directory: string): Promise<Contender> {
  const log = await WriteAheadLog.open(directory, { durability: work.level });
  const payload = Buffer.alloc(work.recordBytes, 'x');
  const payloads = new Array<Buffer>(work.recordsPerCall).fill(payload);
  // The first record makes the first segment; that belongs to opening.
  await log.append('first');
  return {
    append: work.recordsPerCall === 1 ? () => log.append(payload) : () => log.appendMany(payloads),
    syncs: () => log.stats().syncs,
    close: () => log.close(),
  };
}

/**
 * The raw loop. A batch is written as one buffer of the same size, made beforehand: the quickest way one thread can put
 * those bytes there.
 */
export async function raw(work: Work, directory: string): Promise<Contender> {
  const loop = new RawLoop(directory, work.level === 'disk', work.recordsPerCall === 1);
  const payload = Buffer.alloc(work.recordBytes * work.recordsPerCall, 'x');
  return {
    append: () => loop.append(payload),
    syncs: () => loop.syncs,
    close: async () => loop.close(),
  };
}
