import fs from 'node:fs';
import path from 'node:path';
import PQueue from 'p-queue';
import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { cli } from './cli-helpers.js';
import { temporaryDirectory } from './helpers.js';

const queue = new PQueue({ concurrency: 4 });
const atMostFour = <T>(run: () => Promise<T>) => queue.add(run);

t.test('wrong usage gets one line on standard error and exit code 2', async (t) => {
  const directory = temporaryDirectory(t);
  const log = path.join(directory, 'log');
  const writing = await WriteAheadLog.open(log);
  await writing.append('a record');
  await writing.close();
  const nowhere = path.join(directory, 'nowhere');
  const file = path.join(directory, 'file');
  fs.writeFileSync(file, 'a line\n');
  const wrong = [
    [],
    ['nonsense'],
    ['--nonsense'],
    ['dump'],
    ['dump', log, 'and', 'more'],
    ['dump', log, '--nonsense'],
    ['dump', log, '--from'],
    ['dump', log, '--from', 'x'],
    ['dump', log, '--from', '0'],
    ['dump', log, '--from', '-1'],
    ['dump', log, '--limit', '1.5'],
    ['dump', log, '--to', '99999999999999999999'],
    ['dump', log, '--encoding', 'utf16'],
    ...['dump', 'inspect', 'verify'].flatMap((command) => [
      [command, nowhere],
      [command, file],
      [command, directory],
      [command, path.join(file, 'below')],
    ]),
    ['ingest'],
    ['ingest', log, nowhere],
    ['ingest', log, directory],
    ['ingest', file, file],
    ['ingest', nowhere, file, '--producers', '0'],
    ['ingest', nowhere, file, '--durability', 'eternal'],
    ['ingest', nowhere, file, '--durability', 'replicated'],
    ['ingest', nowhere, file, '--segment-bytes', '10'],
    ['ingest', nowhere, file, '--ring-bytes', 'big'],
    ['ingest', log, file, '--acks', path.join(nowhere, 'acks')],
  ];
  const tried = await Promise.all(wrong.map(async (args) => ({ args, ...(await atMostFour(() => cli(args))) })));
  for (const { args, code, stdout, stderr } of tried) {
    const shown = args.map((arg) => arg.replace(directory, '…')).join(' ');
    t.equal(code, 2, shown);
    t.equal(stdout, '', shown);
    t.match(stderr, /^ringwal[ :].{10,}\n$/, `${shown}: ${stderr}`);
  }
  t.notOk(fs.existsSync(nowhere), 'nothing was made');
  t.equal((await cli(['verify', log])).code, 0);
});
