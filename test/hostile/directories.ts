import fc from 'fast-check';
import { KeyRing, keySourceOf } from '../../src/format/key-ring.js';
import { filesOf } from '../../src/reader/storage-files.js';
import { verifyFiles } from '../../src/reader/verify.js';
import { inspectPointInTime } from '../../src/recovery/point-in-time.js';
import { inspectLog, type Recovered } from '../../src/recovery/recover.js';
import { endLastSegment } from '../../src/recovery/repair-tail.js';
import { salvageLog } from '../../src/recovery/salvage.js';
import { finish } from '../../src/recovery/survey.js';
import type { Storage } from '../../src/storage/storage.js';
import { repairStorage } from '../../src/upkeep/repair-log.js';
import { largestAllocation } from './allocations.js';
import { forge, forgery } from './forge.js';
import { type RealLog, textOf } from './logs.js';
import { type Image, MemoryDisk, sameImage } from './memory-disk.js';
import { mutate, mutation } from './mutations.js';
import { type Outcome, outcomeOf } from './outcome.js';
import { must, type Property, property } from './property.js';
import { readWith, unlocked } from './reading.js';

const MIB = 1024 * 1024;

interface Case {
  image: Image;
  /** What may come out of it, by LSN; undefined when somebody forged it, and anything may. */
  records: readonly RealLog['records'][] | undefined;
  /** The key that it is read with: the right one, another, or none. */
  secret?: Uint8Array | undefined;
  /** Some LSNs may be missing though nothing was lost. */
  compacted?: boolean;
}

/** Which key somebody comes with. */
const comesWith = fc.oneof(
  { weight: 4, arbitrary: fc.constant('the right key' as const) },
  { weight: 1, arbitrary: fc.constantFrom('another key' as const, 'no key' as const) },
);

function secretOf({ secret }: RealLog, which: 'the right key' | 'another key' | 'no key'): Uint8Array | undefined {
  if (which === 'another key') return Buffer.alloc(32, 'another');
  return which === 'no key' ? undefined : secret;
}

/** Where nothing was forged, no codec and no key is asked for that nobody has; where it was, that is an answer. */
const READ_ERRORS = ['ERR_WAL_CORRUPT', 'ERR_WAL_TRUNCATED', 'ERR_WAL_VERSION', 'ERR_WAL_KEY'];

/** A log's bytes went through what a caller has of it; nothing was changed that should not have been. */
async function checkReading(storage: Storage, recovered: Recovered, given: Case, what: string): Promise<void> {
  const { records, secret, compacted } = given;
  const { state, end, report } = recovered;
  const read = await outcomeOf(async () => {
    return readWith(await unlocked(storage, secret), filesOf(storage), state.low, end.lastLsn);
  });
  if (!read.ok) return must(READ_ERRORS.includes(read.error.code), read.error.code);
  let before = 0;
  for (const record of read.value) {
    must(record.lsn > before, `${what}: LSN ${record.lsn} after ${before}`);
    before = record.lsn;
    if (records === undefined) continue;
    const text = textOf(record);
    must(
      records.some((known) => known.get(record.lsn) === text),
      `${what}: LSN ${record.lsn} is not what was appended`,
    );
  }
  if (records === undefined || report.lost !== undefined || compacted) return;
  // Without a word about losses there are none below the end.
  must(read.value.length === 0 || before === end.lastLsn, `${what}: ends at ${before}, and says ${end.lastLsn}`);
  must(
    read.value.every(({ lsn }, i) => lsn === read.value[0].lsn + i),
    `${what}: a hole that nobody speaks of`,
  );
}

/** By a time, any time: finds a place in the log, and gets out of it. */
async function checkTimes(storage: Storage, recovered: Recovered, { secret }: Case): Promise<void> {
  const { state, end, lastTime } = recovered;
  for (const time of [0, lastTime - 15, lastTime + 1, 8.64e15]) {
    const found = await outcomeOf(async () => {
      return readWith(await unlocked(storage, secret), filesOf(storage), state.low, end.lastLsn, new Date(time));
    });
    must(found.ok || READ_ERRORS.includes(found.error.code), 'another error');
  }
}

/** Opens it in one mode, as `open` does, and reads it; then goes through recovery a second time. */
async function checkMode(given: Case, mode: 'tolerate-torn-tail' | 'strict' | 'point-in-time'): Promise<void> {
  const disk = new MemoryDisk(given.image);
  const inspect = () => (mode === 'point-in-time' ? finish(inspectPointInTime(disk)) : inspectLog(disk, mode));
  const found = await outcomeOf(inspect);
  must(disk.changes === 0, `${mode}: looking changed something`);
  if (!found.ok) return must(['ERR_WAL_CORRUPT', 'ERR_WAL_VERSION'].includes(found.error.code), found.error.code);
  const recovered = found.value;
  must(
    recovered.end.lastLsn >= 0 && Number.isSafeInteger(recovered.end.lastLsn),
    `${mode}: ends at ${recovered.end.lastLsn}`,
  );
  must(Number.isSafeInteger(recovered.nextSegmentId), `${mode}: segment ${recovered.nextSegmentId} is next`);
  if (mode !== 'point-in-time') {
    await checkReading(disk, recovered, given, mode);
    await checkTimes(disk, recovered, given);
  }
  endLastSegment(disk, recovered, 1_800_000_000_000);
  const again = await outcomeOf(() => inspectLog(disk, 'strict'));
  if (given.records === undefined) return;
  must(again.ok, `${mode}: after recovery it is ${again.ok || again.error.message}`);
  must(again.value.end.lastLsn === recovered.end.lastLsn, `${mode}: recovery does not end where it said`);
  await checkReading(disk, recovered, given, `${mode}, recovered`);
}

async function checkSalvage(given: Case): Promise<void> {
  const disk = new MemoryDisk(given.image);
  const found = await outcomeOf(async () => {
    return salvageLog(disk, undefined, undefined, await unlocked(disk, given.secret));
  });
  must(disk.changes === 0, 'salvage changed something');
  if (found.ok) await checkReading(found.value.view, found.value.recovered, given, 'salvage');
}

/** What it cannot repair it does not touch; what it repaired is sound, and holds what it says. */
async function checkRepair(given: Case): Promise<void> {
  const disk = new MemoryDisk(given.image);
  const { secret } = given;
  const before = await verify(disk, secret);
  const repaired = await outcomeOf(() => repairStorage(disk, { encryptionKey: secret })).catch(
    (error: NodeJS.ErrnoException) => {
      // A forged segment of gigabytes, in place of a missing one: the disk is full, and repairing begins anew some day.
      if (error.code !== 'ENOSPC' || given.records !== undefined) throw error;
      return undefined;
    },
  );
  if (repaired === undefined) return;
  if (!repaired.ok)
    return must(sameImage(disk.image(), given.image), `refused, and yet touched: ${repaired.error.message}`);
  const after = await verify(disk, secret);
  must(before.ok && after.ok && after.value.verdict !== 'corrupt', 'not sound after a repair');
  must(repaired.value.kept === after.value.records, 'keeps another number of records than it says');
  if (given.records === undefined) return;
  const opened = await outcomeOf(() => inspectLog(disk, 'tolerate-torn-tail'));
  must(opened.ok, 'a repaired log does not open');
  opened.value.report.lost = repaired.value.lost;
  await checkReading(disk, opened.value, given, 'repaired');
}

async function verify(
  disk: MemoryDisk,
  secret: Uint8Array | undefined,
): Promise<Outcome<Awaited<ReturnType<typeof verifyFiles>>>> {
  const changes = disk.changes;
  const found = await outcomeOf(() => verifyFiles(filesOf(disk), {}, new KeyRing(keySourceOf(secret))));
  must(disk.changes === changes, 'verify changed something');
  const codes = secret === undefined ? ['ERR_WAL_VERSION'] : ['ERR_WAL_VERSION', 'ERR_WAL_KEY'];
  must(found.ok || codes.includes(found.error.code), `verify: ${found.ok || found.error.message}`);
  return found;
}

async function checkAll(given: Case): Promise<void> {
  const bytes = [...given.image.values()].reduce((most, { byteLength }) => Math.max(most, byteLength), 0);
  const { largest } = await largestAllocation(async () => {
    for (const mode of ['tolerate-torn-tail', 'strict', 'point-in-time'] as const) await checkMode(given, mode);
    await checkSalvage(given);
    await checkRepair(given);
  });
  must(largest <= 2 * MIB + 2 * bytes, `asked for ${largest} bytes, of ${bytes}`);
}

/** Properties of recovery in all of its modes, of the reader, of `verify` and of repair, over whole directories. */
export function directoryProperties(logs: readonly RealLog[]): Property[] {
  // By number: what fast-check prints is to be read by people.
  const real = fc.nat(logs.length - 1);
  return [
    property('a log that nobody touched is read whole by every mode', 12, fc.nat(logs.length - 1), async (i) => {
      const { image, records, low, lastLsn, secret, compacted } = logs[i];
      await checkAll({ image, records: [records], secret, compacted });
      const disk = new MemoryDisk(image);
      const recovered = inspectLog(disk, 'strict');
      must(recovered.state.low === low && recovered.end.lastLsn === lastLsn, 'not all of it');
      const read = await readWith(await unlocked(disk, secret), filesOf(disk), low, lastLsn);
      must(read.length === records.size, 'not all of its records');
      if (secret === undefined) return;
      for (const which of ['another key', 'no key'] as const) {
        const refused = await outcomeOf(() => unlocked(disk, secretOf(logs[i], which)));
        must(!refused.ok && refused.error.code === 'ERR_WAL_KEY', `${which} opens it`);
      }
    }),

    property(
      'a mutated log gives back what was appended, or says that it does not',
      150,
      fc.tuple(real, real, fc.array(mutation, { minLength: 1, maxLength: 4 }), comesWith),
      async ([i, j, changes, which]) => {
        const [log, other] = [logs[i], logs[j]];
        let { image } = log;
        for (const change of changes) image = mutate(image, change, other.image);
        const records = [log.records, log.cutOff, other.records, other.cutOff];
        const compacted = log.compacted || other.compacted;
        await checkAll({ image, records, secret: secretOf(log, which), compacted });
      },
    ),

    property(
      'a forged log, its checksums right, ends in a result or a WalError, with bounded work and memory',
      200,
      fc.tuple(real, fc.array(forgery, { minLength: 1, maxLength: 4 }), comesWith),
      async ([i, forgeries, which]) => {
        const log = logs[i];
        let { image } = log;
        for (const one of forgeries) image = forge(image, one);
        await checkAll({ image, records: undefined, secret: secretOf(log, which) });
      },
    ),

    property(
      'a log that was forged and then damaged does the same',
      80,
      fc.tuple(
        real,
        real,
        fc.array(forgery, { minLength: 1, maxLength: 2 }),
        fc.array(mutation, { minLength: 1, maxLength: 2 }),
        comesWith,
      ),
      async ([i, j, forgeries, changes, which]) => {
        const [log, other] = [logs[i], logs[j]];
        let { image } = log;
        for (const one of forgeries) image = forge(image, one);
        for (const change of changes) image = mutate(image, change, other.image);
        await checkAll({ image, records: undefined, secret: secretOf(log, which) });
      },
    ),
  ];
}
