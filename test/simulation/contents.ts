import type { LogState } from '../../src/format/state.js';
import { listPrepared } from '../../src/kv/transactions.js';
import type { ReadableFiles } from '../../src/reader/files.js';
import { transactionRecords } from '../../src/reader/transaction-records.js';
import type { Life } from './life.js';
import { hold } from './model.js';
import type { State } from './places.js';
import { readAll, replayOnto, sourceOf } from './reading.js';
import { entryOf, putBy } from './records.js';
import type { SimulatedDisk } from './simulated-disk.js';

/**
 * Reads all that a log holds, and replays it, and compares both with what was appended: every record is there but for those
 * that compaction may have taken out, and what recover makes of it is what it would be with them. Returns how many there are.
 */
export async function judgeContents(life: Life, state: LogState, end: number): Promise<number> {
  const { model, disk, keys } = life;
  const { low } = state;
  if (end < low) return 0;
  const records = await readAll(disk, low, end, undefined, keys.ring);
  const gone = model.checkRecords(records, low, end);
  await judgeReplay(life, disk, state, end);
  if (!life.unsettled) model.took(gone, state);
  return records.length;
}

/** A replay onto the state outside, as of the checkpoint, leads to the same as all that was appended. */
export async function judgeReplay(
  { model, keys }: Life,
  files: SimulatedDisk | ReadableFiles,
  { checkpoint, low }: LogState,
  end: number,
): Promise<void> {
  const from = Math.max(checkpoint + 1, low);
  const { before, after } = model.stateAt(from, end);
  const outside = new Map([...before].map(([key, id]) => [key, putBy(id)]));
  const found = from > end ? outside : await replayOnto(outside, sourceOf(files, low, end, keys.ring), from);
  hold(
    isSame(found, after),
    'Honest',
    () => `a replay from LSN ${from} leads to ${show(found)}, not ${showIds(after)}`,
  );
}

/** Those in doubt have the operations that they were prepared with. */
export async function judgeInDoubt(life: Life, state: LogState, end: number): Promise<void> {
  const { model, disk, keys } = life;
  if (state.transactions === undefined) return;
  const source = sourceOf(disk, state.low, end, keys.ring);
  const list = await listPrepared(
    () => state,
    (place) => transactionRecords(source, place),
  );
  for (const { id, operations, lost } of list) {
    const told = model.transactions.get(id);
    hold(told !== undefined, 'Honest', () => `${id} is in doubt and was never begun`);
    if (lost && model.lacksParts(id)) continue;
    const whole =
      operations.length === told.ids.length &&
      operations.every((op, i) => {
        const { key, value } = entryOf(told.ids[i]);
        return key.equals(op.key) && value.equals(op.type === 'put' ? op.value : Buffer.alloc(0));
      });
    hold(whole, 'Whole', () => `${id} is in doubt, with ${operations.length} of ${told.ids.length} operations`);
  }
  life.tally.inDoubt += list.length;
}

function isSame(found: ReadonlyMap<string, Uint8Array>, expected: State): boolean {
  return found.size === expected.size && [...expected].every(([key, id]) => equal(found.get(key), putBy(id)));
}

function equal(found: Uint8Array | undefined, expected: Buffer): boolean {
  return found !== undefined && expected.equals(found);
}

function show(found: ReadonlyMap<string, Uint8Array>): string {
  const numbers = [...found].map(([key, value]) => [key, Buffer.from(value).readDoubleLE(0)]);
  return JSON.stringify(numbers.sort());
}

function showIds(expected: State): string {
  return JSON.stringify([...expected].sort());
}
