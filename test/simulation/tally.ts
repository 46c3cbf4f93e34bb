import { FaultCounts } from './fault-counts.js';

/** What runs did. */
export class Tally {
  /** The process or the power went, in the middle of something or between two things. */
  crashes = 0;
  /** Of these, in the middle of a recovery or of a repair. */
  crashesInRecovery = 0;
  recoveries = 0;
  /** Records read back by recoveries, and records that consumers were given. */
  records = 0;
  delivered = 0;
  /** Times that damage was put there for good, and what was done about it. */
  damaged = 0;
  salvaged = 0;
  /** Several holes at once that are beyond repair. */
  refused = 0;
  repaired = 0;
  cutBack = 0;
  lost = 0;
  /** Syncs that the syncer made. */
  handedOver = 0;
  /** Compactions that came to their end, and the records that they took out. */
  compactions = 0;
  removed = 0;
  /** What became of transactions of more than one frame, by recoveries: in doubt, committed. */
  inDoubt = 0;
  transactions = 0;
  keyRotations = 0;
  /** The storage calls, by what was going on, in the middle of which it crashed. */
  readonly points = new Set<string>();
  readonly faults = new FaultCounts();
  readonly operations = new Map<string, number>();

  performed(operation: string): void {
    this.operations.set(operation, (this.operations.get(operation) ?? 0) + 1);
  }

  add(other: Tally): void {
    this.crashes += other.crashes;
    this.crashesInRecovery += other.crashesInRecovery;
    this.recoveries += other.recoveries;
    this.records += other.records;
    this.delivered += other.delivered;
    this.damaged += other.damaged;
    this.salvaged += other.salvaged;
    this.refused += other.refused;
    this.repaired += other.repaired;
    this.cutBack += other.cutBack;
    this.lost += other.lost;
    this.handedOver += other.handedOver;
    this.compactions += other.compactions;
    this.removed += other.removed;
    this.inDoubt += other.inDoubt;
    this.transactions += other.transactions;
    this.keyRotations += other.keyRotations;
    for (const point of other.points) this.points.add(point);
    this.faults.addAll(other.faults);
    for (const [name, count] of other.operations) this.operations.set(name, (this.operations.get(name) ?? 0) + count);
  }

  lines(): string[] {
    return [
      `${this.crashes} crashes (${this.crashesInRecovery} of them during recovery or repair) at ${this.points.size} crash points`,
      `${this.recoveries} recoveries, ${this.records} records read back, ${this.delivered} delivered to consumers`,
      `${this.damaged} times damaged for good: ${this.salvaged} times read around it, ${this.repaired} times repaired, ` +
        `${this.cutBack} times cut back (${this.refused} times because nothing else would do); ${this.lost} records lost to it, all of them reported`,
      `${this.transactions} transactions of more than one frame, ${this.inDoubt} times found in doubt; ` +
        `${this.compactions} compactions, ${this.removed} records taken out; ${this.handedOver} syncs handed over, ` +
        `${this.keyRotations} rotations of keys`,
    ];
  }
}
