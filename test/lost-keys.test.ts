import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { type OpenOptions, repairLog, verifyLog, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { KeyRing, keySourceOf } from '../src/format/key-ring.js';
import { filesOf } from '../src/reader/storage-files.js';
import { verifyFiles } from '../src/reader/verify.js';
import { knownKeys } from '../src/recovery/known-keys.js';
import { inspectLog } from '../src/recovery/recover.js';
import { data, KeyLog } from './compaction-helpers.js';
import {
  collect,
  failsWith,
  numbers,
  openLog,
  payloads,
  segmentFiles,
  snapshot,
  temporaryDirectory,
} from './helpers.js';
import { Random } from './simulation/random.js';
import { loseHeader, readAll } from './simulation/reading.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';

/** Encrypted logs that lost what told of their keys: headers, and what else did. */

const KEY = randomBytes(32);
const WRONG = randomBytes(32);
const FIRST_HALF = [60];
const BOTH_HALVES = [60, 4096 + 60];
/** In the seal that ends a file. */
const SEAL = -30;

/** A closed log of so many segments with two records in each, and all of them damaged in these places. */
async function damagedLog(t: Test, segments: number, places: number[], options: OpenOptions = { encryptionKey: KEY }) {
  const directory = temporaryDirectory(t);
  const wal = await openLog(t, options, directory);
  for (let i = 0; i < segments; i++) {
    if (i > 0) await wal.rotate();
    for (const name of ['one', 'two']) await wal.append(`${name} of ${i}`);
  }
  await wal.close();
  for (const name of segmentFiles(directory)) {
    const file = path.join(directory, name);
    const bytes = fs.readFileSync(file);
    for (const at of places) bytes[at < 0 ? bytes.length + at : at] ^= 1;
    fs.writeFileSync(file, bytes);
  }
  return directory;
}

const recordsOf = (segments: number) => numbers(0, segments - 1).flatMap((i) => [`one of ${i}`, `two of ${i}`]);

async function wrongKeysAreRefused(t: Test, directory: string): Promise<void> {
  const before = snapshot(directory);
  for (const encryptionKey of [undefined, WRONG]) {
    for (const recoveryMode of ['point-in-time', 'salvage'] as const) {
      await failsWith(t, 'ERR_WAL_KEY', WriteAheadLog.open(directory, { encryptionKey, recoveryMode }), recoveryMode);
    }
    await failsWith(t, 'ERR_WAL_KEY', repairLog(directory, { encryptionKey }), 'repair');
  }
  t.same(snapshot(directory), before, 'nothing was touched');
}

/** It opens with its key, more than once, and reads back what is written to it; and with no other. */
async function goesOn(t: Test, directory: string, expected: string[]): Promise<void> {
  const records = [...expected];
  for (const more of ['more', 'and more']) {
    const wal = await openLog(t, { encryptionKey: KEY }, directory);
    await wal.append(more);
    records.push(more);
    t.same(payloads(await collect(wal.read())), records);
    await wal.close();
  }
  for (const encryptionKey of [undefined, WRONG]) {
    await failsWith(t, 'ERR_WAL_KEY', WriteAheadLog.open(directory, { encryptionKey }));
  }
  const report = await verifyLog(directory, { encryptionKey: KEY });
  t.match(report, { verdict: 'clean', unchecked: undefined, encrypted: true });
}

async function pointInTime(t: Test, directory: string, encryptionKey: Buffer | undefined = KEY): Promise<string[]> {
  const wal = await openLog(t, { encryptionKey, recoveryMode: 'point-in-time' }, directory);
  t.equal(wal.recovery.verdict, 'salvaged');
  const before = payloads(await collect(wal.read()));
  await wal.append('at once');
  t.same(payloads(await collect(wal.read())), [...before, 'at once']);
  await wal.close();
  return [...before, 'at once'];
}

t.test('half of every header is lost: the log still knows its key, and nothing is lost', async (t) => {
  for (const segments of [1, 3]) {
    const damaged = await damagedLog(t, segments, FIRST_HALF);
    await wrongKeysAreRefused(t, damaged);
    t.same(await pointInTime(t, damaged), [...recordsOf(segments), 'at once']);
    await goesOn(t, damaged, [...recordsOf(segments), 'at once']);
    const repaired = await damagedLog(t, segments, FIRST_HALF);
    t.match(await repairLog(repaired, { encryptionKey: KEY }), { kept: 2 * segments, lost: [] });
    await goesOn(t, repaired, recordsOf(segments));
  }
});

t.test('every header is lost, and a seal is there: the log still knows its key, on every way in', async (t) => {
  for (const segments of [1, 3]) {
    const damaged = await damagedLog(t, segments, BOTH_HALVES);
    await wrongKeysAreRefused(t, damaged);
    const salvaged = await WriteAheadLog.open(damaged, { encryptionKey: KEY, recoveryMode: 'salvage' });
    t.same(payloads(await collect(salvaged.read())), recordsOf(segments), 'salvage reads all of it');
    await salvaged.close();
    t.same(await pointInTime(t, damaged), ['at once'], 'point-in-time begins anew');
    await goesOn(t, damaged, ['at once']);
    const repaired = await damagedLog(t, segments, BOTH_HALVES);
    t.match(await repairLog(repaired, { encryptionKey: KEY }), { kept: 2 * segments, lost: [] });
    await goesOn(t, repaired, recordsOf(segments));
  }
});

t.test('nothing tells the log id any more: point-in-time begins a log of the key it was given', async (t) => {
  for (const segments of [1, 2]) {
    const damaged = await damagedLog(t, segments, [...BOTH_HALVES, SEAL]);
    const before = snapshot(damaged);
    await failsWith(t, 'ERR_WAL_CORRUPT', repairLog(damaged, { encryptionKey: KEY }), 'nothing of it can be read');
    const salvage = WriteAheadLog.open(damaged, { encryptionKey: KEY, recoveryMode: 'salvage' });
    await failsWith(t, 'ERR_WAL_CORRUPT', salvage);
    t.same(snapshot(damaged), before);
    t.same(await pointInTime(t, damaged), ['at once']);
    await goesOn(t, damaged, ['at once']);
  }
});

t.test('a plain log without headers is begun anew with the key that it is opened with', async (t) => {
  const directory = await damagedLog(t, 2, BOTH_HALVES, {});
  t.same(await pointInTime(t, directory), ['at once']);
  await goesOn(t, directory, ['at once']);
});

t.test('segments of two logs: neither is given the check value of a key that is bound to the other', async (t) => {
  const [directory, other] = [await damagedLog(t, 1, []), await damagedLog(t, 2, [])];
  const second = segmentFiles(other)[1];
  fs.copyFileSync(path.join(other, second), path.join(directory, second));
  const before = snapshot(directory);
  const open = WriteAheadLog.open(directory, { encryptionKey: KEY, recoveryMode: 'point-in-time' });
  await failsWith(t, 'ERR_WAL_CORRUPT', open);
  t.same(snapshot(directory), before);
});

t.test('a log that is begun anew opens with its key, whatever call that was cut short in', async (t) => {
  const key = Buffer.alloc(32, 'a key');
  const headerless = () => {
    const disk = new SimulatedDisk(new Random(1));
    const log = new KeyLog({ disk, key });
    for (const text of ['one', 'two']) {
      log.write(data(text));
      log.sequencer.rotate();
    }
    log.sequencer.close();
    for (const name of disk.list().filter((file) => file.endsWith('.wal'))) loseHeader(disk, name);
    return disk;
  };
  // As the coordinator does it: a log that says nothing of its id is given one.
  const open = async (disk: SimulatedDisk, crashAt?: number) => {
    const known = await knownKeys(disk, true);
    const keys = new KeyRing(keySourceOf(key));
    const { logId = randomBytes(16), encryption } = known ?? {};
    await keys.unlock(logId, encryption);
    await keys.forWriting(logId, encryption);
    disk.arm({ crashAt });
    const log = new KeyLog({ disk, key, logId, mode: 'point-in-time' });
    log.write(data('three'));
    log.sequencer.close();
    return log.sequencer.logId;
  };
  const original = await open(headerless());
  let crashes = 0;
  for (let call = 1, reached = true; reached; call++) {
    const disk = headerless();
    await open(disk, call).catch((error: unknown) => {
      if (!disk.crashed) throw error;
    });
    reached = disk.crashed;
    disk.arm();
    disk.restart(call % 2 === 0 ? 'power' : 'process');
    if (reached) {
      crashes++;
      t.same(await open(disk), original, `call ${call}: its id is what it was`);
    }
    const keys = new KeyRing(keySourceOf(key));
    const { logId, encryption } = (await knownKeys(disk, false))!;
    await keys.unlock(logId, encryption);
    const { state, end } = inspectLog(disk, 'strict');
    const records = await readAll(disk, state.low, end.lastLsn, undefined, keys);
    const written = records.map(({ payload }) => Buffer.from(payload).toString());
    if (written.some((text) => text !== 'three') || written.length === 0) t.fail(`call ${call}: ${written}`);
    t.equal((await verifyFiles(filesOf(disk), {}, keys)).verdict, 'clean');
  }
  t.ok(crashes > 20, `cut short in each of ${crashes} calls`);
});
