import { WriteAheadLog } from '../wal.js';
import { type Command, oneOf, wholeNumber } from './command.js';
import { keyFrom } from './key-file.js';
import { Progress } from './progress.js';
import { ENCODINGS, recordLine } from './record-line.js';

export const dump: Command = {
  name: 'dump',
  synopsis: 'DIR',
  summary: 'Prints the records of a log as JSON lines.',
  details:
    'One line per record: its lsn, kind, payload (or key and value) and timestamp in milliseconds.\n' +
    'Reads only; another process may be writing to the log.',
  options: {
    from: { type: 'string', value: 'LSN', help: 'the first record to print (default: the first there is)' },
    to: { type: 'string', value: 'LSN', help: 'the last record to print' },
    limit: { type: 'string', value: 'N', help: 'print at most N records' },
    encoding: { type: 'string', value: 'NAME', help: 'of payload, key and value: utf8, base64 or hex (default: utf8)' },
  },
  positionals: { least: 1, most: 1 },
  async run({ positionals: [directory], values, out }) {
    const from = wholeNumber(values, 'from', 1);
    const to = wholeNumber(values, 'to', 0) ?? Number.MAX_SAFE_INTEGER;
    let left = wholeNumber(values, 'limit', 0) ?? Number.MAX_SAFE_INTEGER;
    const encoding = oneOf(values, 'encoding', ENCODINGS, 'utf8');
    const log = await WriteAheadLog.open(directory, { readOnly: true, encryptionKey: keyFrom(values) });
    try {
      if (left === 0) return 0;
      // What is written meanwhile is left out: beside a busy writer there would be no end.
      const last = Math.min(to, log.recovery.lastLsn);
      const total = Math.min(left, last - Math.max(from ?? 1, log.recovery.firstLsn) + 1);
      const progress = new Progress(total, 'records');
      let printed = 0;
      for await (const records of log.read({ from, to: last }).batches()) {
        const wanted = records.length > left ? records.slice(0, left) : records;
        await out.write(wanted.map((record) => recordLine(record, encoding)).join(''));
        left -= wanted.length;
        printed += wanted.length;
        // On the terminal the records themselves are the progress.
        if (!process.stdout.isTTY) progress.update(0, printed);
        if (left === 0 || out.gone) break;
      }
      progress.clear();
    } finally {
      await log.close();
    }
    return 0;
  },
};
