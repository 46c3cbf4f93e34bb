import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { cli, dumped } from './cli-helpers.js';
import { numbers, snapshot, temporaryDirectory } from './helpers.js';

const LINES = numbers(1, 500).map((i) => `line ${i} of a file that nobody else may read`);

interface Files {
  log: string;
  key: string;
  wrong: string;
  write(name: string, content: string | Uint8Array): string;
}

function filesFor(t: Parameters<typeof temporaryDirectory>[0]): Files {
  const directory = temporaryDirectory(t);
  const write = (name: string, content: string | Uint8Array) => {
    const file = path.join(directory, name);
    fs.writeFileSync(file, content);
    return file;
  };
  return {
    log: path.join(directory, 'log'),
    key: write('key', randomBytes(32)),
    wrong: write('wrong', randomBytes(32)),
    write,
  };
}

t.test('each command works on an encrypted log with its key file, and says ERR_WAL_KEY without', async (t) => {
  const { log, key, wrong } = filesFor(t);
  const input = `${LINES.join('\n')}\n`;
  const ingest = ['ingest', log, '--producers', '2', '--compression', 'brotli', '--json'];
  const ingested = await cli([...ingest, '--key-file', key], input);
  t.match(ingested, { code: 0, stderr: '' });
  t.equal(JSON.parse(ingested.stdout).records, 500);
  const records = await dumped(log, '--key-file', key);
  t.same(records.map(({ payload }) => payload.toString()).sort(), [...LINES].sort());

  const commands = [
    ['ingest', log],
    ['dump', log],
    ['tail', log],
    ['repair', log],
    ['checkpoint', log, '1'],
    ['cleanup', log],
  ];
  const before = snapshot(log);
  for (const command of commands) {
    for (const given of [[], ['--key-file', wrong]]) {
      const { code, stdout, stderr } = await cli([...command, ...given], 'x\n');
      t.same([code, stdout], [2, ''], `${command[0]} ${given[0] ?? ''}`);
      t.match(stderr, /^ringwal: .*\(ERR_WAL_KEY\)\n$/);
    }
  }
  t.same(snapshot(log), before, 'nothing was touched');

  t.match(await cli(['verify', log]), {
    code: 0,
    stdout: /^sound: 500 records[\s\S]*encrypted; 500 records checked by/,
  });
  t.match(await cli(['verify', log, '--key-file', key]), { code: 0, stdout: /^sound: 500 records[\s\S]*encrypted\n$/ });
  t.match(await cli(['verify', log, '--key-file', wrong]), { code: 2, stderr: /ERR_WAL_KEY/ });
  t.match(await cli(['inspect', log]), { code: 0, stdout: /encrypted, with key 1 now/ });
  const { encryption } = JSON.parse((await cli(['inspect', log, '--json', '--key-file', key])).stdout);
  t.same(encryption, { currentKey: 1, keys: [1] });
  t.match(await cli(['inspect', log, '--key-file', wrong]), { code: 2, stderr: /ERR_WAL_KEY/ });

  t.match(await cli(['repair', log, '--key-file', key]), { code: 0, stdout: /^sound/ });
  t.match(await cli(['checkpoint', log, '400', '--key-file', key]), { code: 0 });
  t.match(await cli(['cleanup', log, '--key-file', key]), { code: 0 });
});

t.test('a key file holds 32 bytes, or keys in hexadecimal, the one to write with first', async (t) => {
  const { log, write } = filesFor(t);
  const [one, two] = [randomBytes(32).toString('hex'), randomBytes(32).toString('hex')];
  t.match(await cli(['ingest', log, '--key-file', write('one', `${one}\n`)], 'a\n'), { code: 0 });
  t.match(await cli(['ingest', log, '--key-file', write('both', `2:${two}\n1:${one}\n`)], 'b\n'), { code: 0 });
  const both = path.join(path.dirname(log), 'both');
  t.same(
    (await dumped(log, '--key-file', both)).map(({ payload }) => payload.toString()),
    ['a', 'b'],
  );
  const wal = await WriteAheadLog.open(log, {
    readOnly: true,
    encryptionKey: (id = 2) => Buffer.from(id === 1 ? one : two, 'hex'),
  });
  t.equal(wal.recovery.lastLsn, 2);
  await wal.close();
  t.match(await cli(['dump', log, '--key-file', path.join(path.dirname(log), 'one')]), {
    code: 2,
    stderr: /ERR_WAL_KEY/,
  });
});

t.test('what is no key file is wrong usage, and nothing of it is repeated', async (t) => {
  const { log, key, write } = filesFor(t);
  await cli(['ingest', log, '--key-file', key], 'a\n');
  const secret = randomBytes(31).toString('hex');
  const files = ['empty', 'short', 'words', 'large', 'not there'];
  for (const [i, content] of ['', secret, `${secret}zz`, 'a'.repeat(100_000)].entries()) write(files[i], content);
  for (const name of files) {
    const { code, stdout, stderr } = await cli(['dump', log, '--key-file', path.join(path.dirname(log), name)]);
    t.same([code, stdout], [2, ''], name);
    t.match(stderr, /^ringwal: [^\n]+\n$/);
    t.notOk(stderr.includes(secret));
  }
  t.match(await cli(['ingest', log, '--compression', 'lzma'], ''), { code: 2, stderr: /--compression must be one of/ });
});
