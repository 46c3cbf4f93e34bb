import fs from 'node:fs';
import { CODEC_NAMES } from '../format/codec.js';
import type { Durability } from '../types.js';
import { type Command, oneOf, UsageError, wholeNumber } from './command.js';
import { count, rate, size } from './figures.js';
import { bytesOf, type IngestSummary, ingestLines } from './ingest-lines.js';
import { keyFrom } from './key-file.js';
import { STDIN } from './line-blocks.js';
import { Progress } from './progress.js';
import { listenForSignals } from './signals.js';

const LEVELS: readonly Durability[] = ['memory', 'os', 'disk', 'replicated'];

export const ingest: Command = {
  name: 'ingest',
  synopsis: 'DIR [FILE...]',
  summary: 'Appends each line of the files (or standard input) as a record.',
  details:
    'Byte for byte: a line ends at LF, and everything else belongs to it. An empty line is an empty record.\n' +
    'The log in DIR is made if there is none. Lines keep their order within a producer thread.\n' +
    'Ctrl-C stops reading, finishes what is under way and closes the log.',
  options: {
    producers: { type: 'string', value: 'N', help: 'producer threads (default: 4)' },
    durability: { type: 'string', value: 'LEVEL', help: 'memory, os or disk (default: disk)' },
    acks: { type: 'string', value: 'FILE', help: 'append {"lsn":...,"sha256":...} to FILE per acknowledged record' },
    compression: { type: 'string', value: 'NAME', help: 'none, brotli, deflate or zstd (default: none)' },
    'segment-bytes': { type: 'string', value: 'N', help: 'size of a segment file (default: 64 MiB)' },
    'ring-bytes': { type: 'string', value: 'N', help: 'shared memory per producer (default: 16 MiB)' },
  },
  positionals: { least: 1, most: Number.POSITIVE_INFINITY },
  async run({ positionals: [directory, ...files], values, out }) {
    const sources = files.length > 0 ? files : [STDIN];
    const settings = {
      producers: wholeNumber(values, 'producers', 1, 64) ?? 4,
      durability: oneOf(values, 'durability', LEVELS, 'disk'),
      log: definedOnly({
        segmentBytes: wholeNumber(values, 'segment-bytes', 1),
        ringBytes: wholeNumber(values, 'ring-bytes', 1),
        compression: oneOf(values, 'compression', CODEC_NAMES, 'none'),
        encryptionKey: keyFrom(values),
      }),
      acks: values.acks as string | undefined,
    };
    for (const file of files) checkReadable(file);

    const interruption = listenForSignals();
    const progress = new Progress(bytesOf(sources));
    try {
      const result = await ingestLines({
        ...settings,
        directory,
        sources,
        signal: interruption.signal,
        onProgress: ({ input, records }) => progress.update(input, records),
        onWarning: (error) => process.stderr.write(`ringwal: ${error.message}\n`),
      });
      progress.clear();
      await out.write(values.json === true ? `${JSON.stringify(result)}\n` : describe(result, directory));
      return interruption.exitCode();
    } finally {
      progress.clear();
      interruption.stop();
    }
  },
};

export function describe(summary: IngestSummary, directory: string): string {
  const { records, bytes, commits, syncs, seconds, recordsPerSecond, firstLsn, lastLsn, latencyMs } = summary;
  const range = records === 0 ? '' : `, LSN ${firstLsn} to ${lastLsn}`;
  return (
    `${count(records)} records (${size(bytes)}) into ${directory}${range}\n` +
    `${count(commits)} commits, ${count(syncs)} syncs, ${seconds.toFixed(2)} s, ${rate(recordsPerSecond)}\n` +
    `commit latency: p50 ${latencyMs.p50.toFixed(2)} ms, p99 ${latencyMs.p99.toFixed(2)} ms\n`
  );
}

/** Before the log is opened: a name that was mistyped must not leave an empty log behind. */
function checkReadable(file: string): void {
  if (file === STDIN) return;
  try {
    if (fs.statSync(file).isDirectory()) throw new UsageError(`ringwal: ${file} is a directory, not a file of lines.`);
    fs.accessSync(file, fs.constants.R_OK);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`ringwal: ${file} cannot be read: ${(error as Error).message}`);
  }
}

function definedOnly<T extends object>(options: T): T {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T;
}
