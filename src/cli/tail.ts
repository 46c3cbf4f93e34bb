import type { Durability } from '../types.js';
import { WriteAheadLog } from '../wal.js';
import { type Command, oneOf, wholeNumber } from './command.js';
import { keyFrom } from './key-file.js';
import { ENCODINGS, recordLine } from './record-line.js';

const LEVELS: readonly Durability[] = ['disk', 'os'];

export const tail: Command = {
  name: 'tail',
  synopsis: 'DIR',
  summary: 'Prints the records of a log as JSON lines, and those that another process adds to it.',
  details:
    'As dump, but goes on until Ctrl-C or until nobody reads what it prints. Reads only.\n' +
    'A record is printed once it is on stable storage, or, with --level os, once the kernel has it.',
  options: {
    from: { type: 'string', value: 'LSN', help: 'the first record to print (default: the first there is)' },
    level: { type: 'string', value: 'LEVEL', help: 'disk or os (default: disk)' },
    encoding: { type: 'string', value: 'NAME', help: 'of payload, key and value: utf8, base64 or hex (default: utf8)' },
  },
  positionals: { least: 1, most: 1 },
  async run({ positionals: [directory], values, out }) {
    const from = wholeNumber(values, 'from', 1);
    const level = oneOf(values, 'level', LEVELS, 'disk');
    const encoding = oneOf(values, 'encoding', ENCODINGS, 'utf8');
    const stop = new AbortController();
    const leave = () => stop.abort();
    process.on('SIGINT', leave).on('SIGTERM', leave);
    out.closed.addEventListener('abort', leave);
    try {
      const log = await WriteAheadLog.open(directory, { readOnly: true, encryptionKey: keyFrom(values) });
      try {
        for await (const records of log.read({ from, follow: true, level, signal: stop.signal }).batches()) {
          await out.write(records.map((record) => recordLine(record, encoding)).join(''));
        }
      } finally {
        await log.close();
      }
    } catch (error) {
      // Told to stop, which is how this ends.
      if (!stop.signal.aborted || error !== stop.signal.reason) throw error;
    } finally {
      process.off('SIGINT', leave).off('SIGTERM', leave);
    }
    return 0;
  },
};
