/**
 * `npm start`: takes a file line by line through producer threads into a write-ahead log, verifies the log, reads it back,
 * and says what it did. `npm start -- FILE...` takes your files; without any it makes a web server's access log.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { verifyLog, WriteAheadLog } from 'ringwal';
import { count, rate, size } from '../src/cli/figures.js';
import { bytesOf, ingestLines } from '../src/cli/ingest-lines.js';
import { eachLine, lineBlocks } from '../src/cli/line-blocks.js';
import { Progress } from '../src/cli/progress.js';
import { writeAccessLog } from './access-log.js';

const PRODUCERS = 4;
const LINES = 300_000;
const SEED = 20_150_517;

/** Lines as a multiset: how many, and a sum of their hashes that does not depend on their order. */
class LineBag {
  lines = 0;
  readonly #sums = new Uint32Array(8);

  add(line: Uint8Array): void {
    this.lines++;
    const hash = createHash('sha256').update(line).digest();
    for (let i = 0; i < 8; i++) this.#sums[i] += hash.readUInt32LE(i * 4);
  }

  toString(): string {
    return Buffer.from(this.#sums.buffer).toString('hex');
  }
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { keep: { type: 'boolean', default: false } },
});
let steps = 0;
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'ringwal-start-'));
process.on('exit', () => {
  if (!values.keep) fs.rmSync(directory, { recursive: true, force: true });
});
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  process.on(signal, () => process.exit(code));
}

try {
  await main(positionals);
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
}

async function main(given: string[]): Promise<void> {
  const files = given.length > 0 ? given : [await makeInput()];
  const log = path.join(directory, 'log');
  await ingest(files, log);
  await verify(log);
  await compare(files, log);
  console.log(
    values.keep
      ? `\nThe log is in ${log}. Try: npx ringwal inspect ${log}`
      : '\nThe log was in a temporary directory and is removed now. npm start -- --keep leaves it there.',
  );
}

function step(what: string): void {
  console.log(`${++steps}. ${what}`);
}

async function makeInput(): Promise<string> {
  const file = path.join(directory, 'access.log');
  await writeAccessLog(file, LINES, SEED);
  step(`Made the access log of a web server, the same on every run:`);
  console.log(`   ${count(LINES)} lines, ${size(fs.statSync(file).size)}`);
  return file;
}

async function ingest(files: string[], log: string): Promise<void> {
  step(`Each line becomes a record, through ${PRODUCERS} producer threads, acknowledged when it is on disk:`);
  const progress = new Progress(bytesOf(files));
  const done = await ingestLines({
    directory: log,
    sources: files,
    producers: PRODUCERS,
    durability: 'disk',
    onProgress: ({ input, records }) => progress.update(input, records),
  }).finally(() => progress.clear());
  const { records, bytes, seconds, recordsPerSecond, syncs, latencyMs } = done;
  console.log(`   ${count(records)} records (${size(bytes)}) in ${seconds.toFixed(2)} s: ${rate(recordsPerSecond)}`);
  console.log(
    `   ${count(syncs)} syncs, one for ${count(Math.round(records / Math.max(syncs, 1)))} records on average; ` +
      `a record took ${latencyMs.p50.toFixed(1)} ms to be acknowledged (p99 ${latencyMs.p99.toFixed(1)} ms)`,
  );
}

async function verify(log: string): Promise<void> {
  step('Read every byte of the log and checked it:');
  const startedAt = performance.now();
  const { verdict, records, segments, damage } = await verifyLog(log);
  if (verdict !== 'clean') throw new Error(`   ${verdict}: ${JSON.stringify(damage)}`);
  const took = ((performance.now() - startedAt) / 1000).toFixed(2);
  console.log(`   ${verdict}: ${count(records)} records in ${segments} segments, in ${took} s`);
}

async function compare(files: string[], directory: string): Promise<void> {
  step('Read the records back and compared them with the lines:');
  const input = new LineBag();
  for await (const { bytes } of lineBlocks(files, Number.MAX_SAFE_INTEGER, undefined)) {
    await eachLine(Buffer.from(bytes.buffer), (line) => {
      input.add(line);
      return undefined;
    });
  }
  const output = new LineBag();
  const log = await WriteAheadLog.open(directory, { readOnly: true });
  for await (const records of log.read().batches()) for (const { payload } of records) output.add(payload);
  await log.close();
  if (input.lines !== output.lines || `${input}` !== `${output}`) {
    throw new Error(`   they differ: ${count(input.lines)} lines went in, ${count(output.lines)} records came out`);
  }
  console.log(`   ${count(output.lines)} lines, ${count(output.lines)} records, all the same byte for byte`);
}
