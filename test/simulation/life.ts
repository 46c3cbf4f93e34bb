import { Level } from '../../src/format/levels.js';
import type { LogState, Positions } from '../../src/format/state.js';
import { withPositions } from '../../src/format/state.js';
import { type Recovered, unfinishedSpares } from '../../src/recovery/recover.js';
import { Control, Counter } from '../../src/ring/control.js';
import { retireSegments } from '../../src/segments/retire.js';
import { Member } from '../../src/sequencer/member.js';
import { Sequencer } from '../../src/sequencer/sequencer.js';
import { Consumers } from './consumers.js';
import { hold, Model } from './model.js';
import type { Random } from './random.js';
import { borrowProducers, type RingProducer, returnProducers } from './ring-producer.js';
import { SimulatedDisk } from './simulated-disk.js';
import { Tally } from './tally.js';

const SEGMENT_BYTES = [16 * 1024, 24 * 1024, 40 * 1024] as const;
export const FLUSH_MS = 1000;

/**
 * A log on a simulated disk as it lives, crashes and is opened again: the real sequencer over real segments, its
 * producers, its consumers, and the model of what it promised. Operations act on it; see `operations/`.
 */
export class Life {
  readonly tally = new Tally();
  readonly model = new Model();
  readonly disk: SimulatedDisk;
  readonly producers: RingProducer[] = borrowProducers();
  readonly segmentBytes: number;
  readonly trace: ((line: string) => void) | undefined;
  /** All choices come from here; replaced at every step. */
  random: Random;
  control = new Control();
  sequencer!: Sequencer;
  consumers!: Consumers;
  /** Milliseconds; moves by itself a little, by waiting, and by slow calls of the disk. */
  clock = 1_700_000_000_000;
  spareWanted = false;
  /** Files that are no part of the log any more. */
  obsolete: string[] = [];
  left: { spares: string[]; unfinished: string[] } = { spares: [], unfinished: [] };
  /** What is going on, for the points and the trace. */
  doing = 'start';
  /** The storage call that is under way, by what is going on. */
  lastCall = '';
  #nextId = 1;
  #syncs = 0;
  /** When the oldest record came that may be unsynced. */
  #unsyncedSince: number | undefined;

  constructor(random: Random, trace?: (line: string) => void) {
    this.trace = trace;
    this.random = random;
    this.segmentBytes = random.pick(SEGMENT_BYTES);
    this.disk = new SimulatedDisk(random);
    this.disk.delay = (ms) => {
      this.clock += ms;
    };
    this.disk.observe = (call, name) => {
      this.lastCall = `${this.doing}>${call} ${kindOfFile(name)}`;
      this.trace?.(`    ${this.disk.calls} ${call} ${name}`);
    };
  }

  use(random: Random): void {
    this.random = random;
    this.disk.random = random;
  }

  /** It has crashed or failed: nothing more can be done but to open it anew. */
  get down(): boolean {
    return this.disk.crashed || this.sequencer.failed;
  }

  newId(): number {
    return this.#nextId++;
  }

  watermark(level: number): number {
    return this.control.watermark(level);
  }

  /** The log is opened, as the I/O actor and the coordinator do it. */
  start(recovered: Recovered): void {
    this.control = new Control();
    this.spareWanted = false;
    this.obsolete = [...recovered.obsolete];
    this.#syncs = 0;
    this.#unsyncedSince = undefined;
    this.left = { spares: recovered.spares, unfinished: unfinishedSpares(this.disk) };
    const host = {
      now: () => this.clock++,
      randomBytes: (count: number) => this.random.bytes(count),
      wakeOpener: () => undefined,
      wantSpare: () => {
        this.spareWanted = true;
      },
      forgotten: () => undefined,
      rotated: () => undefined,
    };
    const options = { segmentBytes: this.segmentBytes, flushIntervalMs: FLUSH_MS, growAbove: 0 };
    this.sequencer = new Sequencer(this.disk, this.control, host, options, recovered);
    for (const producer of this.producers) {
      producer.reset();
      this.sequencer.addMember(new Member(producer.id, producer.ring, () => undefined));
    }
    this.consumers = new Consumers(this);
    this.collect();
  }

  /** One turn of the actor. */
  step(): boolean {
    const due = this.#unsyncedSince !== undefined && this.clock - this.#unsyncedSince >= FLUSH_MS;
    const written = this.watermark(Level.Os);
    const before = this.watermark(Level.Disk);
    const worked = this.sequencer.step();
    const synced = this.watermark(Level.Disk);
    hold(!due || this.down || synced >= written, 'Durable', () => {
      return `LSN ${written} stays unsynced for longer than ${FLUSH_MS} ms; the disk has ${synced}`;
    });
    this.#noteUnsynced(before);
    return worked;
  }

  /** The disk's watermark was at `before`. */
  #noteUnsynced(before: number): void {
    const [os, disk] = [this.watermark(Level.Os), this.watermark(Level.Disk)];
    if (os === disk) this.#unsyncedSince = undefined;
    else if (disk > before || this.#unsyncedSince === undefined) this.#unsyncedSince = this.clock;
  }

  /** A change of the state that is durable when it is acknowledged. Cut short, it may be there afterwards, or not. */
  changeState(change: (state: LogState) => LogState): void {
    const { model, sequencer } = this;
    sequencer.updateState((state) => {
      model.attempted = change(state);
      return model.attempted;
    });
    model.changed(sequencer.state, true);
  }

  /** A change of positions, which is handed to the kernel when it is acknowledged. */
  notePositions(positions: Positions): void {
    const { model, sequencer } = this;
    model.attempted = withPositions(sequencer.state, positions);
    sequencer.notePositions(positions);
    // A sync within it came before the positions were written.
    this.#noteSyncs();
    model.changed(sequencer.state, false);
  }

  /** Removes files that are no part of the log, or makes spares of them. */
  retire(): void {
    if (this.obsolete.length === 0) return;
    this.doing = 'retire';
    // Nobody may be reading a file that is written over.
    const recycle = this.consumers.reading > 0 ? 0 : this.random.below(3);
    const { spares } = retireSegments(this.disk, this.obsolete, recycle, this.segmentBytes);
    this.obsolete = [];
    for (const spare of spares) this.sequencer.addSpare(spare);
  }

  /** Takes in what the log acknowledged. */
  collect(): void {
    const { model } = this;
    const { os, disk } = model;
    for (const producer of this.producers) producer.collect(model);
    hold(this.watermark(Level.Memory) === model.last, 'Forward', () => 'the memory watermark is off');
    for (const [level, before, acknowledged] of [
      [Level.Os, os, model.os],
      [Level.Disk, disk, model.disk],
    ] as const) {
      const mark = this.watermark(level);
      hold(mark >= before, 'Forward', () => `watermark ${level} went back from ${before} to ${mark}`);
      hold(mark >= acknowledged, 'Forward', () => `LSN ${acknowledged} was acknowledged above watermark ${mark}`);
    }
    model.os = this.watermark(Level.Os);
    model.disk = this.watermark(Level.Disk);
    hold(model.disk <= model.os && model.os <= model.last, 'Forward', () => 'the watermarks are out of order');
    this.#noteUnsynced(disk);
    this.#noteSyncs();
    const most = 1 + this.consumers.reading;
    hold(this.down || this.disk.openFiles <= most, 'Bounded', () => `${this.disk.openFiles} files are open`);
  }

  end(): void {
    returnProducers(this.producers);
    this.tally.faults.addAll(this.disk.counts);
  }

  #noteSyncs(): void {
    const syncs = this.control.get(Counter.syncs);
    if (syncs > this.#syncs) this.model.allSynced();
    this.#syncs = syncs;
  }
}

function kindOfFile(name: string): string {
  return name.replace(/[0-9a-f]{12,16}/g, '*').replace(/@\d+/, '');
}
