import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type WalRecord, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { collect, numbers, startChild, temporaryDirectory, text } from './helpers.js';

const ROUNDS = 5;

interface Appended {
  name: string;
  number: number;
  batch: number;
  place: number;
}

function parse(payload: string): Appended {
  const [name, number, batch, place] = payload.split('|');
  return { name, number: Number(number), batch: Number(batch), place: Number(place) };
}

/** LSN and record, as a killed process noted them. A line that it did not finish says nothing. */
function acknowledged(files: string[]): Map<number, string> {
  const found = new Map<number, string>();
  for (const file of files.filter((file) => fs.existsSync(file))) {
    const lines = fs.readFileSync(file, 'utf8').split('\n');
    for (const line of lines.slice(0, -1)) {
      const space = line.indexOf(' ');
      found.set(Number(line.slice(0, space)), line.slice(space + 1));
    }
  }
  return found;
}

/** Everything that must be true of the records that a crash left. */
function checkRecords(t: Test, records: WalRecord[], acks: Map<number, string>): void {
  t.same(
    records.map((record) => record.lsn),
    numbers(records[0]?.lsn ?? 1, records.at(-1)?.lsn ?? 0),
    'an unbroken run of LSNs',
  );
  const first = records[0]?.lsn ?? 1;
  const payloads = new Map(records.map((record) => [record.lsn, text(record.payload)]));
  let missing = 0;
  for (const [lsn, payload] of acks) {
    if (lsn >= first && payloads.get(lsn)?.startsWith(`${payload}|`) !== true) missing++;
  }
  t.equal(missing, 0, `nothing of the ${acks.size} acknowledged is missing or changed`);

  let disorder = 0;
  let torn = 0;
  const last = new Map<string, number>();
  for (const [i, record] of records.entries()) {
    const { name, number, batch, place } = parse(text(record.payload));
    if (!/^r\d+[tm]\d?$/.test(name)) t.fail(`a foreign record: ${name}`);
    if (name.endsWith('m')) continue;
    if (last.has(name) && number !== (last.get(name) ?? 0) + 1) disorder++;
    last.set(name, number);
    // The end of its batch must be there; its beginning may have been cleaned up, but only by whole segments.
    if (place === 0 && batch > 1) {
      const rest = records.slice(i, i + batch).map((other) => parse(text(other.payload)));
      if (rest.length !== batch || rest.some((other, n) => other.name !== name || other.place !== n)) torn++;
    }
  }
  t.equal(disorder, 0, 'each thread in its own order, without a gap');
  t.equal(torn, 0, 'batches are whole');
}

for (const level of ['os', 'disk']) {
  t.test(`what was acknowledged at ${level} survives kill -9 at any moment, over and over`, async (t) => {
    const parent = temporaryDirectory(t);
    const directory = path.join(parent, 'log');
    const files: string[] = [];
    let lastLsn = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const acks = path.join(parent, `acks${round}`);
      const child = startChild(t, 'crasher', [directory, acks, level, String(round)]);
      await child.message((message) => message === 'running');
      // At any moment: from the first append on to a few hundred milliseconds later.
      await delay(Math.random() * (round === 0 ? 50 : 250));
      child.process.kill('SIGKILL');
      t.equal((await child.ended).signal, 'SIGKILL', child.messages.join());
      files.push(...[0, 1, 2].map((thread) => `${acks}.${thread}`));

      const wal = await WriteAheadLog.open(directory, { segmentBytes: 256 * 1024, autoCleanup: false });
      const { verdict, records, firstLsn } = wal.recovery;
      t.ok(['clean', 'torn-tail', 'empty'].includes(verdict), verdict);
      t.ok(wal.recovery.lastLsn >= lastLsn, 'LSNs never go back');
      t.equal(records, wal.recovery.lastLsn === 0 ? 0 : wal.recovery.lastLsn - firstLsn + 1);
      t.equal(wal.watermark('disk'), wal.recovery.lastLsn);
      checkRecords(t, await collect(wal.read()), acknowledged(files));
      lastLsn = await wal.append(`r${round}m|0|1|0|`);
      t.equal(lastLsn, wal.recovery.lastLsn + 1, 'appends go on with the next LSN');
      // Some rounds begin after a clean close, some behind another crash.
      await wal.close();
    }
    t.ok(lastLsn > 100, `${lastLsn} records`);
  });
}
