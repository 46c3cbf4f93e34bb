import fc from 'fast-check';
import t from 'tap';
import { Codec } from '../src/format/codec.js';
import { withCheckpoint } from '../src/format/state.js';
import type { Entry } from '../src/producer/records.js';
import { retireSegments } from '../src/segments/retire.js';
import { clear, data, del, faultOf, KeyLog, type LogEncoding, put } from './compaction-helpers.js';
import { Random } from './simulation/random.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';
import { SEGMENT_BYTES } from './simulation/simulated-log.js';

type Step =
  | { do: 'write'; entries: Entry[] }
  | { do: 'whole'; entries: Entry[] }
  /** Parts of a transaction, each with a plain record behind it. */
  | { do: 'parts'; parts: Entry[][]; between: Entry; end: 'prepare' | 'commit' | 'rotate' | 'nothing' }
  | { do: 'decide'; part: number; step: 'commitPrepared' | 'abortPrepared' }
  | { do: 'rotate' }
  | { do: 'compact'; segmentBytes: number; keyBytes: number }
  | { do: 'checkpoint'; part: number }
  | { do: 'cleanup' }
  | { do: 'cut'; part: number }
  | { do: 'restart' }
  | { do: 'later' };

const keys = fc.constantFrom('', 'a', 'b', 'c', '\0', 'a\0', 'key', 'k'.repeat(300));
const entry: fc.Arbitrary<Entry> = fc.oneof(
  { weight: 8, arbitrary: fc.tuple(keys, fc.string({ maxLength: 8 })).map(([key, value]) => put(key, value)) },
  { weight: 2, arbitrary: fc.nat(400).map((i) => put(`key ${i}`, `value ${i}`)) },
  { weight: 3, arbitrary: keys.map(del) },
  { weight: 2, arbitrary: fc.string({ maxLength: 20 }).map(data) },
  { weight: 1, arbitrary: fc.nat(3).map((i) => data('x'.repeat(2000 * i))) },
  { weight: 1, arbitrary: fc.constant(clear()) },
);
/** What a transaction takes. */
const operation: fc.Arbitrary<Entry> = fc.oneof(
  { weight: 4, arbitrary: fc.tuple(keys, fc.string({ maxLength: 8 })).map(([key, value]) => put(key, value)) },
  { weight: 1, arbitrary: fc.nat(40).map((i) => put(`key ${i}`, 'v'.repeat(i * 20))) },
  { weight: 2, arbitrary: keys.map(del) },
);
const operations = fc.array(operation, { minLength: 1, maxLength: 12 });
const part = fc.double({ min: 0, max: 1, noNaN: true });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.array(entry, { minLength: 1, maxLength: 30 }).map((entries): Step => ({ do: 'write', entries })),
  },
  { weight: 6, arbitrary: operations.map((entries): Step => ({ do: 'whole', entries })) },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('parts' as const),
      parts: fc.array(operations, { maxLength: 3 }),
      between: entry,
      end: fc.constantFrom('prepare', 'prepare', 'commit', 'rotate', 'nothing'),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('decide' as const),
      part,
      step: fc.constantFrom('commitPrepared', 'abortPrepared'),
    }),
  },
  { weight: 6, arbitrary: fc.constant<Step>({ do: 'rotate' }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('compact' as const),
      segmentBytes: fc.constantFrom(64, 4096, SEGMENT_BYTES),
      keyBytes: fc.constantFrom(1, 2000, 1_000_000),
    }),
  },
  { weight: 2, arbitrary: part.map((part): Step => ({ do: 'checkpoint', part })) },
  { weight: 1, arbitrary: fc.constant<Step>({ do: 'cleanup' }) },
  { weight: 1, arbitrary: part.map((part): Step => ({ do: 'cut', part })) },
  { weight: 1, arbitrary: fc.constant<Step>({ do: 'restart' }) },
  { weight: 2, arbitrary: fc.constant<Step>({ do: 'later' }) },
);

function between(low: number, high: number, part: number): number {
  return Math.floor(low + (high - low) * part);
}

function writeParts(log: KeyLog, { parts, between, end }: Extract<Step, { do: 'parts' }>): void {
  const id = log.begin();
  for (const entries of parts) {
    log.writePart(id, ...entries);
    log.write(between);
    if (end === 'rotate') log.sequencer.rotate();
  }
  if (end !== 'nothing') log.end(id, end === 'prepare' ? 'prepare' : 'commit');
}

/** Takes one step, as far as the log allows it, and returns the log that goes on. */
function take(log: KeyLog, step: Step): KeyLog {
  const { state } = log.sequencer;
  const last = log.history.length - 1;
  switch (step.do) {
    case 'write':
      log.write(...step.entries);
      return log;
    case 'whole':
      log.commitWhole(...step.entries);
      return log;
    case 'parts':
      writeParts(log, step);
      return log;
    case 'decide': {
      const { prepared } = log;
      if (prepared.length > 0) log.decide(prepared[Math.floor(step.part * (prepared.length - 1))], step.step);
      return log;
    }
    case 'rotate':
      log.sequencer.rotate();
      return log;
    case 'compact':
      log.compact(step);
      return log;
    case 'checkpoint': {
      const least = state.checkpoint > 0 ? state.checkpoint : (state.deletesGone ?? 0);
      const checkpoint = between(least, last, step.part);
      if (checkpoint >= least) log.sequencer.updateState((now) => withCheckpoint(now, checkpoint));
      return log;
    }
    case 'cleanup': {
      const gone = log.sequencer.cleanup().map(({ name }) => name);
      for (const spare of retireSegments(log.disk, gone, 1, SEGMENT_BYTES).spares) log.sequencer.addSpare(spare);
      return log;
    }
    case 'cut': {
      const least = Math.max(state.checkpoint, state.low - 1, state.compacted ?? 0);
      if (last > least) log.cut(between(least, last, step.part));
      return log;
    }
    case 'later':
      log.clock += 1000;
      return log;
    case 'restart': {
      log.disk.crash();
      return log.next('power');
    }
  }
}

const KEY = Buffer.alloc(32, 'key');
const ENCODINGS: [name: string, encoding: LogEncoding, runs: number][] = [
  ['plain', {}, 300],
  ['compressed', { codec: Codec.Deflate }, 100],
  ['encrypted', { key: KEY }, 100],
  ['compressed and encrypted', { codec: Codec.Brotli, key: KEY }, 100],
];

for (const [name, encoding, numRuns] of ENCODINGS) {
  t.test(
    `after any history a compacted log replays to the same state, and verify finds it sound: ${name}`,
    async (t) => {
      let removed = 0;
      await fc.assert(
        fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), fc.nat(), async (steps, seed) => {
          let log = new KeyLog({ disk: new SimulatedDisk(new Random(seed)), ...encoding });
          for (const next of steps) {
            log = take(log, next);
            if (next.do !== 'compact') continue;
            const fault = await faultOf(log, log.history);
            if (fault !== undefined) throw new Error(fault);
          }
          log.sequencer.rotate();
          removed += log.compact();
          const fault = await faultOf(log, log.history);
          if (fault !== undefined) throw new Error(fault);
        }),
        { numRuns },
      );
      t.ok(removed > numRuns, `${removed} records were removed`);
    },
  );
}
