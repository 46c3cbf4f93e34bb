import fs from 'node:fs';
import path from 'node:path';
import { WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { cli, dumped } from './cli-helpers.js';
import { openLog, segmentFiles, snapshot, temporaryDirectory } from './helpers.js';

async function threeSegments(t: Test): Promise<string> {
  const directory = temporaryDirectory(t);
  const log = await WriteAheadLog.open(directory, { segmentBytes: 65_536 });
  for (let lsn = 1; lsn <= 9; lsn++) {
    await log.append(`record ${lsn}`);
    if (lsn % 3 === 0 && lsn < 9) await log.rotate();
  }
  await log.close();
  return directory;
}

/** Changes a byte in the second frame of the second segment: LSN 5. */
function damage(directory: string): { segment: string; offset: number } {
  const segment = segmentFiles(directory)[1];
  const file = path.join(directory, segment);
  const bytes = fs.readFileSync(file);
  const offset = bytes.indexOf('RWLF\x01', bytes.indexOf('RWLF\x01') + 1);
  bytes[offset + 66] ^= 1;
  fs.writeFileSync(file, bytes);
  return { segment, offset };
}

t.test('repair --dry-run says what repair then does, and changes nothing', async (t) => {
  const directory = await threeSegments(t);
  const { segment, offset } = damage(directory);
  const before = snapshot(directory);
  const plan = await cli(['repair', directory, '--dry-run', '--json']);
  t.equal(plan.code, 0, plan.stderr);
  const expected = { kept: 8, lost: [{ firstLsn: 5, lastLsn: 5 }] };
  t.match(JSON.parse(plan.stdout), { ...expected, quarantined: [], dryRun: true });
  t.same(snapshot(directory), before);
  t.equal((await cli(['verify', directory])).code, 1);

  const done = await cli(['repair', directory, '--json']);
  t.equal(done.code, 0, done.stderr);
  const quarantined = [`quarantine/${segment}@${offset}`];
  t.match(JSON.parse(done.stdout), { ...expected, quarantined, dryRun: false });
  t.match(await cli(['verify', directory]), { code: 0, stdout: /LSN 5 to 5 were given up/ });
  t.same(
    (await dumped(directory)).map(({ lsn, payload }) => [lsn, payload.toString()]),
    [1, 2, 3, 4, 6, 7, 8, 9].map((lsn) => [lsn, `record ${lsn}`]),
  );
  t.match(await cli(['repair', directory]), { code: 0, stdout: /nothing to repair, 8 records/ });
});

t.test('repair says in words what was damaged, lost and kept', async (t) => {
  const directory = await threeSegments(t);
  const { segment } = damage(directory);
  const { stdout } = await cli(['repair', directory]);
  t.match(stdout, /kept 8 records, 1 lost/);
  t.match(stdout, new RegExp(`${segment} at byte`));
  t.match(stdout, /lost: LSN 5 to 5/);
  t.match(stdout, new RegExp(`kept in quarantine/${segment}@`));
});

t.test('a log that is open for writing is neither repaired nor checkpointed nor cleaned up', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await openLog(t, {}, directory);
  await log.append('a record');
  for (const args of [['repair'], ['repair', '--dry-run'], ['cleanup'], ['checkpoint']]) {
    const [command, ...rest] = args;
    const lsn = command === 'checkpoint' ? ['1'] : [];
    const { code, stdout, stderr } = await cli([command, directory, ...lsn, ...rest]);
    t.equal(code, 2, command);
    t.equal(stdout, '', command);
    t.match(stderr, /^ringwal: .*\(ERR_WAL_LOCKED\)\n$/, command);
  }
});

t.test('checkpoint and cleanup of a closed log', async (t) => {
  const directory = await threeSegments(t);
  const noted = await cli(['checkpoint', directory, '7', '--json']);
  t.equal(noted.code, 0, noted.stderr);
  t.same(JSON.parse(noted.stdout), { checkpoint: 7, lastLsn: 9 });
  t.equal(JSON.parse((await cli(['inspect', directory, '--json'])).stdout).checkpoint, 7);
  t.same((await dumped(directory)).length, 9, 'a checkpoint alone removes nothing');
  const cleaned = await cli(['cleanup', directory, '--json']);
  t.equal(cleaned.code, 0, cleaned.stderr);
  t.match(JSON.parse(cleaned.stdout), { segments: 2 });
  t.same(
    (await dumped(directory)).map(({ lsn }) => lsn),
    [7, 8, 9],
  );
  t.match(await cli(['cleanup', directory]), { code: 0, stdout: /^0 segments/ });
  t.match(await cli(['checkpoint', directory, '9']), { code: 0, stdout: /checkpoint at LSN 9/ });
});

t.test('wrong usage of the commands that change a log', async (t) => {
  const directory = await threeSegments(t);
  const before = snapshot(directory);
  const nowhere = path.join(directory, 'nowhere');
  const wrong = [
    ['repair'],
    ['repair', nowhere],
    ['repair', directory, 'more'],
    ['tail', nowhere],
    ['tail', directory, '--from', '0'],
    ['tail', directory, '--level', 'memory'],
    ['checkpoint', directory],
    ['checkpoint', directory, '-1'],
    ['checkpoint', directory, 'x'],
    ['checkpoint', nowhere, '1'],
    ['cleanup', nowhere],
  ];
  for (const args of wrong) {
    const { code, stdout, stderr } = await cli(args);
    const shown = args.join(' ').replace(directory, '…');
    t.equal(code, 2, shown);
    t.equal(stdout, '', shown);
    t.match(stderr, /^ringwal[ :].{10,}\n$/, `${shown}: ${stderr}`);
  }
  t.match(await cli(['checkpoint', directory, '10']), { code: 2, stderr: /ahead of the log/ });
  t.same((await dumped(directory)).length, 9);
  t.notOk(fs.existsSync(nowhere));
  t.ok(Object.keys(before).length > 0);
});
