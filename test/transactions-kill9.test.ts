import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { startChild, temporaryDirectory, text } from './helpers.js';
import { seeded } from './kill9-rounds.js';
import { type Found, type Phase, problemsOf, see, type Told } from './transaction-fates.js';

const LINE = /^(\S+) (\S+) (\d+) ([a-z ]+) (\d+)$/;

/** Takes in the notes of a killed process; a line that it did not finish says nothing. */
function readNotes(notes: string, told: Map<string, Told>): void {
  for (const line of fs.readFileSync(notes, 'utf8').split('\n').slice(0, -1)) {
    const [, name, id, operations, phase, lsn] = LINE.exec(line)!;
    told.set(name, { id, operations: Number(operations), phase: phase as Phase, lsn: Number(lsn) });
  }
}

async function look(wal: WriteAheadLog): Promise<Found> {
  const replay: Found['replay'] = new Map();
  await wal.replay((op, lsn) => {
    if (op.type === 'put') see(replay, text(op.key), lsn);
  });
  const inDoubt = (await wal.preparedTransactions()).map(
    ({ id, operations }) => [id, operations.map(({ key }) => text(key))] as const,
  );
  return { replay, inDoubt: new Map(inDoubt), checkpoint: wal.stats().checkpoint };
}

/** Decides about some of those in doubt, and leaves some to the next round. */
async function decide(wal: WriteAheadLog, told: Map<string, Told>): Promise<void> {
  const byId = new Map([...told.values()].map((one) => [one.id, one]));
  for (const [turn, { id }] of (await wal.preparedTransactions()).entries()) {
    const one = byId.get(id)!;
    if (turn % 3 === 0) {
      one.lsn = await wal.commitPrepared(id);
      one.phase = 'committed';
    } else if (turn % 3 === 1) {
      await wal.abortPrepared(id);
      one.phase = 'aborted';
    } else {
      one.phase = 'prepared';
    }
  }
}

t.test('transactions survive kill -9 at any moment: whole, in doubt, or not there', async (t) => {
  const directory = temporaryDirectory(t);
  const log = path.join(directory, 'log');
  const random = seeded(3);
  const told = new Map<string, Told>();
  let doubted = 0;
  for (let round = 1; round <= 5; round++) {
    const notes = path.join(directory, `notes-${round}`);
    fs.closeSync(fs.openSync(notes, 'a'));
    const watcher = fs.watch(notes);
    const child = startChild(t, 'transactor', [log, notes, String(round)]);
    await Promise.race([once(watcher, 'change'), child.ended]);
    watcher.close();
    await delay(Math.floor(random() * 200));
    child.process.kill('SIGKILL');
    const { signal, stderr } = await child.ended;
    t.equal(signal, 'SIGKILL', stderr);
    readNotes(notes, told);
    const wal = await WriteAheadLog.open(log);
    const found = await look(wal);
    doubted += found.inDoubt.size;
    t.same(problemsOf(told, found).slice(0, 10), [], `round ${round}: ${told.size} transactions so far`);
    await decide(wal, told);
    t.same(problemsOf(told, await look(wal)).slice(0, 10), [], `round ${round}: and decided`);
    // What becomes of those that were in doubt is known now, and what was cut short is told no more.
    await wal.checkpoint(wal.watermark('disk'));
    await wal.cleanup();
    for (const [name, { phase, lsn }] of told) {
      if (phase !== 'prepared' || lsn !== 0) told.delete(name);
    }
    await wal.close();
  }
  t.ok(doubted > 5, `${doubted} were in doubt`);
});
