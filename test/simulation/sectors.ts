import type { FaultCounts } from './fault-counts.js';
import type { Random } from './random.js';

/** What a disk writes at once. */
export const SECTOR_BYTES = 512;

/** What a sync that is under way has to bring to the platter at least. */
interface Snapshot {
  sectors: Map<number, Buffer>;
  size: number;
}

/**
 * The bytes of one file, twice: as programs see them (the page cache) and as they are on the platter. A sector that was
 * written and not synced differs between the two until it is flushed, by a sync or at random.
 */
export class Sectors {
  readonly id: number;
  /** Its name of the moment, for traces. */
  label = '';
  #cache: Buffer = Buffer.alloc(0);
  #platter: Buffer = Buffer.alloc(0);
  #size = 0;
  #platterSize = 0;
  readonly #dirty = new Set<number>();
  /** Of syncs under way, what was dirty when they began, and has not reached the platter since. */
  #syncing: Snapshot[] = [];

  constructor(id: number) {
    this.id = id;
  }

  get size(): number {
    return this.#size;
  }

  get unsynced(): boolean {
    return this.#dirty.size > 0 || this.#size !== this.#platterSize;
  }

  read(target: Uint8Array, position: number): number {
    const count = Math.max(0, Math.min(target.byteLength, this.#size - position));
    target.set(this.#cache.subarray(position, position + count));
    return count;
  }

  write(bytes: Uint8Array, position: number): void {
    if (bytes.byteLength === 0) return;
    const end = position + bytes.byteLength;
    this.#reserve(end);
    this.#cache.set(bytes, position);
    this.#size = Math.max(this.#size, end);
    const last = Math.floor((end - 1) / SECTOR_BYTES);
    for (let sector = Math.floor(position / SECTOR_BYTES); sector <= last; sector++) this.#dirty.add(sector);
  }

  truncate(size: number): void {
    this.#reserve(size);
    if (size < this.#size) this.#cache.fill(0, size, this.#size);
    this.#size = size;
  }

  /** Everything reaches the platter. */
  sync(): void {
    for (const sector of this.#dirty) this.#flush(sector);
    this.#dirty.clear();
    this.#settleSize(this.#size);
  }

  /** A sync begins, and others go on writing. Returns what ends it: what was written meanwhile it may have missed. */
  beginSync(): { end: () => void; fail: (random: Random, counts: FaultCounts) => void } {
    const sectors = new Map<number, Buffer>();
    for (const sector of this.#dirty) sectors.set(sector, Buffer.from(this.#cached(sector)));
    const snapshot = { sectors, size: this.#size };
    this.#syncing.push(snapshot);
    const over = () => {
      this.#syncing = this.#syncing.filter((other) => other !== snapshot);
    };
    return {
      end: () => {
        over();
        for (const [sector, bytes] of sectors) this.#bring(sector, bytes);
        this.#platterSize = Math.min(Math.max(this.#platterSize, snapshot.size), this.#size);
      },
      fail: (random, counts) => {
        over();
        this.failSync(random, counts);
      },
    };
  }

  /** The disk writes some of it back, because it can. */
  writeBack(random: Random, counts: FaultCounts): void {
    for (const sector of this.#dirty) {
      if (random.oneIn(2)) continue;
      counts.add('written back before its sync');
      this.#flush(sector);
      this.#dirty.delete(sector);
    }
  }

  /**
   * A sync fails: some sectors reach the platter, the others never will. The kernel says so this once, and takes all of
   * them for clean from now on. What programs read afterwards is what the platter has, or what they wrote, by filesystem.
   */
  failSync(random: Random, counts: FaultCounts): void {
    const dropped = random.oneIn(2);
    for (const sector of this.#dirty) {
      if (random.oneIn(2)) {
        this.#flush(sector);
        continue;
      }
      counts.add(`failed sync: not on the platter, ${dropped ? 'nor' : 'still'} in the cache`);
      if (dropped) this.#revert(sector);
    }
    this.#dirty.clear();
  }

  /** The power goes: each unsynced sector is kept, lost or torn on its own, and so is the size. */
  losePower(random: Random, counts: FaultCounts): void {
    for (const sector of this.#dirty) {
      const fate = random.below(8);
      if (fate < 3) this.#flush(sector);
      else if (fate === 3) this.#tear(sector, random.between(1, SECTOR_BYTES - 1), random.oneIn(2));
      counts.add(fate < 3 ? 'power: sector kept' : fate === 3 ? 'power: sector torn' : 'power: sector lost');
    }
    this.#dirty.clear();
    this.#syncing = [];
    if (this.#size !== this.#platterSize) {
      const kept = random.oneIn(2);
      counts.add(kept ? 'power: size kept' : 'power: size lost');
      if (kept) this.#settleSize(this.#size);
    }
    this.#size = this.#platterSize;
    this.#reserve(this.#size);
    this.#cache.fill(0, 0);
    this.#platter.copy(this.#cache, 0, 0, this.#size);
  }

  /** Silent damage: other bytes, in the cache and on the platter. */
  overwrite(bytes: Uint8Array, position: number): void {
    this.#cache.set(bytes, position);
    this.#platter.set(bytes, position);
  }

  /** Silent damage: one bit differs, in the cache and on the platter. */
  flip(position: number, bit: number): void {
    this.#cache[position] ^= 1 << bit;
    this.#platter[position] ^= 1 << bit;
  }

  #cached(sector: number): Buffer {
    return this.#cache.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
  }

  /** These bytes, which are older than those in the cache or the same. */
  #bring(sector: number, bytes: Buffer): void {
    if (!this.#dirty.has(sector)) return;
    if (bytes.equals(this.#cached(sector))) this.#dirty.delete(sector);
    bytes.copy(this.#platter, sector * SECTOR_BYTES);
  }

  #flush(sector: number): void {
    for (const { sectors } of this.#syncing) sectors.delete(sector);
    const start = sector * SECTOR_BYTES;
    this.#cache.copy(this.#platter, start, start, start + SECTOR_BYTES);
  }

  #revert(sector: number): void {
    const start = sector * SECTOR_BYTES;
    this.#platter.copy(this.#cache, start, start, start + SECTOR_BYTES);
  }

  #tear(sector: number, at: number, head: boolean): void {
    const start = sector * SECTOR_BYTES;
    const [from, to] = head ? [start, start + at] : [start + at, start + SECTOR_BYTES];
    this.#cache.copy(this.#platter, from, from, to);
  }

  #settleSize(size: number): void {
    // What a file lost and gets back reads as zeros; some of it may have been written back before it grew that far.
    this.#platter.fill(0, size);
    this.#platterSize = size;
  }

  #reserve(size: number): void {
    if (size <= this.#cache.byteLength) return;
    const bytes = Math.max(16 * 1024, this.#cache.byteLength * 2, Math.ceil(size / SECTOR_BYTES) * SECTOR_BYTES);
    this.#cache = grown(this.#cache, bytes);
    this.#platter = grown(this.#platter, bytes);
  }
}

function grown(buffer: Buffer, bytes: number): Buffer {
  const larger = Buffer.alloc(bytes);
  larger.set(buffer);
  return larger;
}
