import { type VerifyReport, verifyLog } from '../reader/verify.js';
import type { Command } from './command.js';
import { count, plural } from './figures.js';
import { keyFrom } from './key-file.js';
import { Progress } from './progress.js';

export const verify: Command = {
  name: 'verify',
  synopsis: 'DIR',
  summary: 'Reads everything in a log and says whether it is sound.',
  details:
    'Exit code 0: sound. An unfinished group at the end, which nobody was promised, is sound too.\n' +
    'Exit code 1: damaged; every place is named. Exit code 2: the log could not be read.\n' +
    'Changes nothing; another process may be writing to the log. Without --key-file an encrypted log is checked as far\n' +
    'as its checksums go.',
  options: {},
  positionals: { least: 1, most: 1 },
  async run({ positionals: [directory], values, out }) {
    let progress: Progress | undefined;
    const startedAt = performance.now();
    const report = await verifyLog(directory, {
      encryptionKey: keyFrom(values),
      onProgress: ({ bytes, totalBytes, records }) => {
        progress ??= new Progress(totalBytes);
        progress.update(bytes, records);
      },
    }).finally(() => progress?.clear());
    const seconds = (performance.now() - startedAt) / 1000;
    await out.write(values.json === true ? `${JSON.stringify(report)}\n` : describe(report, seconds));
    return report.verdict === 'corrupt' ? 1 : 0;
  },
};

const VERDICTS: Record<VerifyReport['verdict'], string> = {
  clean: 'sound',
  'torn-tail': 'sound, with an unfinished group at the end that nobody was promised',
  corrupt: 'DAMAGED',
};

export function describe(report: VerifyReport, seconds: number): string {
  const { verdict, segments, records, firstLsn, lastLsn, damage, lost, encrypted, unchecked = 0 } = report;
  const range = records === 0 ? '' : ` (LSN ${firstLsn} to ${lastLsn})`;
  const places = damage.map(
    ({ segment, offset, lsn, reason }) => `  ${segment} at byte ${count(offset)}, LSN ${lsn}: ${reason}\n`,
  );
  const notSeen = unchecked > 0 ? `; ${plural(unchecked, 'record')} checked by checksum alone` : '';
  const encoding =
    encrypted || unchecked > 0
      ? `  ${encrypted ? 'encrypted' : 'compressed in a way that this Node.js cannot read'}${notSeen}\n`
      : '';
  const gone = lost.map(({ firstLsn, lastLsn }) => `  LSN ${firstLsn} to ${lastLsn} were given up by a repair\n`);
  return (
    `${VERDICTS[verdict]}: ${plural(records, 'record')}${range} in ${plural(segments, 'segment')}, ` +
    `read in ${seconds.toFixed(2)} s\n${encoding}${places.join('')}${gone.join('')}`
  );
}
