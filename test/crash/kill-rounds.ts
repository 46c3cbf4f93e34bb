import { type ChildProcess, fork } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Random } from '../simulation/random.js';
import { type Inspected, inspect, inspectOpened } from './inspect.js';
import { Ledger } from './ledger.js';
import { readNotes } from './notes.js';
import { PRODUCERS, type WriterTask } from './writer-task.js';

/** Where the kill hits: a log being opened and recovered, one that is at work, one that is being closed. */
export type Moment = 'opening' | 'running' | 'closing' | 'not at all';

export interface KillRound {
  round: number;
  moment: Moment;
  /** Records found, and of how many acknowledgements in all. */
  records: number;
  acknowledged: number;
  cuts: number;
  verdict: Inspected['verdict'];
  milliseconds: number;
}

export interface KillOptions {
  directory: string;
  rounds: number;
  seed: number;
  /** The longest time from 'running' to the kill. */
  longestLife: number;
  /** After so many rounds another log is begun, so that also its making is hit. */
  roundsPerLog: number;
}

const WRITER = fileURLToPath(new URL('./writer.js', import.meta.url));
const LONGEST_OPENING_MS = 80;
const LONGEST_CLOSING_MS = 20;
/** A process that says nothing for so long hangs. */
const PATIENCE_MS = 30_000;

/** A writer process; it loads while the one before it is at work. */
class Writer {
  readonly #child: ChildProcess;
  readonly #said = new Set<unknown>();
  readonly #ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  #stderr = '';
  #listener: () => void = () => {};

  constructor() {
    this.#child = fork(WRITER, [], { silent: true });
    this.#child.stderr?.on('data', (data) => {
      this.#stderr += data;
    });
    this.#child.on('message', (message) => {
      this.#said.add(message);
      this.#listener();
    });
    this.#ended = new Promise((resolve) => {
      this.#child.once('close', (code, signal) => {
        this.#said.add('ended');
        this.#listener();
        resolve({ code, signal });
      });
    });
  }

  async until(word: string): Promise<void> {
    const deadline = setTimeout(() => this.#child.kill('SIGKILL'), PATIENCE_MS);
    while (!this.#said.has(word) && !this.#said.has('ended')) {
      await new Promise<void>((resolve) => {
        this.#listener = resolve;
      });
    }
    clearTimeout(deadline);
    if (!this.#said.has(word)) throw new Error(`The writer ended before it was '${word}': ${this.#stderr}`);
  }

  send(message: unknown): void {
    // It may have been killed meanwhile.
    this.#child.send(message as object, () => {});
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    const { signal, code } = await this.#ended;
    if (signal !== 'SIGKILL' && code !== 0) throw new Error(`The writer ended by itself: ${this.#stderr}`);
  }

  /** It ends by itself, and well. */
  async end(): Promise<void> {
    await this.until('ended');
    const { code } = await this.#ended;
    if (code !== 0) throw new Error(`The writer could not close its log: ${this.#stderr}`);
  }
}

/**
 * Kills a process with SIGKILL that does everything a log can do at once, in three threads, again and again, and checks
 * after each death that every promise was kept. Throws when one was not. What it does follows from the seed; when the
 * kill hits does not quite.
 */
export async function* killRounds(options: KillOptions): AsyncGenerator<KillRound> {
  const { directory, rounds, seed, roundsPerLog } = options;
  let ledger = new Ledger();
  let acknowledged = 0;
  let cuts = 0;
  let next = new Writer();
  try {
    for (let round = 1; round <= rounds; round++) {
      const startedAt = performance.now();
      const log = path.join(directory, `log-${Math.ceil(round / roundsPerLog)}`);
      if (round % roundsPerLog === 1 || roundsPerLog === 1) {
        acknowledged += ledger.acknowledged;
        cuts += ledger.cuts;
        ledger = new Ledger();
        if (round > 1)
          fs.rmSync(path.join(directory, `log-${Math.ceil(round / roundsPerLog) - 1}`), { recursive: true });
      }
      const random = Random.of(seed, round);
      const writer = next;
      await writer.until('warm');
      next = new Writer();
      const notes = path.join(directory, `notes-${round}`);
      const moment = await liveAndDie(writer, { directory: log, notes, seed, round }, random, options.longestLife);
      const files = Array.from({ length: PRODUCERS + 1 }, (_, thread) => `${notes}.${thread}`);
      ledger.took(readNotes(files));
      const { verdict, records } = await inspect(log, ledger);
      if (records > 0 && random.oneIn(3)) await inspectOpened(log, ledger);
      for (const file of files) fs.rmSync(file, { force: true });
      yield {
        round,
        moment,
        records,
        acknowledged: acknowledged + ledger.acknowledged,
        cuts: cuts + ledger.cuts,
        verdict,
        milliseconds: performance.now() - startedAt,
      };
    }
  } finally {
    await next.kill();
  }
}

async function liveAndDie(writer: Writer, task: WriterTask, random: Random, longestLife: number): Promise<Moment> {
  const moment = random.weighted<Moment>([
    ['running', 10],
    ['opening', 4],
    ['closing', 2],
    ['not at all', 1],
  ]);
  writer.send(task);
  if (moment === 'opening') {
    await writer.until('opening');
    await delay(random.below(LONGEST_OPENING_MS));
  } else {
    await writer.until('running');
    await delay(random.below(longestLife));
  }
  if (moment === 'closing' || moment === 'not at all') writer.send('close');
  if (moment === 'not at all') await writer.end();
  if (moment === 'closing') await delay(random.below(LONGEST_CLOSING_MS));
  await writer.kill();
  return moment;
}
