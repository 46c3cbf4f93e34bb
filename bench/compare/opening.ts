import { inDirectory, median } from '../../src/cli/bench/load.js';
import type { ContenderName } from './contenders.js';
import type { OpenRow } from './results.js';
import { type Results, runTask } from './task.js';

const MIB = 1024 * 1024;
const RECORD = 65_536;
/** A peer's database beyond this says nothing more, and takes long to fill. */
const MOST_OF_PEERS = 1024 * MIB;

const LANES: [contender: ContenderName, label: string, crash: boolean][] = [
  ['ringwal', 'ringwal', false],
  ['ringwal', 'ringwal, after kill -9', true],
  ['lmdb', 'lmdb', false],
  ['level-batch', 'classic-level', false],
  ['sqlite', 'better-sqlite3', false],
];

/** How long opening takes, by the size of what is opened; each time in a process of its own, warm. */
export async function measureOpening(
  base: string | undefined,
  mebibytes: number[],
  rounds: number,
  isThere: (contender: ContenderName) => boolean,
): Promise<OpenRow[]> {
  const rows: OpenRow[] = [];
  for (const [contender, label, crash] of LANES) {
    if (!isThere(contender)) continue;
    await inDirectory(base, async (directory) => {
      let filled = 0;
      for (const bytes of mebibytes.map((size) => size * MIB)) {
        if (contender !== 'ringwal' && bytes > MOST_OF_PEERS) return;
        await runTask({
          op: 'fill',
          contender,
          directory,
          records: (bytes - filled) / RECORD,
          recordBytes: RECORD,
          crash,
        });
        filled = bytes;
        const opened: Results['open'][] = [];
        for (let round = 0; round < rounds; round++) {
          opened.push(await runTask({ op: 'open', contender, directory, crash }));
        }
        const logMs = opened.map((one) => one.logMs ?? Number.NaN);
        rows.push({
          label,
          bytes,
          totalMs: median(opened.map((one) => one.totalMs)),
          logMs: contender === 'ringwal' ? median(logMs) : undefined,
        });
      }
    });
  }
  return rows;
}
