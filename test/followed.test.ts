import t from 'tap';
import { Commits } from '../src/coordinator/commits.js';
import { WalError } from '../src/errors.js';
import { Level } from '../src/format/levels.js';
import { Control, FOLLOWED, Slot } from '../src/ring/control.js';

/** What the opening thread tells the actor, and what the actor tells it. */
class Rig {
  readonly control = new Control();
  readonly commits = new Commits(
    this.control,
    () => undefined,
    () => undefined,
  );

  get followed(): boolean {
    return (this.#interest & FOLLOWED) !== 0;
  }

  /** Bits of the levels. */
  get levels(): number {
    return this.#interest & ~FOLLOWED;
  }

  get #interest(): number {
    return Atomics.load(this.control.slots, Slot.interest);
  }

  /** A reader that has read everything before `lsn` waits for it. */
  read(lsn: number, level: number = Level.Os, signal?: AbortSignal): Promise<unknown> {
    return this.#outcome(this.commits.waitFor(level, lsn, signal, true));
  }

  waitFor(lsn: number, level: number = Level.Os, signal?: AbortSignal): Promise<unknown> {
    return this.#outcome(this.commits.waitFor(level, lsn, signal));
  }

  /** The actor commits up to `lsn`, and its message comes. */
  commit(lsn: number, level: number = Level.Os): void {
    this.control.publishCommit(level, lsn, 0, 0);
    this.commits.look();
  }

  #outcome(waiting: Promise<void>): Promise<unknown> {
    return waiting.then(
      () => 'reached',
      (error) => error,
    );
  }
}

t.test('the actor is told of readers from when the first waits until the last one does not', async (t) => {
  const rig = new Rig();
  t.equal(rig.followed, false);
  const first = rig.read(1);
  t.equal(rig.followed, true);
  t.equal(rig.levels, 1 << Level.Os, 'which is no level');
  const second = rig.read(2);
  rig.commit(1);
  t.equal(await first, 'reached');
  t.equal(rig.followed, true, 'one of two was served');
  rig.commit(2);
  t.equal(await second, 'reached');
  t.equal(rig.followed, false);
  t.equal(rig.levels, 0);
  const third = rig.read(3);
  t.equal(rig.followed, true, 'it waits again');
  rig.commit(7);
  t.equal(await third, 'reached');
  t.equal(rig.followed, false);
});

t.test('a read that follows counts until it is over, whether it waits or catches up', async (t) => {
  const rig = new Rig();
  const overs = [rig.commits.follow(), rig.commits.follow()];
  t.equal(rig.followed, true);
  t.equal(rig.levels, 0);
  const waiting = rig.read(1);
  rig.commit(1);
  t.equal(await waiting, 'reached');
  t.equal(rig.followed, true, 'it reads what came');
  overs[0]();
  t.equal(rig.followed, true, 'one of two is over');
  rig.commits.rejectAll(new WalError('ERR_WAL_CLOSED', 'closed'));
  t.equal(rig.followed, true);
  overs[1]();
  t.equal(rig.followed, false);
});

t.test('a reader of what is there already is served at once, and nobody is told for longer', async (t) => {
  const rig = new Rig();
  rig.commit(5);
  t.equal(await rig.read(5), 'reached');
  t.equal(rig.followed, false);
});

t.test('readers at different levels count together', async (t) => {
  const rig = new Rig();
  const os = rig.read(1, Level.Os);
  const disk = rig.read(1, Level.Disk);
  t.equal(rig.levels, (1 << Level.Os) | (1 << Level.Disk));
  rig.commit(1, Level.Os);
  t.equal(await os, 'reached');
  t.equal(rig.followed, true);
  rig.commit(1, Level.Disk);
  t.equal(await disk, 'reached');
  t.equal(rig.followed, false);
});

t.test('who waits for a commit, or listens to commits, is no reader', async (t) => {
  const rig = new Rig();
  rig.commits.setListened(7);
  const waiters = [Level.Memory, Level.Os, Level.Disk].map((level) => rig.waitFor(1, level));
  t.equal(rig.levels, 7);
  t.equal(rig.followed, false);
  const reader = rig.read(1);
  t.equal(rig.followed, true);
  rig.commit(1);
  t.equal(await reader, 'reached');
  t.equal(await waiters[1], 'reached');
  t.equal(rig.followed, false, 'when waiters are served, no reader is taken off');
  const next = rig.read(2);
  rig.commit(1, Level.Disk);
  t.equal(await waiters[2], 'reached');
  t.equal(rig.followed, true, 'nor one that still waits');
  rig.commit(2);
  t.equal(await next, 'reached');
  t.equal(rig.followed, false);
});

t.test('a reader whose signal fires is none any more', async (t) => {
  const rig = new Rig();
  const one = new AbortController();
  const other = new AbortController();
  const first = rig.read(1, Level.Os, one.signal);
  const second = rig.read(1, Level.Os, other.signal);
  const waiter = rig.waitFor(1, Level.Os, one.signal);
  one.abort('enough');
  t.same(await Promise.all([first, waiter]), ['enough', 'enough']);
  t.equal(rig.followed, true);
  other.abort('enough');
  t.equal(await second, 'enough');
  t.equal(rig.followed, false);
  t.equal(rig.levels, 0);
  t.equal(await rig.read(1, Level.Os, AbortSignal.abort('before')), 'before');
  t.equal(rig.followed, false, 'one whose signal had fired never was');
});

t.test('a signal that fires behind the end of a wait changes nothing', async (t) => {
  const rig = new Rig();
  const { signal, abort } = withAbort();
  const first = rig.read(1, Level.Os, signal);
  rig.commit(1);
  t.equal(await first, 'reached');
  const second = rig.read(2);
  abort();
  t.equal(rig.followed, true);
  rig.commit(2);
  t.equal(await second, 'reached');
  t.equal(rig.followed, false);
});

function withAbort(): { signal: AbortSignal; abort: () => void } {
  const controller = new AbortController();
  return { signal: controller.signal, abort: () => controller.abort('too late') };
}

t.test('readers that a cut leaves without what they had read are none any more; those before it go on', async (t) => {
  const rig = new Rig();
  rig.commit(9);
  const behind = [rig.read(10, Level.Os), rig.read(10, Level.Disk)];
  t.equal(rig.followed, true);
  const waiter = rig.waitFor(10);
  rig.control.publishCommit(Level.Os, 5, 0, 0);
  rig.commits.wentBack(5);
  for (const told of await Promise.all(behind)) {
    t.ok(told instanceof WalError);
    t.equal((told as WalError).code, 'ERR_WAL_TRUNCATED');
  }
  t.equal(rig.followed, false);
  t.equal(rig.levels, 1 << Level.Os, 'who only waits goes on waiting');
  const next = rig.read(6);
  const late = rig.read(7);
  rig.commits.wentBack(5);
  t.equal((await late) instanceof WalError, true);
  t.equal(rig.followed, true, 'it waits for the first record behind the cut');
  rig.commit(6);
  t.equal(await next, 'reached');
  t.equal(rig.followed, false);
  rig.commit(10);
  t.equal(await waiter, 'reached');
});

t.test('when all are told that it is over nobody reads, and the count begins anew', async (t) => {
  const rig = new Rig();
  const { signal, abort } = withAbort();
  const over = new Error('over');
  const all = [rig.read(1, Level.Os, signal), rig.read(1, Level.Disk), rig.waitFor(1)];
  t.equal(rig.followed, true);
  rig.commits.rejectAll(over);
  t.equal(rig.followed, false);
  t.equal(rig.levels, 0);
  t.same(await Promise.all(all), [over, over, over]);
  abort();
  rig.commits.rejectAll(over);
  const reader = rig.read(1);
  t.equal(rig.followed, true);
  rig.commit(1);
  t.equal(await reader, 'reached');
  t.equal(rig.followed, false);
});
