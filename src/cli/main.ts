#!/usr/bin/env node
import { createRequire } from 'node:module';
import { WalError } from '../errors.js';
import { bench } from './bench.js';
import { type Command, runCommand, UsageError } from './command.js';
import { dump } from './dump.js';
import { ingest } from './ingest.js';
import { inspect } from './inspect.js';
import { Output } from './output.js';
import { repair } from './repair.js';
import { tail } from './tail.js';
import { checkpoint, cleanup, compact } from './upkeep.js';
import { verify } from './verify.js';

const COMMANDS: readonly Command[] = [ingest, dump, tail, inspect, verify, repair, checkpoint, cleanup, compact, bench];

async function main(args: string[], out: Output): Promise<number> {
  const [first, ...rest] = args;
  if (first === '--help' || first === '-h' || first === 'help') {
    await out.write(help());
    return 0;
  }
  if (first === '--version' || first === '-v') {
    await out.write(`${version()}\n`);
    return 0;
  }
  const command = COMMANDS.find(({ name }) => name === first);
  if (command === undefined) {
    const what = first === undefined ? 'which command?' : `there is no command or option '${first}'.`;
    throw new UsageError(`ringwal: ${what} Try 'ringwal --help'.`);
  }
  return runCommand(command, rest, out);
}

function help(): string {
  const width = Math.max(...COMMANDS.map(({ name, synopsis }) => name.length + synopsis.length + 1));
  const list = COMMANDS.map(
    ({ name, synopsis, summary }) => `  ringwal ${`${name} ${synopsis}`.padEnd(width)}  ${summary}`,
  );
  return (
    `Usage: ringwal COMMAND DIR [options]\n\nA write-ahead log in the directory DIR.\n\n${list.join('\n')}\n\n` +
    `  ringwal COMMAND --help     what a command does, and its options\n` +
    `  ringwal --version\n\n` +
    `Exit codes: 0 all is well, 1 'verify' found damage, 2 the command could not be carried out.\n`
  );
}

function version(): string {
  return createRequire(import.meta.url)('ringwal/package.json').version;
}

/** One line that says what is wrong. */
function explain(error: unknown): string {
  if (error instanceof UsageError) return error.message;
  const { message, code } = error as NodeJS.ErrnoException;
  const line = message.replace(/\s*\n\s*/g, ' ');
  return error instanceof WalError || code !== undefined ? `ringwal: ${line} (${code})` : `ringwal: ${line}`;
}

try {
  process.exitCode = await main(process.argv.slice(2), new Output(process.stdout));
} catch (error) {
  process.stderr.write(`${explain(error)}\n`);
  process.exitCode = 2;
}
