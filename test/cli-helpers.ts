import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../src/cli/main.js', import.meta.url));

export interface Outcome {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export function startCli(...args: string[]): ChildProcessWithoutNullStreams {
  return spawn(process.execPath, [MAIN, ...args]);
}

/** Runs `ringwal` to its end, with `input` as its standard input. */
export async function cli(args: string[], input?: Uint8Array | string): Promise<Outcome> {
  const child = startCli(...args);
  const outcome = outcomeOf(child);
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  return outcome;
}

export function outcomeOf(child: ChildProcessWithoutNullStreams): Promise<Outcome> {
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk) => stdout.push(chunk));
  child.stderr.on('data', (chunk) => stderr.push(chunk));
  return new Promise((resolve) => {
    child.on('close', (code, signal) => {
      resolve({ code, signal, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() });
    });
  });
}

/** The records that `ringwal dump` prints, with their payloads as bytes. */
export async function dumped(directory: string, ...args: string[]): Promise<{ lsn: number; payload: Buffer }[]> {
  const { code, stdout, stderr } = await cli(['dump', directory, '--encoding', 'base64', ...args]);
  if (code !== 0) throw new Error(stderr);
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))
    .map(({ lsn, payload }) => ({ lsn, payload: Buffer.from(payload, 'base64') }));
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The acknowledgements that `ringwal ingest --acks` wrote; a line that a kill cut short is none. */
export function acksIn(file: string): Map<number, string> {
  const acks = new Map<number, string>();
  if (!fs.existsSync(file)) return acks;
  const lines = fs.readFileSync(file, 'utf8').split('\n');
  for (const line of lines) {
    const match = /^\{"lsn":(\d+),"sha256":"([0-9a-f]{64})"\}$/.exec(line);
    if (match !== null) acks.set(Number(match[1]), match[2]);
  }
  return acks;
}

/**
 * Whether `items` (distinct, numbered in input order) can be what `producers` threads made of an input, each keeping the
 * order of its share: whether they fall into at most that many rising sequences.
 */
export function isMergeOf(items: Iterable<number>, producers: number): boolean {
  const tails: number[] = [];
  for (const item of items) {
    // The tail just below the item: the one that loses least.
    let best = -1;
    for (let i = 0; i < tails.length; i++) {
      if (tails[i] < item && (best < 0 || tails[i] > tails[best])) best = i;
    }
    if (best >= 0) tails[best] = item;
    else if (tails.push(item) > producers) return false;
  }
  return true;
}
