import { WalError } from '../../src/errors.js';
import { FrameType } from '../../src/format/frame.js';
import { Level } from '../../src/format/levels.js';
import { type LogState, withPositions } from '../../src/format/state.js';
import { inspectLog, type Recovered, unfinishedSpares } from '../../src/recovery/recover.js';
import { endLastSegment } from '../../src/recovery/repair-tail.js';
import { Control, Counter } from '../../src/ring/control.js';
import { adoptSpare, prepareSpare, type Spare } from '../../src/segments/prepare.js';
import { retireSegments } from '../../src/segments/retire.js';
import { Member } from '../../src/sequencer/member.js';
import { Sequencer } from '../../src/sequencer/sequencer.js';
import { hold, Model, Violation } from './model.js';
import { Random } from './random.js';
import { framesOf, readAll } from './reading.js';
import { RingProducer } from './ring-producer.js';
import { type CrashKind, type Faults, SimulatedDisk } from './simulated-disk.js';

const PRODUCERS = 3;
const RING_BYTES = 32 * 1024;
const SEGMENT_BYTES = [16 * 1024, 24 * 1024, 40 * 1024] as const;
const FLUSH_MS = 1000;

type Action =
  | 'append'
  | 'step'
  | 'sync'
  | 'rotate'
  | 'checkpoint'
  | 'subscribe'
  | 'positions'
  | 'cleanup'
  | 'truncate'
  | 'spare'
  | 'read'
  | 'idle'
  | 'wait';

const ACTIONS: readonly (readonly [Action, number])[] = [
  ['append', 14],
  ['step', 8],
  ['sync', 3],
  ['rotate', 2],
  ['checkpoint', 3],
  ['subscribe', 1],
  ['positions', 2],
  ['idle', 2],
  ['truncate', 1],
  ['cleanup', 3],
  ['spare', 3],
  ['read', 1],
  ['wait', 2],
];

export interface SimulationOptions {
  seed: number;
  /** Gets a line for each thing that happens. */
  trace?: (line: string) => void;
}

/** What a run did. `points`: the storage calls, by what was going on, in the middle of which it crashed. */
export interface Tally {
  crashes: number;
  recoveries: number;
  records: number;
  points: Set<string>;
}

/**
 * One life of one log on one disk: the real sequencer, segments, recovery and reader; producers, faults, crashes and
 * the judgement of what came back. Each step draws from a generator of its own, so that a step may be left out without
 * changing the others.
 */
export class Simulation {
  readonly tally: Tally = { crashes: 0, recoveries: 0, records: 0, points: new Set() };
  readonly #seed: number;
  readonly #trace: ((line: string) => void) | undefined;
  readonly #disk: SimulatedDisk;
  readonly #model = new Model();
  readonly #producers: RingProducer[];
  readonly #segmentBytes: number;
  #random: Random;
  #control = new Control();
  #sequencer!: Sequencer;
  #clock = 1_700_000_000_000;
  #nextId = 1;
  #spareWanted = false;
  #obsolete: string[] = [];
  #left: { spares: string[]; unfinished: string[] } = { spares: [], unfinished: [] };
  #syncs = 0;
  /** What is going on, for the points and the trace. */
  #doing = 'start';
  #lastCall = '';

  constructor({ seed, trace }: SimulationOptions) {
    this.#seed = seed;
    this.#trace = trace;
    this.#random = Random.of(seed);
    this.#segmentBytes = this.#random.pick(SEGMENT_BYTES);
    this.#disk = new SimulatedDisk(this.#random);
    this.#producers = borrowProducers();
    this.#disk.observe = (call, name) => {
      this.#lastCall = `${this.#doing}>${call} ${kindOfFile(name)}`;
      this.#trace?.(`    ${this.#disk.calls} ${call} ${name}`);
    };
  }

  /** Runs these steps, then reopens the log once more. Throws a {@link Violation} when a promise was broken. */
  async run(steps: readonly number[]): Promise<void> {
    try {
      await this.#reopen('process', this.#random);
      for (const step of steps) await this.#step(step);
      this.#use(Random.of(this.#seed, 0xffff));
      await this.#crashAndReopen();
    } finally {
      returnProducers(this.#producers);
    }
  }

  #use(random: Random): void {
    this.#random = random;
    this.#disk.random = random;
  }

  async #step(number: number): Promise<void> {
    this.#use(Random.of(this.#seed, number));
    const random = this.#random;
    const faults = this.#drawFaults();
    this.#disk.quotaBytes = random.oneIn(12) ? this.#disk.usedBytes() + random.below(30_000) : Number.POSITIVE_INFINITY;
    this.#trace?.(`step ${number} ${JSON.stringify(faults)} quota ${this.#disk.quotaBytes}`);
    this.#disk.arm(faults);
    for (let actions = random.between(1, 8); actions > 0 && !this.#down; actions--) {
      await this.#act(random.weighted(ACTIONS), faults);
    }
    if (this.#down || faults.crashAt !== undefined) return this.#crashAndReopen();
    if (random.oneIn(8)) await this.#closeAndReopen();
  }

  get #down(): boolean {
    return this.#disk.crashed || this.#sequencer.failed;
  }

  #drawFaults(): Faults {
    const random = this.#random;
    if (random.oneIn(2)) return { crashAt: random.between(1, random.oneIn(3) ? 60 : 15) };
    if (random.oneIn(6)) return { failAt: random.between(1, 15), errno: random.oneIn(3) ? 'ENOSPC' : 'EIO' };
    return {};
  }

  async #act(action: Action, faults: Faults): Promise<void> {
    this.#doing = action;
    this.#trace?.(`  ${action}`);
    try {
      await this.#perform(action);
    } catch (error) {
      this.#expectError(error, faults);
    }
    this.#collect();
  }

  /** Errors that are answers. Anything else is a fault of the log. */
  #expectError(error: unknown, faults: Faults): void {
    if (error instanceof Violation) throw error;
    if (this.#disk.crashed) return;
    const { code } = error as NodeJS.ErrnoException;
    this.#trace?.(`    -> ${code} ${(error as Error).message}`);
    const full = this.#disk.quotaBytes < Number.POSITIVE_INFINITY || faults.errno === 'ENOSPC';
    // Nothing was written, and nothing has changed.
    if (code === 'ERR_WAL_NO_SPACE' && full && !this.#sequencer.failed) return this.#model.refused();
    if ((code === 'ERR_WAL_NO_SPACE' || code === 'ENOSPC') && full) return;
    if (faults.failAt !== undefined && (this.#sequencer.failed || code === faults.errno)) return;
    throw error;
  }

  async #perform(action: Action): Promise<void> {
    const random = this.#random;
    const sequencer = this.#sequencer;
    switch (action) {
      case 'append':
        for (let frames = random.between(1, 5); frames > 0; frames--) this.#publish(random.pick(this.#producers));
        if (random.oneIn(2)) sequencer.step();
        return;
      case 'step':
        while (sequencer.step() && !this.#down && !random.oneIn(4));
        return;
      case 'sync':
        return sequencer.sync();
      case 'rotate':
        return sequencer.rotate();
      case 'checkpoint':
        return this.#changeState((state, os) => ({
          ...state,
          checkpoint: Math.max(state.checkpoint, random.between(0, os)),
        }));
      case 'subscribe':
        return this.#changeState((state, os) => ({ ...state, subscriptions: this.#subscriptions(state, os) }));
      case 'positions':
        return this.#notePositions();
      case 'idle':
        return sequencer.idle();
      case 'truncate':
        return this.#truncate();
      case 'cleanup':
        return this.#cleanup();
      case 'spare':
        return this.#provideSpare();
      case 'read':
        return this.#read();
      case 'wait':
        this.#clock += random.between(1, 2 * FLUSH_MS);
        sequencer.step();
        return;
    }
  }

  #subscriptions(state: LogState, os: number): LogState['subscriptions'] {
    const random = this.#random;
    const name = random.pick(['a', 'b', 'a longer name']);
    if (random.oneIn(3)) return Object.fromEntries(Object.entries(state.subscriptions).filter(([key]) => key !== name));
    const acknowledged = Math.max(state.subscriptions[name]?.acknowledged ?? 0, random.between(0, os));
    return { ...state.subscriptions, [name]: { acknowledged, level: 'disk' } };
  }

  #notePositions(): void {
    const random = this.#random;
    const { state } = this.#sequencer;
    const name = random.pick([...Object.keys(state.subscriptions), 'c']);
    const known = state.subscriptions[name];
    const acknowledged = Math.max(known?.acknowledged ?? 0, random.between(0, this.#control.watermark(Level.Os)));
    const change = known === undefined ? { acknowledged, level: 'os' as const } : random.oneIn(4) ? null : acknowledged;
    const positions = { [name]: change };
    this.#model.attempted = withPositions(state, positions);
    this.#sequencer.notePositions(positions);
    this.#model.changed(this.#sequencer.state, false);
  }

  /** The log is cut off in the middle, above all that anybody was told to be rid of. */
  #truncate(): void {
    const { state } = this.#sequencer;
    const least = Math.max(state.checkpoint, state.low - 1);
    this.#sequencer.sync();
    this.#collect();
    const last = this.#model.last;
    if (last <= least) return;
    const end = this.#random.between(least, last);
    this.#trace?.(`    after ${end} of ${last}`);
    if (end === last) return;
    this.#model.attemptedEnd = end;
    this.#model.attempted = clamped(state, end);
    const names = this.#sequencer.truncateAfter(end).map((segment) => segment.name);
    this.#model.recovered(end, this.#sequencer.state);
    this.#obsolete.push(...names);
  }

  #changeState(change: (state: LogState, os: number) => LogState): void {
    const durable = this.#control.watermark(Level.Disk);
    this.#attempt((state) => change(state, durable));
  }

  /** A change of state that is cut short may be there afterwards, or not. */
  #attempt(change: (state: LogState) => LogState): void {
    const model = this.#model;
    this.#sequencer.updateState((state) => {
      model.attempted = change(state);
      return model.attempted;
    });
    model.changed(this.#sequencer.state, true);
  }

  #cleanup(): void {
    const { state } = this.#sequencer;
    const limit = keepFrom(state);
    const before = new Set(this.#disk.fileNames());
    this.#model.cleaning = true;
    const gone = this.#sequencer.cleanup();
    this.#model.cleaning = false;
    if (gone.length > 0) this.#model.changed(this.#sequencer.state, true);
    for (const { lastLsn, name } of gone) {
      hold(lastLsn < limit, 'Durable', () => `${name} up to LSN ${lastLsn} was cleaned up above ${limit}`);
      hold(before.has(name), 'Prefix', () => `${name} was cleaned up twice`);
    }
    this.#obsolete.push(...gone.map((segment) => segment.name));
    if (this.#obsolete.length === 0) return;
    this.#doing = 'retire';
    const recycle = this.#random.below(3);
    const { spares } = retireSegments(this.#disk, this.#obsolete, recycle, this.#segmentBytes);
    this.#obsolete = [];
    for (const spare of spares) this.#sequencer.addSpare(spare);
  }

  #provideSpare(): void {
    if (!this.#spareWanted) return;
    this.#spareWanted = false;
    let spare: Spare | undefined;
    try {
      const { spares, unfinished } = this.#left;
      this.#left = { spares: [], unfinished: [] };
      spare = adoptSpare(this.#disk, spares, unfinished, this.#segmentBytes);
      spare ??= prepareSpare(this.#disk, this.#segmentBytes);
    } finally {
      if (!this.#disk.crashed) this.#sequencer.addSpare(spare);
    }
  }

  #publish(producer: RingProducer): void {
    const random = this.#random;
    const ids: number[] = [];
    const appends: number[] = [];
    for (let i = random.between(1, 3); i > 0; i--) {
      appends.push(ids.length);
      for (let records = random.oneIn(3) ? random.between(2, 6) : 1; records > 0; records--) ids.push(this.#nextId++);
    }
    const level = random.pick([Level.Memory, Level.Os, Level.Disk]);
    if (producer.publish(ids, appends, level, random.oneIn(2)) === undefined) this.#sequencer.step();
  }

  /** Takes in what the log acknowledged. */
  #collect(): void {
    const model = this.#model;
    const { os, disk } = model;
    for (const producer of this.#producers) producer.collect(model);
    hold(this.#control.watermark(Level.Memory) === model.last, 'Forward', () => 'the memory watermark is off');
    for (const [level, before, acknowledged] of [
      [Level.Os, os, model.os],
      [Level.Disk, disk, model.disk],
    ] as const) {
      const mark = this.#control.watermark(level);
      hold(mark >= before, 'Forward', () => `watermark ${level} went back from ${before} to ${mark}`);
      hold(mark >= acknowledged, 'Forward', () => `LSN ${acknowledged} was acknowledged above watermark ${mark}`);
    }
    model.os = this.#control.watermark(Level.Os);
    model.disk = this.#control.watermark(Level.Disk);
    hold(model.disk <= model.os && model.os <= model.last, 'Forward', () => 'the watermarks are out of order');
    const syncs = this.#control.get(Counter.syncs);
    if (syncs > this.#syncs && this.#doing !== 'positions') model.allSynced();
    this.#syncs = syncs;
    hold(this.#down || this.#disk.openFiles <= 1, 'Bounded', () => `${this.#disk.openFiles} files are open`);
  }

  async #read(): Promise<void> {
    const to = this.#control.watermark(Level.Os);
    const { low } = this.#sequencer.state;
    if (to >= low) this.#model.checkRecords(await readAll(this.#disk, low, to), low, to);
  }

  async #closeAndReopen(): Promise<void> {
    this.#doing = 'close';
    this.#trace?.('  close');
    this.#disk.arm();
    // Without a segment of its own there was nothing to close; the tail found at open may have stayed for want of space,
    // as may a segment that grows.
    const sealed = this.#control.get(Counter.segmentId) > 0 && this.#disk.quotaBytes === Number.POSITIVE_INFINITY;
    this.#sequencer.close();
    this.#collect();
    hold(this.#disk.openFiles === 0, 'Bounded', () => `${this.#disk.openFiles} files are open after close`);
    hold(this.#model.disk === this.#model.last, 'Durable', () => 'close left records unsynced');
    const recovered = await this.#reopen(this.#random.pick(['process', 'power'] as const), this.#random);
    hold(!sealed || recovered.report.verdict === 'clean', 'Durable', () => 'a torn tail after a clean close');
  }

  async #crashAndReopen(): Promise<void> {
    if (this.#disk.crashed) this.tally.points.add(this.#lastCall);
    else if (this.#sequencer.failed) this.#checkPoisoned();
    await this.#reopen(this.#random.pick(['process', 'power'] as const), this.#random);
  }

  /** After a failure nothing is acknowledged any more. */
  #checkPoisoned(): void {
    const { os, disk } = this.#model;
    this.#publish(this.#producers[0]);
    for (const call of [
      () => this.#sequencer.step(),
      () => this.#sequencer.sync(),
      () => this.#sequencer.rotate(),
      () => this.#sequencer.close(),
    ]) {
      try {
        call();
      } catch (error) {
        hold((error as WalError).code === 'ERR_WAL_FAILED', 'Loud', () => `a failed log says ${String(error)}`);
      }
    }
    this.#collect();
    hold(this.#model.os === os && this.#model.disk === disk, 'Loud', () => 'a failed log acknowledged something');
  }

  /** Crashes by `kind`, and recovers until a recovery comes through. */
  async #reopen(kind: CrashKind, random: Random): Promise<Recovered> {
    const model = this.#model;
    let promised = model.os;
    let lost = false;
    for (const producer of this.#producers) producer.collectInFlight(model);
    for (let attempt = 0; ; attempt++) {
      lost ||= kind === 'power' || this.#disk.syncFailed;
      if (lost) promised = model.disk;
      this.#trace?.(`  ${kind} crash, recovery ${attempt}, promised ${promised}`);
      this.tally.crashes++;
      this.#disk.restart(kind);
      this.#disk.quotaBytes = random.oneIn(10) ? this.#disk.usedBytes() + random.below(3000) : Number.POSITIVE_INFINITY;
      if (attempt === 0 && random.oneIn(8)) await this.#damage();
      const faults = attempt < 4 ? this.#recoveryFaults() : {};
      this.#disk.arm(faults);
      this.#doing = 'recovery';
      try {
        const recovered = inspectLog(this.#disk, 'tolerate-torn-tail');
        endLastSegment(this.#disk, recovered, this.#clock);
        this.#disk.arm();
        await this.#judge(recovered, promised, lost);
        this.#start(recovered);
        return recovered;
      } catch (error) {
        this.#trace?.(`    -> ${String(error)}`);
        if (this.#disk.crashed) this.tally.points.add(this.#lastCall);
        else if (faults.failAt === undefined || (error as NodeJS.ErrnoException).code !== faults.errno) throw error;
        kind = random.pick(['process', 'power'] as const);
      }
    }
  }

  #recoveryFaults(): Faults {
    const random = this.#random;
    if (random.oneIn(3)) return { crashAt: random.between(1, 10) };
    if (random.oneIn(12)) return { failAt: random.between(1, 10), errno: random.oneIn(3) ? 'ENOSPC' : 'EIO' };
    return {};
  }

  async #judge(recovered: Recovered, promised: number, lost: boolean): Promise<void> {
    const model = this.#model;
    const { end, state } = recovered;
    model.checkEnd(end.lastLsn, promised);
    model.checkState(state, lost);
    if (end.lastLsn >= state.low) {
      const records = await readAll(this.#disk, state.low, end.lastLsn);
      model.checkRecords(records, state.low, end.lastLsn);
      this.tally.records += records.length;
    }
    if (state.low > 1) await this.#checkCleaned(state.low, end.lastLsn);
    model.recovered(end.lastLsn, state);
    this.tally.recoveries++;
  }

  async #checkCleaned(low: number, last: number): Promise<void> {
    try {
      await readAll(this.#disk, low, last, low - 1);
    } catch (error) {
      if (error instanceof WalError && error.code === 'ERR_WAL_TRUNCATED') return;
      throw error;
    }
    throw new Violation('Buried', `LSN ${low - 1} was cleaned up and can be read`);
  }

  #start(recovered: Recovered): void {
    this.#control = new Control();
    this.#spareWanted = false;
    this.#obsolete = [...recovered.obsolete];
    this.#syncs = 0;
    this.#left = { spares: recovered.spares, unfinished: unfinishedSpares(this.#disk) };
    const host = {
      now: () => this.#clock++,
      randomBytes: (count: number) => this.#random.bytes(count),
      wakeOpener: () => undefined,
      wantSpare: () => {
        this.#spareWanted = true;
      },
      forgotten: () => undefined,
      rotated: () => undefined,
    };
    const options = { segmentBytes: this.#segmentBytes, flushIntervalMs: FLUSH_MS, growAbove: 0 };
    this.#sequencer = new Sequencer(this.#disk, this.#control, host, options, recovered);
    for (const producer of this.#producers) {
      producer.reset();
      this.#sequencer.addMember(new Member(producer.id, producer.ring, () => undefined));
    }
    this.#collect();
  }

  /** Flips one bit of a segment, looks whether anybody notices, and flips it back. */
  async #damage(): Promise<void> {
    const random = this.#random;
    const found = inspectLog(this.#disk, 'tolerate-torn-tail');
    if (found.segments.length === 0) return;
    const last = found.segments[found.segments.length - 1];
    const { name } = random.oneIn(2) ? last : random.pick(found.segments);
    const frames = framesOf(this.#disk, last.name);
    const position = random.below(framesOf(this.#disk, name).end);
    const bit = random.below(8);
    this.#trace?.(`    flip bit ${bit} of byte ${position} of ${name}`);
    this.#disk.flip(name, position, bit);
    try {
      const damaged = inspectLog(this.#disk, 'tolerate-torn-tail');
      const end = damaged.end.lastLsn;
      const proven = Math.max(frames.vouchedLsn, frames.stamp, last.firstLsn - 1);
      hold(end >= proven, 'Loud', () => `a flipped bit cut the log at ${end}, and ${proven} had been promised`);
      const unvouched = frames.unvouchedTypes.some((type) => type === FrameType.State || type === FrameType.Positions);
      const same = JSON.stringify(damaged.state) === JSON.stringify(found.state);
      hold(same || unvouched, 'Loud', () => 'a flipped bit changed the state');
      const { low } = damaged.state;
      if (end >= low) this.#model.checkRecords(await readAll(this.#disk, low, end), low, end);
    } catch (error) {
      if (!(error instanceof WalError) || error.code !== 'ERR_WAL_CORRUPT') throw error;
    } finally {
      this.#disk.flip(name, position, bit);
    }
  }
}

/** The state of a log that is cut off after `end`. */
function clamped(state: LogState, end: number): LogState {
  const subscriptions = Object.entries(state.subscriptions).map(([name, { acknowledged, level }]) => [
    name,
    { acknowledged: Math.min(acknowledged, end), level },
  ]);
  return { ...state, subscriptions: Object.fromEntries(subscriptions) };
}

/** Rings are shared memory, which is slow to get: runs that follow one another use the same. */
const idle: RingProducer[][] = [];

function borrowProducers(): RingProducer[] {
  const producers = idle.pop();
  // What a run left in flight is no other run's business.
  for (const producer of producers ?? []) producer.reset();
  return producers ?? Array.from({ length: PRODUCERS }, (_, id) => new RingProducer(id, RING_BYTES));
}

function returnProducers(producers: RingProducer[]): void {
  idle.push(producers);
}

function kindOfFile(name: string): string {
  return name.replace(/[0-9a-f]{12,16}/g, '*').replace(/@\d+/, '');
}

/** What clean-up must keep: everything from here on. */
function keepFrom(state: LogState): number {
  return Math.min(state.checkpoint, ...Object.values(state.subscriptions).map(({ acknowledged }) => acknowledged)) + 1;
}
