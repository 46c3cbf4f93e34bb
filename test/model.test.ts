import { connect, type Durability, type Producer, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { collect, numbers, temporaryDirectory, text } from './helpers.js';

/** Small and good enough: mulberry32. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) % below;
  };
}

const LEVELS: Durability[] = ['memory', 'os', 'disk'];

/** Lives a random life with a log, beside a model of it in memory: the payload of each LSN, and what is cleaned up. */
async function live(t: Test, seed: number, steps: number): Promise<void> {
  const random = randomFrom(seed);
  const directory = temporaryDirectory(t);
  const options = () => ({
    segmentBytes: 65536 * (1 + random(4)),
    ringBytes: 65536 * (1 + random(3)),
    flushIntervalMs: random(20),
    autoCleanup: random(2) === 0,
    syncMethod: random(4) === 0 ? ('dsync' as const) : ('fdatasync' as const),
  });
  const model: string[] = [''];
  let checkpoint = 0;
  let producers: Producer[] = [];
  const pending: Promise<unknown>[] = [];
  const troubles: unknown[] = [];
  const reopen = async () => {
    const wal = await WriteAheadLog.open(directory, options());
    wal.on('error', (error) => troubles.push(error));
    wal.on('commit', () => {});
    t.equal(wal.recovery.lastLsn, model.length - 1);
    t.equal(wal.recovery.checkpoint, checkpoint);
    return wal;
  };
  let wal = await reopen();
  const settle = async () => {
    await Promise.all(pending.splice(0));
  };
  const payload = () => `${random(1e9)} `.padEnd(random(10) === 0 ? random(15000) : random(300), 'x');
  const note = (first: number, payloads: string[]) => {
    for (const [i, what] of payloads.entries()) model[first + i] = what;
  };
  const check = async () => {
    await settle();
    await wal.sync();
    if (model.includes(undefined as unknown as string)) t.fail('a gap in the LSNs');
    const from = checkpoint + 1;
    const to = from + random(model.length);
    const records = await collect(wal.read({ from, to }));
    t.equal(records.length, Math.min(to, model.length - 1) - from + 1 || 0);
    if (records.some(({ lsn, payload }) => text(payload) !== model[lsn]))
      t.fail('a record that is not what was written');
  };
  const actions: [number, () => unknown][] = [
    [
      40,
      () => {
        const writer = producers.length > 0 && random(2) === 0 ? producers[random(producers.length)] : wal;
        for (let n = random(60); n >= 0; n--) {
          const what = payload();
          pending.push(writer.append(what, { durability: LEVELS[random(3)] }).then((lsn) => note(lsn, [what])));
        }
      },
    ],
    [
      10,
      () => {
        const all = numbers(1, random(20)).map(() => `${random(1e9)}`);
        pending.push(wal.appendMany(all, { durability: LEVELS[random(3)] }).then(({ first }) => note(first, all)));
      },
    ],
    [10, settle],
    [5, () => pending.push(wal.rotate())],
    [5, () => pending.push(wal.cleanup())],
    [5, () => pending.push(wal.sync())],
    [
      6,
      async () => {
        await settle();
        checkpoint += random(model.length - checkpoint);
        await wal.checkpoint(checkpoint);
      },
    ],
    [8, check],
    [3, async () => producers.push(await connect(wal.producer()))],
    [2, () => pending.push(producers.pop()?.close() ?? Promise.resolve())],
    [
      3,
      async () => {
        if (random(2) === 0) await settle();
        // Producers end with their log, and what they have in flight then is lost: let it arrive first.
        await Promise.all(producers.map((producer) => producer.close()));
        producers = [];
        await wal.close();
        await settle();
        wal = await reopen();
      },
    ],
  ];
  const total = actions.reduce((sum, [weight]) => sum + weight, 0);
  for (let step = 0; step < steps; step++) {
    let pick = random(total);
    for (const [weight, act] of actions) {
      pick -= weight;
      if (pick >= 0) continue;
      await act();
      break;
    }
  }
  await check();
  await wal.close();
  t.same(troubles, []);
  const reader = await WriteAheadLog.open(directory, { readOnly: true });
  t.equal(reader.recovery.verdict, model.length === 1 ? reader.recovery.verdict : 'clean');
  t.equal(reader.recovery.lastLsn, model.length - 1);
  await reader.close();
}

const seeds = process.env.RINGWAL_SEEDS?.split('-').map(Number) ?? [1, 3];
for (const seed of numbers(seeds[0], seeds[1])) {
  t.test(`a random life of a log agrees with a model of it (seed ${seed})`, (t) => live(t, seed, 150));
}
