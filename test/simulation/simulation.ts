import type { WalError } from '../../src/errors.js';
import { Counter } from '../../src/ring/control.js';
import { Life } from './life.js';
import { hold, Violation } from './model.js';
import { OPERATIONS } from './operations/index.js';
import type { Operation } from './operations/operation.js';
import { publish } from './operations/writing.js';
import { Random } from './random.js';
import { isInjected, rareCall, reopen } from './reopening.js';
import type { Faults } from './simulated-disk.js';
import type { Tally } from './tally.js';

export interface SimulationOptions {
  seed: number;
  /** Gets a line for each thing that happens. */
  trace?: (line: string) => void;
}

const CHOICES = OPERATIONS.map((operation) => [operation, operation.weight] as const);

/**
 * The life of one log on one disk: the real sequencer, segments, recovery, repair, subscriptions and reader; producers,
 * faults, crashes and the judgement of what came back. Each step draws from a generator of its own, so that a step may
 * be left out without changing the others.
 */
export class Simulation {
  readonly #seed: number;
  readonly #life: Life;

  constructor({ seed, trace }: SimulationOptions) {
    this.#seed = seed;
    this.#life = new Life(Random.of(seed), trace);
  }

  get tally(): Tally {
    return this.#life.tally;
  }

  /** Runs these steps, then reopens the log once more. Throws a {@link Violation} when a promise was broken. */
  async run(steps: readonly number[]): Promise<void> {
    try {
      await reopen(this.#life, 'process');
      for (const step of steps) await this.#step(step);
      this.#life.use(Random.of(this.#seed, 0xffff));
      await this.#crashAndReopen();
    } finally {
      this.#life.end();
    }
  }

  async #step(number: number): Promise<void> {
    const life = this.#life;
    life.use(Random.of(this.#seed, number));
    const { disk, random } = life;
    const faults = drawFaults(random);
    disk.quotaBytes = random.oneIn(12) ? disk.usedBytes() + random.below(30_000) : Number.POSITIVE_INFINITY;
    life.trace?.(`step ${number} ${JSON.stringify(faults)} quota ${disk.quotaBytes}`);
    disk.arm(faults);
    for (let actions = random.between(1, 8); actions > 0 && !life.down; actions--) {
      await this.#perform(random.weighted(CHOICES), faults);
    }
    if (life.down || faults.crashAt !== undefined) return this.#crashAndReopen();
    if (random.oneIn(8)) await this.#closeAndReopen();
  }

  async #perform(operation: Operation, faults: Faults): Promise<void> {
    const life = this.#life;
    life.doing = operation.name;
    life.trace?.(`  ${operation.name}`);
    life.tally.performed(operation.name);
    try {
      await operation.perform(life);
    } catch (error) {
      this.#expect(error, faults);
    }
    life.collect();
  }

  /** Errors that are answers. Anything else is a fault of the log. */
  #expect(error: unknown, faults: Faults): void {
    if (error instanceof Violation) throw error;
    const { disk, model, sequencer, trace } = this.#life;
    if (disk.crashed) return;
    const { code } = error as NodeJS.ErrnoException;
    trace?.(`    -> ${code} ${(error as Error).message}`);
    // A compaction wraps what it met; so does whoever asks the actor for something.
    const full = disk.quotaBytes < Number.POSITIVE_INFINITY || faults.errno === 'ENOSPC';
    // Nothing was written, and nothing has changed.
    if (code === 'ERR_WAL_NO_SPACE' && full && !sequencer.failed) return model.refused();
    if ((code === 'ERR_WAL_NO_SPACE' || code === 'ENOSPC') && full) return;
    if (isInjected(error, faults) || (sequencer.failed && mayFail(faults))) return;
    throw error;
  }

  async #closeAndReopen(): Promise<void> {
    const life = this.#life;
    const { disk, model, sequencer } = life;
    life.doing = 'close';
    life.trace?.('  close');
    disk.arm();
    // Without a segment of its own there was nothing to close; the tail found at open may have stayed for want of space,
    // as may a segment that grows.
    const sealed = life.control.get(Counter.segmentId) > 0 && disk.quotaBytes === Number.POSITIVE_INFINITY;
    await life.consumers.close();
    sequencer.close();
    life.collect();
    hold(disk.openFiles === 0, 'Bounded', () => `${disk.openFiles} files are open after close`);
    hold(model.disk === model.last, 'Durable', () => 'close left records unsynced');
    const recovered = await reopen(life, life.random.pick(['process', 'power'] as const));
    const { verdict } = recovered.report;
    hold(!sealed || verdict !== 'torn-tail', 'Durable', () => 'a torn tail after a clean close');
  }

  async #crashAndReopen(): Promise<void> {
    const life = this.#life;
    life.tally.crashes++;
    if (life.disk.crashed) life.tally.points.add(life.lastCall);
    else if (life.sequencer.failed) this.#checkPoisoned();
    await reopen(life, life.random.pick(['process', 'power'] as const));
  }

  /** After a failure nothing is acknowledged any more. */
  #checkPoisoned(): void {
    const life = this.#life;
    const { sequencer, model } = life;
    const { os, disk } = model;
    publish(life, life.producers[0]);
    for (const call of [
      () => sequencer.step(),
      () => sequencer.sync(),
      () => sequencer.rotate(),
      () => sequencer.close(),
    ]) {
      try {
        call();
      } catch (error) {
        hold((error as WalError).code === 'ERR_WAL_FAILED', 'Loud', () => `a failed log says ${String(error)}`);
      }
    }
    life.collect();
    hold(model.os === os && model.disk === disk, 'Loud', () => 'a failed log acknowledged something');
  }
}

function mayFail({ failAt, failLookAt, failNext }: Faults): boolean {
  return failAt !== undefined || failLookAt !== undefined || failNext !== undefined;
}

function drawFaults(random: Random): Faults {
  const faults: Faults = {};
  const kind = random.below(24);
  if (kind < 12) faults.crashAt = random.between(1, random.oneIn(3) ? 60 : 15);
  else if (kind < 14) {
    faults.failAt = random.between(1, 15);
    faults.errno = random.oneIn(3) ? 'ENOSPC' : 'EIO';
  } else if (kind < 15) faults.failNext = rareCall(random);
  else if (kind < 16) faults.failLookAt = random.between(1, 30);
  if (random.oneIn(6)) faults.slowOneIn = random.between(3, 30);
  if (random.oneIn(4)) faults.shortOneIn = random.between(2, 8);
  return faults;
}
