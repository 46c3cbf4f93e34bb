import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { collect, fixture, openLog, temporaryDirectory } from './helpers.js';

const run = promisify(execFile);

t.test('a limit on the size of files is met like a full disk', async (t) => {
  if (process.platform === 'win32') {
    t.comment('Windows has no such limit: not tried.');
    return;
  }
  const directory = temporaryDirectory(t);
  // Shells count in blocks of 512 or 1024 bytes: the limit is 2 or 4 MiB.
  // Node ignores SIGXFSZ; what test runners load into children takes that back.
  const script = 'unset NODE_OPTIONS && ulimit -f 4096 && exec "$0" "$@"';
  const { stdout } = await run('/bin/sh', ['-c', script, process.execPath, fixture('limited'), directory]);
  t.same(JSON.parse(stdout), [1, 'ERR_WAL_NO_SPACE', 2, 3, 4, 5, 6, 7]);
  const wal = await openLog(t, {}, directory);
  t.equal(wal.recovery.verdict, 'clean');
  t.equal((await collect(wal.read())).length, 7);
});

t.test('an open log takes a few file descriptors, and gives them back', async (t) => {
  if (process.platform !== 'linux') {
    t.comment('Only Linux lists the descriptors of a process: not tried.');
    return;
  }
  const { readdirSync } = await import('node:fs');
  const open = () => readdirSync('/proc/self/fd').length;
  const directory = temporaryDirectory(t);
  const cycle = async () => {
    const wal = await WriteAheadLog.open(directory, { segmentBytes: 65536 });
    for (let i = 0; i < 5; i++) {
      await wal.appendMany(['x'.repeat(1000), 'x']);
      await wal.rotate();
    }
    for await (const { lsn } of wal.read()) if (lsn > 1_000_000) break;
    for await (const _ of wal.read()) break;
    const during = open();
    await wal.checkpoint(wal.watermark('disk'));
    await wal.close();
    return during;
  };
  await cycle();
  const before = open();
  const during = await cycle();
  for (let i = 0; i < 6; i++) await cycle();
  t.ok(open() <= before + 3, `${before} before, ${open()} after`);
  t.ok(during < before + 20, `${during} while open`);
});
