import { Level } from '../../src/format/levels.js';
import type { LogState, Positions } from '../../src/format/state.js';
import { withPositions } from '../../src/format/state.js';
import { type Recovered, unfinishedSpares } from '../../src/recovery/recover.js';
import { Control, Counter } from '../../src/ring/control.js';
import { retireSegments } from '../../src/segments/retire.js';
import { Member } from '../../src/sequencer/member.js';
import { Sequencer } from '../../src/sequencer/sequencer.js';
import { Consumers } from './consumers.js';
import { LogKeys } from './log-keys.js';
import { hold, Model } from './model.js';
import type { Random } from './random.js';
import { FIRST_SHARED } from './records.js';
import { borrowProducers, type RingProducer, returnProducers } from './ring-producer.js';
import { SimulatedDisk } from './simulated-disk.js';
import { SimulatedSyncer } from './simulated-syncer.js';
import { Tally } from './tally.js';
import { LifeTransactions } from './transactions.js';

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
  readonly keys: LogKeys;
  /** Undefined: the actor makes every sync itself. */
  readonly syncer: SimulatedSyncer | undefined;
  readonly trace: ((line: string) => void) | undefined;
  /** All choices come from here; replaced at every step. */
  random: Random;
  control = new Control();
  sequencer!: Sequencer;
  consumers!: Consumers;
  transactions!: LifeTransactions;
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
  /** Whether the files that a compaction put in place will stay there, only the next recovery tells. */
  unsettled = false;
  /** A compaction is under way: it may be reading any sealed segment. */
  compacting = false;
  #nextId = FIRST_SHARED;
  #syncs = 0;
  /** Of these, those that the syncer made since this was looked at last. */
  #handedOver = 0;
  /** When the oldest record came that may be unsynced. */
  #unsyncedSince: number | undefined;

  constructor(random: Random, trace?: (line: string) => void) {
    this.trace = trace;
    this.random = random;
    this.segmentBytes = random.pick(SEGMENT_BYTES);
    this.keys = new LogKeys(random);
    this.disk = new SimulatedDisk(random);
    this.disk.writesThrough = random.oneIn(2);
    this.syncer = random.oneIn(2) ? this.#newSyncer() : undefined;
    this.model.noted = (state) => this.keys.notedIn(state);
    this.disk.delay = (ms) => {
      this.clock += ms;
    };
    this.disk.observe = (call, name) => {
      this.lastCall = `${this.doing}>${call} ${kindOfFile(name)}`;
      this.trace?.(`    ${this.disk.calls} ${call} ${name}`);
    };
  }

  #newSyncer(): SimulatedSyncer {
    const syncer = new SimulatedSyncer(this.disk, () => this.random);
    let newest: LogState | undefined;
    syncer.onBegin = () => {
      newest = this.model.handed.at(-1);
    };
    syncer.onOver = () => {
      this.#handedOver++;
      if (newest !== undefined) this.model.stateSynced(newest);
      this.tally.handedOver++;
    };
    return syncer;
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
  async start(recovered: Recovered): Promise<void> {
    this.keys.restart();
    const logId = recovered.logId ?? this.random.bytes(16);
    this.keys.writeWith(await this.keys.forWriting(logId, recovered.state.encryption), this.random);
    this.#start({ ...recovered, logId });
  }

  #start(recovered: Recovered): void {
    this.control = new Control();
    this.spareWanted = false;
    this.obsolete = [...recovered.obsolete];
    this.#syncs = 0;
    this.#handedOver = 0;
    this.syncer?.reset();
    this.compacting = false;
    this.unsettled = false;
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
      syncer: this.syncer,
    };
    const { segmentBytes } = this;
    const key = this.keys.writing;
    // No time is measured: whether a sync is worth handing over depends on the levels alone.
    const options = { segmentBytes, flushIntervalMs: FLUSH_MS, growAbove: 0, handOverAboveMs: 0, key };
    this.sequencer = new Sequencer(this.disk, this.control, host, options, recovered);
    for (const producer of this.producers) {
      producer.reset();
      this.sequencer.addMember(new Member(producer.id, producer.ring, () => undefined));
    }
    this.consumers = new Consumers(this);
    this.transactions = new LifeTransactions(this);
    this.collect();
  }

  /** One turn of the actor. */
  step(): boolean {
    const due = this.#unsyncedSince !== undefined && this.clock - this.#unsyncedSince >= FLUSH_MS;
    const written = this.watermark(Level.Os);
    const before = this.watermark(Level.Disk);
    const worked = this.sequencer.step();
    const synced = this.watermark(Level.Disk);
    // One that is under way covers what is due, and what came after it began is not.
    const onTime = synced >= written || (this.syncer !== undefined && (this.syncer.busy || synced > before));
    hold(!due || this.down || onTime, 'Durable', () => {
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

  /** Everything that was published has its place; whoever takes the next step knows which. */
  drain(): void {
    while (this.step());
    this.collect();
  }

  /** The log takes a step that changes the state, to one of `candidates`. It may be there afterwards if it was cut short. */
  attempt<T>(candidates: LogState[], durable: boolean, change: () => T): T {
    const { model, sequencer } = this;
    model.attempted = candidates;
    const result = change();
    // A sync within it came before what was only handed over.
    this.#noteSyncs();
    model.changed(sequencer.state, durable);
    return result;
  }

  /** A change of the state that is durable when it is acknowledged. */
  changeState(change: (state: LogState) => LogState): LogState {
    const { sequencer } = this;
    return this.attempt([change(sequencer.state)], true, () => sequencer.updateState(change));
  }

  /** A compaction is about to take effect, as {@link Sequencer.noteCompaction} makes it known. */
  noteCompaction(compacted: number, deletesGone: number): LogState {
    const { sequencer } = this;
    const { state } = sequencer;
    const noted = { ...state, compacted: Math.max(state.compacted ?? 0, compacted) };
    if (deletesGone > 0) noted.deletesGone = Math.max(state.deletesGone ?? 0, deletesGone);
    return this.attempt([noted], true, () => sequencer.noteCompaction(compacted, deletesGone));
  }

  /** A change of positions, which is handed to the kernel when it is acknowledged. */
  notePositions(positions: Positions): void {
    const { sequencer } = this;
    this.attempt([withPositions(sequencer.state, positions)], false, () => sequencer.notePositions(positions));
  }

  /** Removes files that are no part of the log, or makes spares of them. */
  retire(): void {
    if (this.obsolete.length === 0) return;
    this.doing = 'retire';
    // Nobody may be reading a file that is written over.
    const recycle = this.consumers.reading > 0 || this.compacting ? 0 : this.random.below(3);
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
    // What the actor syncs is all that there is; of what the syncer did it was told already.
    if (syncs - this.#syncs > this.#handedOver) this.model.stateSynced();
    this.#syncs = syncs;
    this.#handedOver = 0;
  }
}

function kindOfFile(name: string): string {
  return name.replace(/[0-9a-f]{12,16}/g, '*').replace(/@\d+/, '');
}
