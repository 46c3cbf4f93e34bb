import type { ActorKey } from '../../src/format/key-ring.js';
import { inspectPointInTime } from '../../src/recovery/point-in-time.js';
import { inspectLog, type Recovered, type RecoveryMode, unfinishedSpares } from '../../src/recovery/recover.js';
import { endLastSegment } from '../../src/recovery/repair-tail.js';
import { finish } from '../../src/recovery/survey.js';
import { Control } from '../../src/ring/control.js';
import { Member } from '../../src/sequencer/member.js';
import { Sequencer } from '../../src/sequencer/sequencer.js';
import type { Syncer } from '../../src/sequencer/syncer.js';
import { Random } from './random.js';
import { readAll } from './reading.js';
import { idOf } from './records.js';
import { RingProducer, type SentFrame } from './ring-producer.js';
import { type CrashKind, type Faults, SimulatedDisk } from './simulated-disk.js';

export const SEGMENT_BYTES = 32 * 1024;

export interface LogOptions {
  disk?: SimulatedDisk;
  segmentBytes?: number;
  flushIntervalMs?: number;
  mode?: RecoveryMode;
  producers?: number;
  syncer?: Syncer;
  /** Of an encrypted log: as the opening thread hands it to the actor. */
  encryption?: { logId: Uint8Array; key: ActorKey };
}

/** Numbers of records, unique on each disk, so that the same test does the same every time. */
const nextIds = new WeakMap<SimulatedDisk, number>();

function takeId(disk: SimulatedDisk): number {
  const id = nextIds.get(disk) ?? 1;
  nextIds.set(disk, id + 1);
  return id;
}

/** The engine on a simulated disk, opened like the I/O actor opens it, for tests that go step by step. */
export class SimulatedLog {
  readonly disk: SimulatedDisk;
  readonly control = new Control();
  readonly recovered: Recovered;
  readonly sequencer: Sequencer;
  readonly producers: RingProducer[];
  readonly rejected: SentFrame[] = [];
  spareWanted = 0;
  forgotten = 0;
  clock = 1_700_000_000_000;

  constructor(options: LogOptions = {}) {
    const { disk = new SimulatedDisk(new Random(1)), segmentBytes = SEGMENT_BYTES, producers = 1 } = options;
    this.disk = disk;
    const { mode = 'tolerate-torn-tail' } = options;
    this.recovered = mode === 'point-in-time' ? finish(inspectPointInTime(disk)) : inspectLog(disk, mode);
    this.recovered.logId ??= options.encryption?.logId;
    endLastSegment(disk, this.recovered, this.clock);
    const host = {
      now: () => this.clock,
      randomBytes: (count: number) => disk.random.bytes(count),
      wakeOpener: () => undefined,
      wantSpare: () => this.spareWanted++,
      forgotten: () => this.forgotten++,
      rotated: () => undefined,
      syncer: options.syncer,
    };
    const { flushIntervalMs = 0, encryption } = options;
    this.sequencer = new Sequencer(
      disk,
      this.control,
      host,
      { segmentBytes, flushIntervalMs, growAbove: 0, handOverAboveMs: 0, key: encryption?.key },
      this.recovered,
    );
    this.producers = Array.from({ length: producers }, (_, id) => new RingProducer(id, 64 * 1024));
    for (const { id, ring } of this.producers) this.sequencer.addMember(new Member(id, ring, () => undefined));
  }

  /** The next process on what the crash left, after the recovery that comes first. */
  static reopen(disk: SimulatedDisk, kind: CrashKind, options: LogOptions = {}): SimulatedLog {
    disk.restart(kind);
    return new SimulatedLog({ ...options, disk });
  }

  get unfinished(): string[] {
    return unfinishedSpares(this.disk);
  }

  /** Publishes one frame with one append of `count` records. */
  append(level: number, count = 1, producer = this.producers[0]): SentFrame {
    const ids = Array.from({ length: count }, () => takeId(this.disk));
    const frame = producer.publish(ids, [0], level, false);
    if (frame === undefined) throw new Error('The ring is full.');
    return frame;
  }

  /** Appends one frame at a time, each written as a group of its own, until a new segment begins. */
  appendUntilRotated(level: number): void {
    const before = this.disk.list().filter((name) => name.endsWith('.wal')).length;
    while (this.disk.list().filter((name) => name.endsWith('.wal')).length === before) {
      this.append(level, 3);
      this.sequencer.step();
      this.collect();
      if (this.sequencer.failed) throw new Error(this.control.failure());
    }
  }

  collect(): void {
    const nothing = () => undefined;
    const rejected = (frame: SentFrame) => this.rejected.push(frame);
    for (const producer of this.producers) {
      producer.collect({ sequenced: nothing, rejected, written: nothing, synced: nothing });
    }
  }

  watermark(level: number): number {
    return this.control.watermark(level);
  }

  /** Numbers of the records from `low` (or `from`) to `to`, as the package's reader finds them. */
  async read(to = this.watermark(1), from?: number): Promise<(number | undefined)[]> {
    return (await readAll(this.disk, this.sequencer.state.low, to, from)).map(idOf);
  }
}

/** Runs `work`, which a crash or a fault of the disk at call `at` is expected to end. Returns whether it got there. */
export function during(disk: SimulatedDisk, faults: Faults, work: () => void): boolean {
  disk.arm(faults);
  try {
    work();
  } catch {
    // Judged by what is on the disk afterwards.
  }
  const reached = disk.calls >= (faults.crashAt ?? faults.failAt ?? 0);
  disk.arm();
  return reached;
}
