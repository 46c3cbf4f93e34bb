import { type RepairReport, repairLog } from '../upkeep/repair-log.js';
import type { Command } from './command.js';
import { count, plural } from './figures.js';
import { keyFrom } from './key-file.js';
import { Progress } from './progress.js';

export const repair: Command = {
  name: 'repair',
  synopsis: 'DIR',
  summary: 'Makes a sound log of a damaged one: keeps all that can be read, says what was lost.',
  details:
    'What is damaged is copied to quarantine/ in DIR, never deleted, and a gap takes its place. Records behind the\n' +
    'damage keep their LSNs; a read goes on behind a gap. Nobody may have the log open for writing.\n' +
    'Exit code 0: the log is sound now. Exit code 2: it was not touched, and why.',
  options: { 'dry-run': { type: 'boolean', help: 'say what would be done, and change nothing' } },
  positionals: { least: 1, most: 1 },
  async run({ positionals: [directory], values, out }) {
    const dryRun = values['dry-run'] === true;
    let progress: Progress | undefined;
    const report = await repairLog(directory, {
      dryRun,
      encryptionKey: keyFrom(values),
      onProgress: ({ bytes, totalBytes, records }) => {
        progress ??= new Progress(totalBytes);
        progress.update(bytes, records);
      },
    }).finally(() => progress?.clear());
    await out.write(values.json === true ? `${JSON.stringify({ ...report, dryRun })}\n` : describe(report, dryRun));
    return 0;
  },
};

function describe({ verdict, kept, lost, quarantined, damage }: RepairReport, dryRun: boolean): string {
  const gone = lost.reduce((sum, { firstLsn, lastLsn }) => sum + lastLsn - firstLsn + 1, 0);
  const lines = [
    verdict === 'clean'
      ? `sound: nothing to repair, ${plural(kept, 'record')}`
      : `${dryRun ? 'would keep' : 'repaired: kept'} ${plural(kept, 'record')}, ${count(gone)} lost`,
    ...damage.map(({ segment, offset, lsn, reason }) => `  ${segment} at byte ${count(offset)}, LSN ${lsn}: ${reason}`),
    ...lost.map(({ firstLsn, lastLsn }) => `  lost: LSN ${firstLsn} to ${lastLsn}`),
    ...quarantined.map((name) => `  kept in ${name}`),
  ];
  return `${lines.join('\n')}\n`;
}
