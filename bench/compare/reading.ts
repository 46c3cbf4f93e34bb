import fs from 'node:fs';
import path from 'node:path';
import { inDirectory, median } from '../../src/cli/bench/load.js';
import type { ContenderName } from './contenders.js';
import type { ReadRow } from './results.js';
import { type How, runTask } from './task.js';

/** Who reads, how, and what it is called. */
type Lane = [contender: ContenderName, how: How, label: string];

const BARE = 'bare loop';
const WORKS: { what: string; lanes: Lane[] }[] = [
  {
    what: 'every record in order, warm, 100 B',
    lanes: [
      ['ringwal', 'records', 'ringwal, read().batches()'],
      ['ringwal', 'walk', BARE],
      ['ringwal', 'both', 'read, zlib.crc32, then the bare loop'],
      ['lmdb', 'records', 'lmdb, getRange'],
      ['level-batch', 'records', 'classic-level, iterator'],
      ['sqlite', 'records', 'better-sqlite3, iterate'],
    ],
  },
  {
    what: 'replay of puts, warm, 100 B',
    lanes: [
      ['ringwal', 'replay', 'ringwal, replay'],
      ['ringwal', 'walk', BARE],
    ],
  },
  {
    what: 'verify, warm, 100 B',
    lanes: [
      ['ringwal', 'verify', 'ringwal, verifyLog'],
      ['ringwal', 'checksum', 'read in 1 MiB pieces, zlib.crc32'],
    ],
  },
];

/** Everybody is filled once with as many records, and then read in turn, each time by a process of its own. */
export async function measureReading(
  under: string | undefined,
  records: number,
  rounds: number,
  isThere: (contender: ContenderName) => boolean,
): Promise<ReadRow[]> {
  return inDirectory(under, async (base) => {
    const filled = new Set<string>();
    const rows: ReadRow[] = [];
    for (const { what, lanes } of WORKS) {
      const running = lanes.filter(([contender]) => isThere(contender));
      // The log to be replayed is one of puts.
      const puts = what.startsWith('replay');
      const directory = path.join(base, puts ? 'puts' : 'records');
      fs.mkdirSync(directory, { recursive: true });
      for (const [contender] of running) {
        const key = `${contender} ${puts}`;
        if (filled.has(key)) continue;
        filled.add(key);
        await runTask({ op: 'fill', contender, directory, records, recordBytes: 100, puts });
      }
      const rates = running.map((): number[] => []);
      for (let round = 0; round < rounds; round++) {
        for (const [i, [contender, how]] of running.entries()) {
          const { recordsPerSecond } = await runTask({ op: 'read', contender, how, directory, passes: 3 });
          rates[i].push(recordsPerSecond);
        }
      }
      for (const [i, [, , label]] of running.entries()) {
        const ratio = median(rates[i].map((rate, round) => rates[0][round] / rate));
        rows.push({ what, label, recordsPerSecond: median(rates[i]), ratio });
      }
    }
    return rows;
  });
}
