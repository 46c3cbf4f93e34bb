import { fork } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { WriteAheadLog } from 'ringwal';
import { fixture, text } from './helpers.js';

export interface ConsumerRound {
  round: number;
  /** The position at which this round began. */
  from: number;
  delivered: number;
  /** Records that an earlier round had been given too. */
  again: number;
  acknowledged: number;
}

export interface ConsumerOptions {
  /** For the log and the notes. */
  directory: string;
  rounds: number;
  /** 0 to 1. */
  random: () => number;
  /** The longest time from the first delivery of a round to its kill, in milliseconds. */
  longestLife: number;
}

/** What became of the consumer so far, in all of its lives. */
class Ledger {
  /** The last LSN that it has been given; everything before it was given, too. */
  delivered = 0;
  acknowledged = 0;
  asked = 0;
  readonly #payloads = new Map<number, string>();

  begin(position: number, round: number): void {
    if (position < this.acknowledged) {
      throw new Error(`Round ${round} began behind LSN ${position}, though ${this.acknowledged} was acknowledged.`);
    }
    if (position > this.asked) {
      throw new Error(`Round ${round} began behind LSN ${position}; only ${this.asked} was ever to be acknowledged.`);
    }
  }

  /** The same LSN must always hold the same record. */
  record(lsn: number, payload: string): void {
    const known = this.#payloads.get(lsn);
    if (known !== undefined && known !== payload) throw new Error(`LSN ${lsn} holds '${payload}' and '${known}'.`);
    this.#payloads.set(lsn, payload);
  }
}

/**
 * Kills a process that appends and consumes, with SIGKILL, again and again on one log. After each kill: what it was given
 * is an unbroken run that began where it had acknowledged. Throws when something was missed, or seen again though it
 * had been acknowledged. In the end, what is left is read to the end of the log.
 */
export async function* consumerRounds(options: ConsumerOptions): AsyncGenerator<ConsumerRound> {
  const { directory, rounds, random, longestLife } = options;
  const log = path.join(directory, 'log');
  const ledger = new Ledger();
  for (let round = 1; round <= rounds; round++) {
    const notes = path.join(directory, `notes-${round}`);
    await liveAndDie(log, notes, round, Math.floor(random() * longestLife));
    yield take(notes, round, ledger);
  }
  await readTheRest(log, ledger);
}

async function liveAndDie(log: string, notes: string, round: number, life: number): Promise<void> {
  fs.closeSync(fs.openSync(notes, 'a'));
  const child = fork(fixture('consumer'), [log, notes, String(round)], { silent: true });
  let stderr = '';
  child.stderr?.on('data', (data) => {
    stderr += data;
  });
  const ended = once(child, 'close');
  const watcher = fs.watch(notes);
  await Promise.race([once(watcher, 'change'), ended]);
  watcher.close();
  await delay(life);
  child.kill('SIGKILL');
  const [, signal] = await ended;
  if (signal !== 'SIGKILL') throw new Error(`The consumer ended by itself: ${stderr}`);
}

function take(notes: string, round: number, ledger: Ledger): ConsumerRound {
  const lines = fs.readFileSync(notes, 'utf8').split('\n');
  // The kill may have cut the last one short.
  lines.pop();
  const before = ledger.delivered;
  const result = { round, from: 0, delivered: 0, again: 0, acknowledged: ledger.acknowledged };
  let next = 0;
  for (const line of lines) {
    const [what, number, payload] = line.split(' ');
    const lsn = Number(number);
    if (what === 'opened') {
      ledger.begin(lsn, round);
      result.from = lsn;
      next = lsn + 1;
    } else if (what === 'appended') {
      ledger.record(lsn, payload);
    } else if (what === 'delivered') {
      if (lsn !== next++) throw new Error(`Round ${round} was given LSN ${lsn} where ${next - 1} should have come.`);
      ledger.record(lsn, payload);
      ledger.delivered = Math.max(ledger.delivered, lsn);
      result.delivered++;
      if (lsn <= before) result.again++;
    } else if (what === 'asked') {
      ledger.asked = Math.max(ledger.asked, lsn);
    } else {
      ledger.acknowledged = Math.max(ledger.acknowledged, lsn);
    }
  }
  result.acknowledged = ledger.acknowledged;
  return result;
}

async function readTheRest(log: string, ledger: Ledger): Promise<void> {
  const wal = await WriteAheadLog.open(log);
  try {
    const subscription = await wal.subscribe('consumer');
    const last = wal.watermark('disk');
    ledger.begin(subscription.acknowledged, Number.POSITIVE_INFINITY);
    let next = subscription.acknowledged + 1;
    if (next > last) return;
    for await (const { lsn, payload } of subscription) {
      if (lsn !== next++) throw new Error(`In the end LSN ${lsn} came where ${next - 1} should have come.`);
      ledger.record(lsn, text(payload));
      if (lsn === last) break;
    }
    if (last < ledger.delivered) throw new Error(`LSN ${ledger.delivered} was delivered, and the log ends at ${last}.`);
  } finally {
    await wal.close();
  }
}
