import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { repairLog, verifyLog, WriteAheadLog } from 'ringwal';
import t from 'tap';
import { recordLine } from '../src/cli/record-line.js';
import { failsWith, segmentFiles, temporaryDirectory } from './helpers.js';

const SEGMENT_BYTES = 64 * 1024;
const skip = process.platform === 'win32' && 'there is nothing to keep links from being followed';

/** A closed log with one record, and a file elsewhere that is nobody's business. */
async function logAndVictim(t: Parameters<typeof temporaryDirectory>[0]) {
  const [directory, elsewhere] = [temporaryDirectory(t), temporaryDirectory(t)];
  const log = await WriteAheadLog.open(directory, { segmentBytes: SEGMENT_BYTES });
  await log.append('a record');
  await log.close();
  const victim = path.join(elsewhere, 'victim');
  fs.writeFileSync(victim, Buffer.alloc(SEGMENT_BYTES, 'mine '));
  const untouched = () => fs.readFileSync(victim).equals(Buffer.alloc(SEGMENT_BYTES, 'mine '));
  return { directory, victim, untouched };
}

t.test('a symbolic link in the place of a file of the log is not followed', { skip }, async (t) => {
  const { directory, victim, untouched } = await logAndVictim(t);
  const segment = path.join(directory, segmentFiles(directory)[0]);
  const away = `${victim}.wal`;

  fs.renameSync(segment, away);
  fs.symlinkSync(away, segment);
  await failsWith(t, 'ERR_WAL_FAILED', WriteAheadLog.open(directory), 'a segment, to write');
  await failsWith(t, 'ERR_WAL_FAILED', WriteAheadLog.open(directory, { readOnly: true }), 'a segment, to read');
  await failsWith(t, 'ERR_WAL_FAILED', verifyLog(directory), 'a segment, to verify');
  await failsWith(t, 'ERR_WAL_FAILED', repairLog(directory), 'a segment, to repair');
  fs.unlinkSync(segment);
  fs.renameSync(away, segment);

  fs.symlinkSync(victim, path.join(directory, 'spare-0123456789ab.tmp'));
  await failsWith(t, 'ERR_WAL_FAILED', openAndAppend(directory), 'a spare of the right size');
  t.ok(untouched(), 'nothing is written through it');
  fs.unlinkSync(path.join(directory, 'spare-0123456789ab.tmp'));

  const lock = path.join(directory, 'LOCK');
  fs.rmSync(lock);
  fs.symlinkSync(`${victim}.lock`, lock);
  await failsWith(t, 'ERR_WAL_FAILED', WriteAheadLog.open(directory), 'the lock');
  t.notOk(fs.existsSync(`${victim}.lock`), 'nothing is made behind it');
  fs.unlinkSync(lock);

  await openAndAppend(directory);
  t.equal((await verifyLog(directory)).records, 2, 'without links it is as before');
});

async function openAndAppend(directory: string): Promise<void> {
  const log = await WriteAheadLog.open(directory, { segmentBytes: SEGMENT_BYTES });
  try {
    await log.append('another record');
  } finally {
    await log.close();
  }
}

t.test('what is damaged is not copied to where a link in the place of quarantine leads', { skip }, async (t) => {
  const { directory } = await logAndVictim(t);
  const elsewhere = temporaryDirectory(t);
  fs.symlinkSync(elsewhere, path.join(directory, 'quarantine'));
  const segment = path.join(directory, segmentFiles(directory)[0]);
  const bytes = fs.readFileSync(segment);
  bytes[8192 + 70] ^= 1;
  fs.writeFileSync(segment, bytes);
  await failsWith(t, 'ERR_WAL_FAILED', repairLog(directory));
  t.same(fs.readdirSync(elsewhere), [], 'nothing of the log is there');
  t.ok(fs.readFileSync(segment).equals(bytes), 'and nothing was repaired');
});

t.test('a link to a whole directory is a way to a log like any other', { skip }, async (t) => {
  const { directory, victim } = await logAndVictim(t);
  fs.symlinkSync(directory, `${victim}.link`);
  t.equal((await verifyLog(`${victim}.link`)).records, 1);
});

t.test('a pipe in the place of a segment keeps nobody waiting', { skip }, async (t) => {
  const { directory } = await logAndVictim(t);
  execFileSync('mkfifo', [path.join(directory, '0000000000000009.wal')]);
  for (const work of [
    () => WriteAheadLog.open(directory),
    () => WriteAheadLog.open(directory, { readOnly: true }),
    () => verifyLog(directory),
    () => repairLog(directory),
  ]) {
    await failsWith(t, 'ERR_WAL_FAILED', work);
  }
});

t.test('files are made for the owner to write, and the directory is left as it was made', { skip }, async (t) => {
  const directory = path.join(temporaryDirectory(t), 'private');
  fs.mkdirSync(directory, { mode: 0o700 });
  const log = await WriteAheadLog.open(directory);
  await log.append('a record');
  await log.close();
  const mode = (name: string) => fs.statSync(path.join(directory, name)).mode & 0o777;
  t.equal(mode('.'), 0o700);
  for (const name of fs.readdirSync(directory)) t.equal(mode(name) & ~0o644, 0, `${name} is no more than rw-r--r--`);
});

t.test('what a terminal could take for a command is printed as text', async (t) => {
  const controls = Buffer.from(Array.from({ length: 0xa0 }, (_, i) => String.fromCharCode(i)).join(''));
  const line = recordLine(
    { lsn: 1, kind: 'put', key: controls, payload: controls, value: controls, timestamp: 0 },
    'utf8',
  );
  t.same(JSON.parse(line).value, controls.toString(), 'it is the same text');
  t.ok([...line.slice(0, -1)].every((character) => character >= ' ' && !(character >= '\x7f' && character < '\xa0')));
});
