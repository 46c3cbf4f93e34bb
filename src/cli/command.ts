import { parseArgs } from 'node:util';
import type { Output } from './output.js';

/** The caller got the command line wrong: one line on stderr, exit code 2. */
export class UsageError extends Error {}

export interface OptionSpec {
  type: 'string' | 'boolean';
  /** What the value is called in the help. */
  value?: string;
  help: string;
}

export interface CommandInput {
  positionals: string[];
  values: Record<string, string | boolean | undefined>;
  out: Output;
}

export interface Command {
  name: string;
  /** One line for the list of commands. */
  summary: string;
  /** What follows the name: `DIR [FILE...]`. */
  synopsis: string;
  /** More for `--help`. */
  details: string;
  options: Record<string, OptionSpec>;
  /** How many positional arguments there must be, and may be. */
  positionals: { least: number; most: number };
  /** Resolves to the exit code. */
  run(input: CommandInput): Promise<number>;
}

const COMMON: Record<string, OptionSpec> = {
  'key-file': {
    type: 'string',
    value: 'FILE',
    help: 'the key of an encrypted log: 32 bytes, or 64 hexadecimal digits',
  },
  json: { type: 'boolean', help: 'print JSON for programs to read' },
  help: { type: 'boolean', help: 'print this and exit' },
};

export async function runCommand(command: Command, args: string[], out: Output): Promise<number> {
  const { values, positionals } = parse(command, args);
  if (values.help === true) {
    await out.write(helpOf(command));
    return 0;
  }
  const { least, most } = command.positionals;
  if (positionals.length < least) throw usage(command, `${command.synopsis.split(' ')[positionals.length]} is missing`);
  if (positionals.length > most) throw usage(command, `unexpected argument '${positionals[most]}'`);
  return command.run({ values, positionals, out });
}

function parse(command: Command, args: string[]): Omit<CommandInput, 'out'> {
  const options: Record<string, { type: 'string' | 'boolean'; short?: string }> = {};
  for (const [name, { type }] of Object.entries({ ...command.options, ...COMMON })) options[name] = { type };
  options.help.short = 'h';
  try {
    const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
    return { values: values as CommandInput['values'], positionals };
  } catch (error) {
    // Node's advice about arguments that start with a dash is more than one line's worth.
    throw usage(command, (error as Error).message.split(/[.\n]/)[0]);
  }
}

function usage(command: Command, what: string): UsageError {
  return new UsageError(`ringwal ${command.name}: ${what}. Try 'ringwal ${command.name} --help'.`);
}

function helpOf(command: Command): string {
  const rows = Object.entries({ ...command.options, ...COMMON }).map(([name, { value, help }]) => ({
    left: `--${name}${value === undefined ? '' : ` ${value}`}`,
    help,
  }));
  const width = Math.max(...rows.map((row) => row.left.length));
  const options = rows.map((row) => `  ${row.left.padEnd(width)}  ${row.help}`).join('\n');
  return `Usage: ringwal ${command.name} ${command.synopsis} [options]\n\n${command.summary}\n\n${command.details}\n\nOptions:\n${options}\n`;
}

/** A whole number from `least` to `most`, or undefined when the option was not given. */
export function wholeNumber(
  values: CommandInput['values'],
  name: string,
  least: number,
  most = Number.MAX_SAFE_INTEGER,
): number | undefined {
  const text = values[name];
  if (text === undefined) return undefined;
  const number = typeof text === 'string' && /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(number) && number >= least && number <= most) return number;
  const range = most === Number.MAX_SAFE_INTEGER ? `from ${least} on` : `from ${least} to ${most}`;
  throw new UsageError(`ringwal: --${name} must be a whole number ${range}, not '${text}'.`);
}

export function oneOf<T extends string>(
  values: CommandInput['values'],
  name: string,
  allowed: readonly T[],
  fallback: T,
): T {
  const text = values[name] ?? fallback;
  if ((allowed as readonly unknown[]).includes(text)) return text as T;
  throw new UsageError(`ringwal: --${name} must be one of ${allowed.join(', ')}, not '${text}'.`);
}
