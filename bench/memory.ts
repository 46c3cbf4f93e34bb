import { WriteAheadLog } from 'ringwal';
import { inDirectory } from '../src/cli/bench/load.js';

export interface Memory {
  afterOneGiBMiB: number;
  afterTenGiBMiB: number;
  /** Goal: at most 64. */
  growthMiB: number;
}

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

/** Resident memory after 1 GiB and after 10 GiB have gone through one open log, with clean-up behind them. */
export async function measureMemory(base: string | undefined): Promise<Memory> {
  return inDirectory(base, async (directory) => {
    const log = await WriteAheadLog.open(directory, { durability: 'os' });
    const payload = Buffer.alloc(16 * 1024, 'x');
    const residentAfter = async (from: number, to: number): Promise<number> => {
      for (let written = from; written < to; written += 256 * payload.byteLength) {
        const lsns = await Promise.all(Array.from({ length: 256 }, () => log.append(payload)));
        if ((written / payload.byteLength) % 16384 === 0) await log.checkpoint(Math.max(...lsns));
      }
      return process.memoryUsage.rss() / MIB;
    };
    const one = await residentAfter(0, GIB);
    const ten = await residentAfter(GIB, 10 * GIB);
    await log.close();
    console.log(
      `memory: ${one.toFixed(0)} MiB after 1 GiB, ${ten.toFixed(0)} MiB after 10 GiB (goal: at most 64 MiB more)`,
    );
    return { afterOneGiBMiB: one, afterTenGiBMiB: ten, growthMiB: ten - one };
  });
}
