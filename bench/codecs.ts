import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { type OpenOptions, WriteAheadLog } from 'ringwal';
import { inDirectory, load, median } from '../src/cli/bench/load.js';
import { isAvailable } from '../src/format/codec.js';

/**
 * `node dist/bench/codecs.js --file LINES`: what compression saves on the lines of a file and what it costs, and what
 * encryption costs at 64 KiB a record, each beside the plain log, in turn; medians of the rounds' ratios.
 */
const { values: options } = parseArgs({
  options: {
    file: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '1' },
    directory: { type: 'string' },
    'in-flight': { type: 'string', default: '1000' },
  },
});
const rounds = Number(options.rounds);
const seconds = Number(options.seconds);

interface Round {
  megabytesPerSecond: number;
  /** Bytes of records for each byte of the files. */
  smaller: number;
}

/** Appends records, one after the other from the front again, with so many in flight. */
function measure(records: readonly Buffer[], inFlight: number, open: OpenOptions): Promise<Round> {
  return inDirectory(options.directory, async (directory) => {
    const log = await WriteAheadLog.open(directory, open);
    let bytes = 0;
    let next = 0;
    const contender = {
      append: () => {
        const record = records[next++ % records.length];
        bytes += record.byteLength;
        return log.append(record);
      },
      syncs: () => 0,
      close: () => log.close(),
    };
    const shape = { inFlight, recordBytes: 0, recordsPerCall: 1 };
    // A short run first, for the optimising compiler and the threads of the pool.
    await load(contender, shape, seconds / 4);
    const before = bytes;
    const startedAt = performance.now();
    await load(contender, shape, seconds);
    const megabytesPerSecond = (bytes - before) / 1e3 / (performance.now() - startedAt);
    await log.close();
    const files = fs.readdirSync(directory).filter((name) => name.endsWith('.wal'));
    const written = files.reduce((sum, name) => sum + fs.statSync(path.join(directory, name)).size, 0);
    return { megabytesPerSecond, smaller: bytes / written };
  });
}

async function compare(
  what: string,
  records: readonly Buffer[],
  inFlight: number,
  contenders: Record<string, OpenOptions>,
): Promise<void> {
  console.log(what);
  const results = new Map<string, Round[]>(Object.keys(contenders).map((name) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    const order = Object.entries(contenders);
    if (round % 2 === 1) order.reverse();
    for (const [name, open] of order) results.get(name)!.push(await measure(records, inFlight, open));
  }
  const plain = results.get('none')!;
  for (const [name, mine] of results) {
    const speed = median(mine.map((round) => round.megabytesPerSecond));
    const ratio = median(mine.map((round, i) => round.megabytesPerSecond / plain[i].megabytesPerSecond));
    const smaller = median(mine.map((round) => round.smaller));
    const cells = [
      name.padEnd(22),
      `${speed.toFixed(0)} MB/s`.padStart(10),
      `${ratio.toFixed(2)} of plain`.padStart(14),
    ];
    console.log(`  ${cells.join(' ')}   ${smaller.toFixed(2)} times smaller`);
  }
}

function linesOf(file: string): Buffer[] {
  const lines = fs.readFileSync(file, 'latin1').split('\n');
  return lines.filter((line) => line !== '').map((line) => Buffer.from(line, 'latin1'));
}

console.log(`${os.availableParallelism()} cores, Node ${process.version}, ${rounds} rounds of ${seconds} s`);
if (options.file !== undefined) {
  const lines = linesOf(options.file);
  const inFlight = Number(options['in-flight']);
  await compare(`${lines.length} lines, ${inFlight} in flight, disk`, lines, inFlight, {
    none: {},
    brotli: { compression: 'brotli' },
    'brotli, in the pool': { compression: 'brotli', encoders: os.availableParallelism() },
    deflate: { compression: 'deflate' },
    ...(isAvailable(3) && { zstd: { compression: 'zstd' as const } }),
    'brotli, encrypted': { compression: 'brotli', encryptionKey: randomBytes(32) },
  });
}
for (const [size, inFlight] of [
  [65536, 16],
  [100, 1000],
] as const) {
  await compare(`records of ${size} bytes, ${inFlight} in flight, disk`, [randomBytes(size)], inFlight, {
    none: {},
    encrypted: { encryptionKey: randomBytes(32) },
    'encrypted, in the pool': { encryptionKey: randomBytes(32), encoders: os.availableParallelism() },
  });
}
