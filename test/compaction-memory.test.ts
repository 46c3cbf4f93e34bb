import t from 'tap';
import { FULL, KeyTable, NEW, SUPERSEDED } from '../src/compaction/key-table.js';
import { CompactionSignals, Pace, Stopped } from '../src/compaction/pace.js';
import { Control, Counter } from '../src/ring/control.js';

t.test('keys of one hash are told apart by their bytes', (t) => {
  const table = new KeyTable(1 << 20);
  const bytes = Buffer.from('one two seven');
  const note = (from: number, to: number, position: number, newer = 100) =>
    table.note(bytes, from, to, 42, position, newer);
  t.equal(note(0, 3, 1), NEW);
  t.equal(note(4, 7, 2), NEW, 'of the same length');
  t.equal(note(8, 13, 3), NEW, 'of another');
  t.same([note(0, 3, 11), note(4, 7, 12), note(8, 13, 13)], [1, 2, 3], 'each is found, with its own position');
  t.equal(note(4, 7, 20, 12), SUPERSEDED);
  t.end();
});

t.test('a table that is full keeps one half of the hashes, and all of their keys', (t) => {
  const table = new KeyTable(4096);
  const keys = Array.from({ length: 1000 }, (_, i) => Buffer.from(`key ${i}`));
  const noted: number[] = [];
  for (const [i, key] of keys.entries()) {
    const hash = table.hash(key, 0, key.byteLength);
    if (table.note(key, 0, key.byteLength, hash, i, 0) === FULL) break;
    noted.push(i);
  }
  t.ok(noted.length > 10 && noted.length < 1000, `${noted.length} keys fill it`);
  const other = table.split();
  t.not(other.value, table.part.value);
  let kept = 0;
  for (const i of noted) {
    const hash = table.hash(keys[i], 0, keys[i].byteLength);
    if (!table.takes(hash)) continue;
    kept++;
    t.equal(table.note(keys[i], 0, keys[i].byteLength, hash, i, 1e9), i);
  }
  t.ok(kept > 0 && kept < noted.length);
  t.end();
});

/** Notes rests and does not take them. */
class Restless extends CompactionSignals {
  readonly rests: number[] = [];

  override rest(ms: number): void {
    this.rests.push(ms);
  }
}

t.test('a compaction rests while others append, and not otherwise, and never for long', (t) => {
  const signals = new Restless();
  const control = new Control();
  const pace = new Pace(signals, control);
  pace.look();
  t.same(signals.rests, [], 'nobody appends');
  for (let round = 1; round <= 3; round++) {
    control.set(Counter.records, round);
    pace.step(100, 1);
    t.equal(signals.rests.length, round - 1, 'not before it has done something');
    pace.step(1 << 20, 10);
    t.equal(signals.rests.length, round);
  }
  t.ok(signals.rests.every((ms) => ms >= 0 && ms <= 100));
  pace.look();
  t.equal(signals.rests.length, 3);
  t.match(signals.progress, { bytes: 3 * (100 + (1 << 20)), records: 33 });
  t.end();
});

t.test('a rest ends at once when the compaction is to stop, and so does the work', (t) => {
  const signals = new CompactionSignals();
  const control = new Control();
  const pace = new Pace(signals, control);
  signals.stop();
  signals.rest(1e9);
  t.throws(() => pace.look(), { message: new Stopped().message });
  t.end();
});
