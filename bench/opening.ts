import { WriteAheadLog } from 'ringwal';
import { inDirectory, median } from '../src/cli/bench/load.js';

export interface Opening {
  smallBytes: number;
  largeBytes: number;
  smallMs: number;
  largeMs: number;
  /** Goal: at most 1.5. */
  ratio: number;
}

const MIB = 1024 * 1024;

/** Opens logs of 256 MiB and 2 GiB, in turn. Only headers and the last segment are read, so size should not show. */
export async function measureOpening(base: string | undefined, rounds: number): Promise<Opening> {
  return inDirectory(base, (small) =>
    inDirectory(base, async (large) => {
      await fill(small, 256 * MIB);
      await fill(large, 2048 * MIB);
      const times: Record<string, number[]> = { [small]: [], [large]: [] };
      for (let round = 0; round < rounds; round++) {
        for (const directory of [small, large]) times[directory].push(await openOnce(directory));
      }
      const smallMs = median(times[small]);
      const largeMs = median(times[large]);
      console.log(
        `opening: 256 MiB ${smallMs.toFixed(1)} ms, 2 GiB ${largeMs.toFixed(1)} ms, ratio ${(largeMs / smallMs).toFixed(2)} (goal: at most 1.5)`,
      );
      return { smallBytes: 256 * MIB, largeBytes: 2048 * MIB, smallMs, largeMs, ratio: largeMs / smallMs };
    }),
  );
}

async function fill(directory: string, bytes: number): Promise<void> {
  const log = await WriteAheadLog.open(directory, { durability: 'os' });
  const payloads = new Array<Buffer>(1024).fill(Buffer.alloc(1024, 'x'));
  for (let written = 0; written < bytes; written += 4 * MIB) {
    await Promise.all(Array.from({ length: 4 }, () => log.appendMany(payloads)));
  }
  await log.close();
}

async function openOnce(directory: string): Promise<number> {
  const before = performance.now();
  const log = await WriteAheadLog.open(directory);
  const elapsed = performance.now() - before;
  await log.close();
  return elapsed;
}
