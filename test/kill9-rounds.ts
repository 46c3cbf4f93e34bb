import { once } from 'node:events';
import fs from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { WriteAheadLog } from 'ringwal';
import { cli, outcomeOf, sha256, startCli } from './cli-helpers.js';

export interface KillRound {
  round: number;
  /** Acknowledgements so far, of all rounds. */
  acknowledged: number;
  /** Records in the log. */
  records: number;
  /** Of `ringwal verify`, before the log was opened again. */
  verdict: string;
}

export interface KillOptions {
  /** The log, which grows from round to round. */
  directory: string;
  /** Where `ringwal ingest --acks` writes. */
  acks: string;
  /** Lines, fed over and over. */
  input: Buffer;
  rounds: number;
  /** 0 to 1. */
  random: () => number;
  /**
   * The longest time to a kill, in milliseconds: in every fifth round from the start of the process, so that it may hit
   * recovery; in the others from the first acknowledgement.
   */
  longestLife: number;
  ingestArguments?: string[];
}

/**
 * Kills a running `ringwal ingest` with SIGKILL, again and again on one growing log. After each kill the log must verify,
 * and hold every record that was ever acknowledged, with its hash. Throws when it does not.
 */
export async function* killRounds(options: KillOptions): AsyncGenerator<KillRound> {
  const { directory, acks, rounds, random, longestLife } = options;
  for (let round = 1; round <= rounds; round++) {
    await liveAndDie(options, round % 5 === 0, Math.floor(random() * longestLife));
    if (!fs.existsSync(directory)) {
      yield { round, acknowledged: 0, records: 0, verdict: 'killed before there was a log' };
      continue;
    }
    const verified = await cli(['verify', directory, '--json']);
    if (verified.code !== 0 && !/ERR_WAL_NOT_FOUND/.test(verified.stderr)) {
      throw new Error(`verify after round ${round}: exit code ${verified.code}\n${verified.stdout}${verified.stderr}`);
    }
    const promised = readAcks(acks);
    const { verdict, records } = verified.code === 0 ? JSON.parse(verified.stdout) : { verdict: 'no log', records: 0 };
    await checkAcks(directory, promised, round);
    yield { round, acknowledged: promised.size, records, verdict };
  }
}

async function liveAndDie(options: KillOptions, atStart: boolean, life: number): Promise<void> {
  const { directory, acks, input, ingestArguments = [] } = options;
  fs.closeSync(fs.openSync(acks, 'a'));
  const watcher = fs.watch(acks);
  const child = startCli('ingest', directory, '--acks', acks, ...ingestArguments);
  const outcome = outcomeOf(child);
  // Writing to it fails once it is dead.
  child.stdin.on('error', () => {});
  const fed = feed(child.stdin, input);
  if (!atStart) await Promise.race([once(watcher, 'change'), outcome]);
  watcher.close();
  await delay(life);
  child.kill('SIGKILL');
  const { signal, stderr } = await outcome;
  if (signal !== 'SIGKILL') throw new Error(`ingest ended by itself: ${stderr}`);
  await fed;
}

/** Writes the input over and over until nobody reads it any more. */
async function feed(stdin: NodeJS.WritableStream & { destroyed?: boolean }, input: Buffer): Promise<void> {
  const closed = new AbortController();
  stdin.once('close', () => closed.abort());
  while (!closed.signal.aborted) {
    if (!stdin.write(input)) await once(stdin, 'drain', { signal: closed.signal }).catch(() => {});
  }
}

/** Hashes by LSN. An LSN that was acknowledged twice was given to two records: one of them is lost. */
function readAcks(file: string): Map<number, string> {
  const promised = new Map<number, string>();
  if (!fs.existsSync(file)) return promised;
  for (const line of fs.readFileSync(file, 'utf8').split('\n')) {
    const match = /^\{"lsn":(\d+),"sha256":"([0-9a-f]{64})"\}$/.exec(line);
    // The kill cut it short: whoever reads the file never saw this acknowledgement.
    if (match === null) continue;
    const lsn = Number(match[1]);
    if (promised.has(lsn)) throw new Error(`LSN ${lsn} was acknowledged twice.`);
    promised.set(lsn, match[2]);
  }
  return promised;
}

async function checkAcks(directory: string, promised: Map<number, string>, round: number): Promise<void> {
  if (promised.size === 0) return;
  const log = await WriteAheadLog.open(directory, { readOnly: true });
  let found = 0;
  let expected = 1;
  for await (const records of log.read().batches()) {
    for (const { lsn, payload } of records) {
      if (lsn !== expected++) throw new Error(`Round ${round}: LSN ${expected - 1} is missing, ${lsn} follows.`);
      const hash = promised.get(lsn);
      if (hash === undefined) continue;
      if (hash !== sha256(payload)) throw new Error(`Round ${round}: LSN ${lsn} holds something else.`);
      found++;
    }
  }
  await log.close();
  if (found !== promised.size) {
    throw new Error(
      `Round ${round}: ${promised.size - found} acknowledged records are missing after LSN ${expected - 1}.`,
    );
  }
}

/** A small generator of pseudo-random numbers (mulberry32), so that a run can be repeated. */
export function seeded(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
