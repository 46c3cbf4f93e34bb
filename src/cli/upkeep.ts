import type { CompactionReport } from '../coordinator/compactor.js';
import { WriteAheadLog } from '../wal.js';
import { type Command, type CommandInput, UsageError } from './command.js';
import { count, plural, size } from './figures.js';
import { keyFrom } from './key-file.js';
import { Progress, recoveryProgress } from './progress.js';

/** Opens a log that exists and that nobody else has open, for a moment. */
async function withLog<T>(
  directory: string,
  values: CommandInput['values'],
  work: (log: WriteAheadLog) => Promise<T>,
): Promise<T> {
  const { onProgress, clear } = recoveryProgress();
  const options = { createIfMissing: false, autoCleanup: false, encryptionKey: keyFrom(values), onProgress };
  const log = await WriteAheadLog.open(directory, options).finally(clear);
  try {
    return await work(log);
  } finally {
    await log.close();
  }
}

export const checkpoint: Command = {
  name: 'checkpoint',
  synopsis: 'DIR LSN',
  summary: 'Records that the state up to LSN is safe outside the log.',
  details:
    "A replay begins behind it, and 'ringwal cleanup' may remove what is below. Nobody may have the log open for writing.",
  options: {},
  positionals: { least: 2, most: 2 },
  async run({ positionals: [directory, text], values, out }) {
    const lsn = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!Number.isSafeInteger(lsn)) throw new UsageError(`ringwal: LSN must be a whole number, not '${text}'.`);
    const lastLsn = await withLog(directory, values, async (log) => {
      await log.checkpoint(lsn);
      return log.watermark('disk');
    });
    const result = { checkpoint: lsn, lastLsn };
    await out.write(
      values.json === true
        ? `${JSON.stringify(result)}\n`
        : `checkpoint at LSN ${lsn}; the log ends at LSN ${lastLsn}\n`,
    );
    return 0;
  },
};

export const cleanup: Command = {
  name: 'cleanup',
  synopsis: 'DIR',
  summary: 'Removes the segments that lie wholly below the checkpoint.',
  details: 'What a subscription has not acknowledged stays. Nobody may have the log open for writing.',
  options: {},
  positionals: { least: 1, most: 1 },
  async run({ positionals: [directory], values, out }) {
    const result = await withLog(directory, values, (log) => log.cleanup());
    await out.write(
      values.json === true
        ? `${JSON.stringify(result)}\n`
        : `${plural(result.segments, 'segment')} taken out of the log, ${size(result.bytes)}\n`,
    );
    return 0;
  },
};

export const compact: Command = {
  name: 'compact',
  synopsis: 'DIR',
  summary: 'Rewrites the sealed segments without the key-value operations that no replay needs.',
  details:
    'Of each key the last operation stays, deletes as long as they hide something, and all opaque records. LSNs stay.\n' +
    'A crash at any moment leaves the old segments or the new ones. Nobody may have the log open for writing.',
  options: {},
  positionals: { least: 1, most: 1 },
  async run({ positionals: [directory], values, out }) {
    let progress: Progress | undefined;
    const report = await withLog(directory, values, (log) =>
      log.compact({
        onProgress: ({ bytes, totalBytes, records }) => {
          progress ??= new Progress(totalBytes);
          progress.update(bytes, records);
        },
      }),
    ).finally(() => progress?.clear());
    await out.write(values.json === true ? `${JSON.stringify(report)}\n` : describeCompaction(report));
    return 0;
  },
};

function describeCompaction(report: CompactionReport): string {
  const { records, removed, segmentsBefore, segmentsAfter, bytesBefore, bytesAfter, durationMs } = report;
  return (
    `${count(removed)} of ${plural(records, 'record')} removed in ${(durationMs / 1000).toFixed(2)} s: ` +
    `${plural(segmentsBefore, 'segment')} of ${size(bytesBefore)} became ${plural(segmentsAfter, 'segment')} of ${size(bytesAfter)}\n`
  );
}
