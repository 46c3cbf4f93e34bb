import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type WalRecord, WriteAheadLog } from 'ringwal';
import t from 'tap';
import { collect, startChild, temporaryDirectory, text } from './helpers.js';
import { seeded } from './kill9-rounds.js';

/** What the log must hold by what a process noted before it was killed. */
class Expected {
  /** Acknowledged and not cut off. */
  readonly records = new Map<number, string>();
  readonly cutOff = new Set<string>();
  /** A cut that was called for; nobody knows whether it was made. */
  pending: number | undefined;
  cuts = 0;

  read(notes: string): void {
    const lines = fs.readFileSync(notes, 'utf8').split('\n').slice(0, -1);
    for (const line of lines) {
      const [what, number, payload] = line.split(' ');
      const lsn = Number(number);
      if (what === 'appended') this.records.set(lsn, payload);
      else if (what === 'cutting') this.pending = lsn;
      else this.cut(lsn);
    }
  }

  cut(lsn: number): void {
    this.pending = undefined;
    this.cuts++;
    for (const [at, payload] of this.records) {
      if (at <= lsn) continue;
      this.cutOff.add(payload);
      this.records.delete(at);
    }
  }
}

function check(expected: Expected, found: WalRecord[]): string[] {
  const problems: string[] = [];
  const last = found.at(-1)?.lsn ?? 0;
  if (expected.pending !== undefined && last <= expected.pending) expected.cut(expected.pending);
  expected.pending = undefined;
  found.forEach(({ lsn, payload }, i) => {
    if (lsn !== i + 1) problems.push(`LSN ${lsn} is record ${i + 1}`);
    const known = expected.records.get(lsn);
    if (known !== undefined && known !== text(payload)) problems.push(`LSN ${lsn} holds something else`);
    if (expected.cutOff.has(text(payload))) problems.push(`LSN ${lsn} had been cut off`);
  });
  for (const lsn of expected.records.keys()) if (lsn > last) problems.push(`LSN ${lsn} is missing`);
  return problems;
}

t.test('what was cut off never comes back through kill -9, and nothing else is lost', async (t) => {
  const directory = temporaryDirectory(t);
  const log = path.join(directory, 'log');
  const random = seeded(11);
  const expected = new Expected();
  for (let round = 1; round <= 6; round++) {
    const notes = path.join(directory, `notes-${round}`);
    fs.closeSync(fs.openSync(notes, 'a'));
    const watcher = fs.watch(notes);
    const child = startChild(t, 'cutter', [log, notes, String(round)]);
    await Promise.race([once(watcher, 'change'), child.ended]);
    watcher.close();
    await delay(Math.floor(random() * 150));
    child.process.kill('SIGKILL');
    const { signal, stderr } = await child.ended;
    t.equal(signal, 'SIGKILL', stderr);
    expected.read(notes);
    const wal = await WriteAheadLog.open(log);
    const found = await collect(wal.read());
    await wal.close();
    t.same(check(expected, found), [], `round ${round}: ${found.length} records after ${expected.cuts} cuts`);
  }
  t.ok(expected.cuts > 0, `${expected.cuts} cuts`);
});
