import t, { type Test } from 'tap';
import { allSteps, kindOf, runSeed, shrink, traceOf } from './simulation/explore.js';
import { Violation } from './simulation/model.js';
import { OPERATIONS } from './simulation/operations/index.js';
import { Random } from './simulation/random.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';
import { Tally } from './simulation/tally.js';

const SEEDS = 300;
/** So many from here on meet everything that the disk can do; what is rarest comes once in some hundreds. */
const FIRST_SEED = 3150;

t.test('no promise is broken on a simulated disk, through thousands of crashes, faults and flipped bits', async (t) => {
  const tally = new Tally();
  for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
    const failure = await runSeed(seed, allSteps(), tally);
    if (failure === undefined) continue;
    const smallest = await shrink(failure);
    t.comment((await traceOf(smallest)).join('\n'));
    t.comment(`node dist/test/simulation/main.js --seed ${seed}; the smallest run: steps ${smallest.steps.join(' ')}`);
    throw smallest.error;
  }
  for (const line of tally.lines()) t.comment(line);
  t.ok(tally.crashes > SEEDS * 20, 'it crashed often');
  t.ok(tally.crashesInRecovery > SEEDS * 3, 'in the middle of recoveries too');
  t.ok(tally.points.size > 80, 'and in many places');
  t.same(tally.faults.missing, [], 'the disk did everything that it can do');
  t.same(
    [...tally.operations.keys()].sort(),
    OPERATIONS.map(({ name }) => name).sort(),
    'and everything was done to the log',
  );
  t.ok(tally.delivered > SEEDS * 20, 'consumers were given records');
  t.ok(tally.transactions > SEEDS && tally.inDoubt > SEEDS, 'transactions were decided, and found in doubt');
  t.ok(tally.compactions > SEEDS && tally.removed > SEEDS * 10, 'logs were compacted');
  t.ok(tally.handedOver > SEEDS && tally.keyRotations > 10, 'syncs were handed over, and keys rotated');
  t.ok(tally.repaired > 10 && tally.cutBack > 10 && tally.salvaged > 20, 'and damage was dealt with in every way');
});

t.test('the same seed gives the same run', async (t) => {
  const lines = async () => {
    const trace: string[] = [];
    await runSeed(99, allSteps(20), undefined, (line) =>
      trace.push(line.replace(/[0-9a-f]{12}\.tmp|[0-9a-f-]{36}/g, '')),
    );
    return trace;
  };
  t.same(await lines(), await lines());
});

/** A disk whose files lie about being synced. */
function lyingDisk(t: Test): void {
  const { open } = SimulatedDisk.prototype;
  SimulatedDisk.prototype.open = function (name, mode) {
    const file = open.call(this, name, mode);
    const writeThrough = (views: readonly Uint8Array[], _: number, position: number) => {
      file.write(views, position);
      return true;
    };
    return { ...file, sync: () => undefined, writeThrough };
  };
  t.teardown(() => {
    SimulatedDisk.prototype.open = open;
  });
}

t.test('the judge is awake: a log that loses what it promised is caught', async (t) => {
  lyingDisk(t);
  const caught = new Set<string>();
  for (let seed = 1; seed <= 10; seed++) {
    const failure = await runSeed(seed, allSteps());
    if (failure?.error instanceof Violation) caught.add(failure.error.invariant);
    else if (failure !== undefined) caught.add((failure.error as NodeJS.ErrnoException).code ?? 'error');
  }
  t.ok(caught.has('Durable') || caught.has('ERR_WAL_CORRUPT'), [...caught].join());
});

t.test('a run that fails is made as small as it gets, fails in the same way, and is told step by step', async (t) => {
  lyingDisk(t);
  let shrunk = 0;
  for (let seed = 1; seed <= 4; seed++) {
    const failure = await runSeed(seed, allSteps());
    if (failure === undefined) continue;
    const smallest = await shrink(failure);
    t.ok(smallest.steps.length < failure.steps.length / 2, `${smallest.steps.length} steps are left`);
    t.equal(kindOf(smallest.error), kindOf(failure.error));
    const again = await runSeed(seed, smallest.steps);
    t.ok(again !== undefined && kindOf(again.error) === kindOf(failure.error), 'it fails by itself');
    for (const step of smallest.steps) {
      const without = await runSeed(
        seed,
        smallest.steps.filter((other) => other !== step),
      );
      t.ok(without === undefined || kindOf(without.error) !== kindOf(failure.error), `step ${step} is needed`);
    }
    const trace = await traceOf(smallest);
    t.ok(
      smallest.steps.every((step) => trace.some((line) => line.startsWith(`step ${step} `))),
      'each step is in the trace',
    );
    shrunk++;
  }
  t.ok(shrunk > 0, `${shrunk} runs were made smaller`);
});

t.test('the simulated disk keeps what was synced and may lose, keep or tear what was not', (t) => {
  const seen = new Set<string>();
  for (let seed = 0; seed < 200; seed++) {
    const disk = new SimulatedDisk(new Random(seed));
    const file = disk.open('file', 'create');
    file.write([Buffer.alloc(1024, 1)], 0);
    file.sync();
    disk.syncFolder();
    file.write([Buffer.alloc(512, 2)], 512);
    disk.restart('power');
    const bytes = Buffer.alloc(1024);
    disk.open('file', 'read').read(bytes, 0);
    t.ok(bytes.subarray(0, 512).every((byte) => byte === 1));
    const [first, last] = [bytes[512], bytes[1023]];
    seen.add(first === last ? (first === 1 ? 'lost' : 'kept') : 'torn');
  }
  t.same([...seen].sort(), ['kept', 'lost', 'torn']);
  t.end();
});

t.test('on the simulated disk the sync of a file does not make its name durable', (t) => {
  const found = new Set<boolean>();
  for (let seed = 0; seed < 50; seed++) {
    const disk = new SimulatedDisk(new Random(seed));
    const file = disk.open('file', 'create');
    file.write([Buffer.alloc(10)], 0);
    file.sync();
    disk.restart('power');
    found.add(disk.list().includes('file'));
  }
  t.equal(found.size, 2);
  t.end();
});

t.test('after a failed sync the next one succeeds, though the platter does not have the bytes', (t) => {
  const after = new Set<number>();
  for (let seed = 0; seed < 50; seed++) {
    const disk = new SimulatedDisk(new Random(seed));
    const file = disk.open('file', 'create');
    disk.syncFolder();
    file.write([Buffer.alloc(512)], 0);
    file.sync();
    file.write([Buffer.alloc(512, 7)], 0);
    disk.arm({ failAt: 1 });
    t.throws(() => file.sync(), { code: 'EIO' });
    file.sync();
    disk.restart('power');
    const bytes = Buffer.alloc(1);
    disk.open('file', 'read').read(bytes, 0);
    after.add(bytes[0]);
  }
  t.same([...after].sort(), [0, 7]);
  t.end();
});
