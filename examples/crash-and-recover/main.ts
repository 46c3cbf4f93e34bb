import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { claim, inTemporaryDirectory, row } from '../support.js';
import { type Acknowledged, check, readNotes } from './check.js';

/**
 * Starts a process that writes from several threads, kills it with SIGKILL in full flight, opens the log again and
 * looks for everything that was acknowledged; over and over, on one growing log. `--rounds N` (default 10).
 */
const { values } = parseArgs({ options: { rounds: { type: 'string', default: '10' } } });
const rounds = Number(values.rounds);
const writer = fileURLToPath(new URL('./writer.js', import.meta.url));
const COLUMNS = [
  'round',
  'lived, ms',
  ' os acks',
  'disk acks',
  'records',
  '   verdict',
  'cut, bytes',
  'memory-only lost',
  'missing',
  'wrong',
];

await inTemporaryDirectory(async (directory) => {
  const log = path.join(directory, 'log');
  const acknowledged: Acknowledged = new Map();
  let promised = 0;
  let missing = 0;
  let wrong = 0;
  console.log(COLUMNS.join('  '));
  for (let round = 1; round <= rounds; round++) {
    const notes = path.join(directory, `notes-${round}`);
    fs.mkdirSync(notes);
    const lived = await writeAndKill(log, notes, round);
    const acks = readNotes(notes, acknowledged);
    promised += acks.os + acks.disk;
    const found = await check(log, acknowledged);
    missing += found.missing;
    wrong += found.wrong;
    const { verdict, records, discardedBytes, memoryLost } = found;
    const cells = [round, lived, acks.os, acks.disk, records, verdict, discardedBytes, memoryLost];
    console.log(row(COLUMNS, [...cells, found.missing, found.wrong]));
    // Their LSNs are given again to other records.
    for (const lsn of acknowledged.keys()) if (lsn > records) acknowledged.delete(lsn);
  }
  console.log();
  claim(promised > 0, `${promised} records were acknowledged at 'os' or 'disk' by processes that were then killed`);
  claim(missing === 0, 'every one of them was there after each kill, byte for byte');
  claim(wrong === 0, "no gap in the LSNs, every thread's order kept, no atomic group in part");
});

/** Returns how many milliseconds the writer lived after its first acknowledgement. */
async function writeAndKill(log: string, notes: string, round: number): Promise<number> {
  const child = spawn(process.execPath, [writer, log, notes, String(round)], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const exited = once(child, 'exit');
  const gone = exited.then(() => {
    if (!child.killed) throw new Error(`The writer ended by itself with code ${child.exitCode}.`);
  });
  const life = 20 + Math.floor(Math.random() * 300);
  await Promise.race([gone, firstNote(notes).then(() => sleep(life))]);
  child.kill('SIGKILL');
  await exited;
  return life;
}

async function firstNote(notes: string): Promise<void> {
  const hasNotes = () => fs.readdirSync(notes).some((name) => fs.statSync(path.join(notes, name)).size > 0);
  while (!hasNotes()) await sleep(5);
}
