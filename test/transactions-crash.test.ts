import t from 'tap';
import { Level } from '../src/format/levels.js';
import { withCheckpoint } from '../src/format/state.js';
import type { Transaction } from '../src/kv/transaction.js';
import { retireSegments } from '../src/segments/retire.js';
import { Random } from './simulation/random.js';
import { type CrashKind, SimulatedDisk } from './simulation/simulated-disk.js';
import { during, SEGMENT_BYTES } from './simulation/simulated-log.js';
import { keysOf, problemsOf, type Told } from './transaction-fates.js';
import { TransactionWorld } from './transaction-world.js';

const KINDS: CrashKind[] = ['process', 'power'];

/** Runs transactions, and notes what each one's caller was told. */
class Script {
  readonly told = new Map<string, Told>();
  readonly world: TransactionWorld;
  readonly #running = new Map<string, Transaction>();

  constructor(world: TransactionWorld) {
    this.world = world;
  }

  begin(name: string, operations: number, valueBytes?: number): void {
    const tx = this.world.begin(name, operations, valueBytes);
    this.#running.set(name, tx);
    this.told.set(name, { id: tx.id, operations, phase: 'begun' });
  }

  async commit(name: string): Promise<void> {
    const told = this.told.get(name)!;
    told.phase = told.phase === 'prepared' ? 'committing prepared' : 'committing';
    told.lsn = await this.#running.get(name)!.commit();
    told.phase = 'committed';
  }

  async prepare(name: string): Promise<void> {
    const told = this.told.get(name)!;
    told.phase = 'preparing';
    await this.#running.get(name)!.prepare();
    told.phase = 'prepared';
  }

  async abort(name: string): Promise<void> {
    const told = this.told.get(name)!;
    if (told.phase === 'prepared') told.phase = 'aborting';
    await this.#running.get(name)!.abort();
    told.phase = 'aborted';
  }

  cleanUp(lsn: number): void {
    const { sequencer, disk } = this.world;
    sequencer.updateState((state) => withCheckpoint(state, lsn));
    const gone = sequencer.cleanup().map(({ name }) => name);
    for (const spare of retireSegments(disk, gone, 1, SEGMENT_BYTES).spares) sequencer.addSpare(spare);
  }
}

async function everything(script: Script): Promise<void> {
  const { world } = script;
  const plain = (level: number, count = 2) => {
    world.append(level, count);
    world.sequencer.step();
    world.collect();
  };
  script.begin('whole', 3);
  await script.commit('whole');
  script.begin('kept', 4);
  await script.prepare('kept');
  plain(Level.Os);
  script.begin('dropped', 2, 3000);
  await script.prepare('dropped');
  script.begin('given', 1);
  await script.abort('given');
  // Larger than half the ring, with others in between.
  script.begin('large', 30, 1500);
  script.begin('beside', 2);
  await Promise.all([script.commit('large'), script.commit('beside')]);
  world.sequencer.rotate();
  await script.commit('kept');
  await script.abort('dropped');
  script.begin('doubtful', 3);
  await script.prepare('doubtful');
  plain(Level.Disk);
  world.sequencer.rotate();
  // What was committed by now was applied elsewhere, but for the last.
  script.cleanUp(script.told.get('large')!.lsn!);
  plain(Level.Disk);
}

async function judge(world: TransactionWorld, script: Script, point: string): Promise<string[]> {
  return problemsOf(script.told, await world.look()).map((problem) => `${point}: ${problem}`);
}

t.test(
  'a crash at every storage call of prepare, commit, abort and clean-up leaves each whole, in doubt or absent',
  async (t) => {
    const problems: string[] = [];
    let points = 0;
    for (const kind of KINDS) {
      for (let seed = 0; seed < 2; seed++) {
        for (let call = 1, reached = true; reached; call++) {
          const disk = new SimulatedDisk(new Random(seed));
          const script = new Script(new TransactionWorld({ disk }));
          disk.arm({ crashAt: call });
          await everything(script).catch(() => undefined);
          reached = disk.calls >= call;
          disk.crash();
          disk.restart(kind);
          // The recovery is cut short too, somewhere, and not always.
          during(disk, { crashAt: 1 + (call % 12) }, () => new TransactionWorld({ disk }));
          disk.crash();
          disk.restart(KINDS[call % 2]);
          const world = new TransactionWorld({ disk });
          const point = `${kind}, seed ${seed}, call ${call}`;
          problems.push(...(await judge(world, script, point)));
          problems.push(...(await decideAll(world, script, point)));
          points++;
        }
      }
    }
    t.same(problems.slice(0, 10), []);
    t.ok(points > 100, `${points} crashes`);
  },
);

/** Commits one half of those in doubt and aborts the other; that must hold, and what was decided before it too. */
async function decideAll(world: TransactionWorld, script: Script, point: string): Promise<string[]> {
  let turn = 0;
  for (const id of (await world.inDoubt()).keys()) {
    const told = [...script.told.values()].find((candidate) => candidate.id === id)!;
    if (turn++ % 2 === 0) {
      told.lsn = await world.transactions.commitPrepared(id);
      told.phase = 'committed';
    } else {
      await world.transactions.abortPrepared(id);
      told.phase = 'aborted';
    }
  }
  world.disk.crash();
  world.disk.restart('power');
  const again = new TransactionWorld({ disk: world.disk });
  const problems = await judge(again, script, `${point}, then decided`);
  if ((await again.inDoubt()).size > 0) problems.push(`${point}: still in doubt`);
  return problems;
}

t.test('a failing call of a step poisons the log, and recovery tells what became of the transaction', async (t) => {
  const problems: string[] = [];
  let failed = 0;
  for (let call = 1, reached = true; reached; call++) {
    const disk = new SimulatedDisk(new Random(call));
    const script = new Script(new TransactionWorld({ disk }));
    disk.arm({ failAt: call, failing: ['write', 'sync'] });
    await everything(script).catch(() => undefined);
    reached = disk.calls >= call;
    if (script.world.sequencer.failed) failed++;
    disk.crash();
    disk.restart(KINDS[call % 2]);
    problems.push(...(await judge(new TransactionWorld({ disk }), script, `call ${call}`)));
  }
  t.same(problems.slice(0, 10), []);
  t.ok(failed > 10, `${failed} failures`);
});

t.test('a transaction stays in doubt through restarts, rotations and clean-ups, with its operations', async (t) => {
  let world = new TransactionWorld();
  const { disk } = world;
  const tx = world.begin('doubtful', 5);
  await tx.prepare();
  for (let round = 0; round < 4; round++) {
    world.appendUntilRotated(Level.Disk);
    world.sequencer.updateState((state) => withCheckpoint(state, world.watermark(Level.Disk)));
    t.same(world.sequencer.cleanup(), [], `round ${round}: kept`);
    t.same([...(await world.inDoubt()).values()], [keysOf('doubtful', 5)], `round ${round}: listed`);
    t.equal((await world.replay()).size, 0, `round ${round}: not replayed`);
    disk.crash();
    disk.restart(KINDS[round % 2]);
    world = new TransactionWorld({ disk });
  }
  const commit = await world.transactions.commitPrepared(tx.id);
  t.equal((await world.inDoubt()).size, 0);
  t.same(world.sequencer.cleanup(), [], 'and kept on: a replay needs it');
  disk.crash();
  disk.restart('power');
  world = new TransactionWorld({ disk });
  t.same((await world.replay()).get('doubtful'), { keys: keysOf('doubtful', 5), lsns: new Set([commit]) });
  t.same(world.sequencer.cleanup(), []);
  world.sequencer.updateState((state) => withCheckpoint(state, commit));
  t.ok(world.sequencer.cleanup().length > 3, 'until the checkpoint is past the commit');
  t.equal(world.sequencer.state.transactions, undefined, 'nothing of it is left');
});

t.test('an aborted one lets go of what it held', async (t) => {
  const world = new TransactionWorld();
  const tx = world.begin('dropped', 5);
  await tx.prepare();
  world.appendUntilRotated(Level.Disk);
  world.appendUntilRotated(Level.Disk);
  world.sequencer.updateState((state) => withCheckpoint(state, world.watermark(Level.Disk)));
  t.same(world.sequencer.cleanup(), []);
  await tx.abort();
  t.ok(world.sequencer.cleanup().length > 0);
});

t.test('what is being written in parts is not cleaned up meanwhile', async (t) => {
  const world = new TransactionWorld();
  world.append(Level.Disk);
  world.sequencer.step();
  world.sequencer.noteTransaction({ step: 'begin', id: '00000000-0000-4000-8000-000000000000' });
  world.appendUntilRotated(Level.Disk);
  world.sequencer.updateState((state) => withCheckpoint(state, world.watermark(Level.Disk)));
  t.same(world.sequencer.cleanup(), []);
  world.sequencer.noteTransaction({ step: 'end', id: '00000000-0000-4000-8000-000000000000' });
  t.equal(world.sequencer.cleanup().length, 1);
});

t.test('commits across segments leave at most one entry a segment in the state', async (t) => {
  const world = new TransactionWorld();
  for (let segment = 0; segment < 4; segment++) {
    const early: Transaction[] = [];
    for (let i = 0; i < 20; i++) {
      const tx = world.begin(`tx${segment}`, 1);
      await tx.prepare();
      early.push(tx);
    }
    world.sequencer.rotate();
    for (const tx of early) await tx.commit();
  }
  const { transactions } = world.sequencer.state;
  t.equal(Object.keys(transactions!.prepared).length, 0);
  t.ok(transactions!.holds.length <= 4, `${transactions!.holds.length} entries`);
  const again = new TransactionWorld({ disk: world.disk });
  t.same(again.sequencer.state.transactions, transactions, 'and recovery comes to the same');
});

t.test('without space a transaction is refused whole, and can be committed once there is space', async (t) => {
  const world = new TransactionWorld();
  world.append(Level.Disk);
  world.sequencer.step();
  const { disk } = world;
  disk.quotaBytes = disk.usedBytes();
  const large = world.begin('large', 30, 1500);
  await t.rejects(large.commit(), { code: 'ERR_WAL_NO_SPACE' });
  await t.rejects(large.prepare(), { code: 'ERR_WAL_NO_SPACE' });
  t.equal(world.sequencer.failed, false);
  t.equal((await world.replay()).size, 0);
  disk.quotaBytes = Number.POSITIVE_INFINITY;
  const lsn = await large.commit();
  t.same((await world.replay()).get('large'), { keys: keysOf('large', 30), lsns: new Set([lsn]) });
  world.disk.crash();
  world.disk.restart('power');
  const again = new TransactionWorld({ disk });
  t.same((await again.replay()).get('large'), { keys: keysOf('large', 30), lsns: new Set([lsn]) });
});

t.test('a decision is vouched for once the log falls idle: losing it is damage, and no torn tail', async (t) => {
  for (const decision of ['prepare', 'abort'] as const) {
    const world = new TransactionWorld();
    const tx = world.begin('tx', 2);
    world.sequencer.idle();
    await tx.prepare();
    if (decision === 'abort') {
      world.sequencer.idle();
      await tx.abort();
    }
    world.sequencer.idle();
    const { disk } = world;
    disk.crash();
    disk.restart('process');
    const [name] = disk.list().filter((candidate) => candidate.endsWith('.wal'));
    const file = disk.open(name, 'read');
    const bytes = Buffer.alloc(file.size());
    file.read(bytes, 0);
    file.close();
    disk.flip(name, bytes.lastIndexOf('RWLF\x07') + 70, 1);
    t.throws(() => new TransactionWorld({ disk }), { code: 'ERR_WAL_CORRUPT' }, decision);
  }
});
