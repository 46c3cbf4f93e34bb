import type { ReadableFile, ReadableFiles } from '../../src/reader/files.js';
import { segmentIdOf } from '../../src/segments/names.js';
import { readFully, writeFully } from '../../src/storage/fully.js';
import type { Storage, StorageFile } from '../../src/storage/storage.js';
import { FaultCounts, type FaultKind } from './fault-counts.js';
import { type Move, Names } from './names.js';
import type { Random } from './random.js';
import { Sectors } from './sectors.js';

export type Call =
  | 'list'
  | 'open'
  | 'create'
  | 'size'
  | 'read'
  | 'write'
  | 'writeThrough'
  | 'sync'
  | 'truncate'
  | 'close'
  | 'rename'
  | 'remove'
  | 'makeFolder'
  | 'syncFolder'
  | 'freeBytes';

/** `process`: what was handed to the kernel stays. `power`: only what reached the platter does. */
export type CrashKind = 'process' | 'power';

/** Thrown by every call once the machine or the process is gone, until {@link SimulatedDisk.restart}. */
export class CrashError extends Error {
  constructor() {
    super('The simulated process is gone.');
    this.name = 'CrashError';
  }
}

/** Ends a sync that was begun. */
export type PendingSync = () => void;

export interface Faults {
  /** Crash in the middle of this call, counted from 1. */
  crashAt?: number;
  /** Fail this call, counted from 1, if it is one of `failing`. */
  failAt?: number;
  failing?: readonly Call[];
  errno?: 'EIO' | 'ENOSPC';
  /** Fail this one of the calls that only look (open, read, list, …), counted from 1. */
  failLookAt?: number;
  /** Fail the next call of this kind. */
  failNext?: Call;
  /** About one in so many calls takes long. */
  slowOneIn?: number;
  /** About one in so many writes and reads does less than it was asked to, and says so. */
  shortOneIn?: number;
}

/** What a write through takes whole. */
const BLOCK_BYTES = 4096;
/** About one in so many of them is refused, as by a filesystem that has no such way. */
const REFUSED_ONE_IN = 64;

/** A slow call takes up to this long. */
const SLOW_MS = 3000;

/** Calls that change something or can lose something: where a crash or a fault is worth its while. */
const POINTS: ReadonlySet<Call> = new Set([
  'create',
  'write',
  'writeThrough',
  'sync',
  'truncate',
  'rename',
  'remove',
  'makeFolder',
  'syncFolder',
]);

const MIDDLE: Partial<Record<Call, FaultKind>> = {
  sync: 'crash in the middle of a sync',
  writeThrough: 'crash in the middle of a write through',
};

/**
 * A disk in memory that behaves as badly as a disk may. What was written is on the platter only after a sync, or at
 * random before it; names are only durable after a sync of their directory, which the sync of a file does not imply.
 * All of its choices come from `random`, which may be replaced between calls.
 */
export class SimulatedDisk implements Storage {
  random: Random;
  /** Bytes that all files together may take. */
  quotaBytes = Number.POSITIVE_INFINITY;
  /** Whether files that are opened from here on can be written through. */
  writesThrough = false;
  /** Called before each call that counts, with the file's name. */
  observe: ((call: Call, name: string) => void) | undefined;
  /** A sync of a file failed since the last power loss: what programs read may not be what is on the platter. */
  syncFailed = false;
  openFiles = 0;
  /** Called when a call takes long. */
  delay: ((ms: number) => void) | undefined;
  readonly counts = new FaultCounts();
  #faults: Faults = {};
  #calls = 0;
  #looks = 0;
  #crashed = false;
  #generation = 0;
  #nextId = 1;
  readonly #folders = new Map<string, Names>([['', new Names()]]);
  /** Folders whose own name is not durable yet. */
  readonly #newFolders = new Set<string>();
  readonly #handles = new WeakMap<StorageFile, Sectors>();

  constructor(random: Random) {
    this.random = random;
  }

  get crashed(): boolean {
    return this.#crashed;
  }

  /** Calls that count since the last {@link arm}. */
  get calls(): number {
    return this.#calls;
  }

  /** Counts calls from here on, and fails or crashes where `faults` says so. */
  arm(faults: Faults = {}): void {
    this.#faults = faults;
    this.#calls = 0;
    this.#looks = 0;
  }

  /** The process or the machine is gone, now. */
  crash(): void {
    this.#crashed = true;
  }

  /** A new process on what the crash left. */
  restart(kind: CrashKind): void {
    this.#crashed = false;
    this.#generation++;
    this.openFiles = 0;
    this.#faults = {};
    const { counts, random } = this;
    counts.add(kind === 'process' ? 'crash of the process' : 'loss of power');
    if (kind === 'process') return;
    this.syncFailed = false;
    for (const folder of this.#newFolders) {
      const kept = random.oneIn(2);
      counts.add(kept ? 'power: folder kept' : 'power: folder lost');
      if (!kept) this.#folders.delete(folder);
    }
    this.#newFolders.clear();
    for (const names of this.#folders.values()) names.losePower(random, counts);
    for (const names of this.#folders.values()) for (const file of names.files()) file.losePower(random, counts);
  }

  /** Every file's name, its folder's in front. */
  fileNames(): string[] {
    return [...this.#folders].flatMap(([folder, names]) =>
      [...names.entries()].map(([name]) => (folder === '' ? name : `${folder}/${name}`)),
    );
  }

  /** Bytes of all files. */
  usedBytes(): number {
    let bytes = 0;
    for (const names of this.#folders.values()) for (const file of names.files()) bytes += file.size;
    return bytes;
  }

  /** Damages a file behind everybody's back. Twice is none. */
  flip(name: string, position: number, bit: number): void {
    this.counts.add('bit flip');
    this.#find(name).flip(position, bit);
  }

  /** Damages more of it. */
  overwrite(name: string, bytes: Uint8Array, position: number): void {
    this.counts.add('bytes overwritten');
    this.#find(name).overwrite(bytes, position);
  }

  list(folder = ''): string[] {
    this.#enter('list', folder);
    const names = [...(this.#folders.get(folder)?.entries() ?? [])];
    // Segments by name, as everywhere; others as they were made, because their names come from elsewhere's randomness.
    return names.sort(([a, x], [b, y]) => rank(a, x) - rank(b, y)).map(([name]) => name);
  }

  open(name: string, mode: 'read' | 'write' | 'create'): StorageFile {
    const existing = this.#lookUp(name);
    if (mode !== 'create') {
      this.#enter('open', name);
      return this.#handle(name, existing ?? fail('ENOENT', name));
    }
    if (existing !== undefined) fail('EEXIST', name);
    const file = new Sectors(this.#nextId++);
    this.#perform('create', name, () => this.#names(name).change(file, undefined, baseOf(name)));
    return this.#handle(name, file);
  }

  /** Another thread begins to sync a file; it is over when that one says so. */
  beginSync(handle: StorageFile): PendingSync {
    const file = this.#handles.get(handle)!;
    const { end, fail: fails } = file.beginSync();
    const failing = () => {
      if (this.#crashed) return file.writeBack(this.random, this.counts);
      this.syncFailed = true;
      fails(this.random, this.counts);
    };
    return () => this.#perform('sync', file.label, end, failing);
  }

  rename(from: string, to: string, replace = false): void {
    const file = this.#find(from);
    if (!replace && this.#lookUp(to) !== undefined) fail('EEXIST', to);
    this.#perform('rename', `${from} -> ${to}`, () => {
      if (folderOf(from) === folderOf(to)) return this.#names(from).change(file, baseOf(from), baseOf(to));
      const move: Move = { durable: undefined };
      this.#names(from).change(file, baseOf(from), undefined, move);
      this.#names(to).change(file, undefined, baseOf(to), move);
    });
  }

  remove(name: string): void {
    const file = this.#find(name);
    this.#perform('remove', name, () => this.#names(name).change(file, baseOf(name), undefined));
  }

  makeFolder(name: string): void {
    this.#perform('makeFolder', name, () => {
      if (this.#folders.has(name)) return;
      this.#folders.set(name, new Names());
      this.#newFolders.add(name);
    });
  }

  syncFolder(folder = ''): void {
    this.#perform('syncFolder', folder, () => {
      this.#folders.get(folder)?.sync();
      if (folder === '') this.#newFolders.clear();
    });
  }

  freeBytes(): number {
    this.#enter('freeBytes', '');
    return Math.max(0, this.quotaBytes - this.usedBytes());
  }

  #handle(name: string, file: Sectors): StorageFile {
    const generation = this.#generation;
    let open = true;
    let through = false;
    this.openFiles++;
    const check = () => {
      if (generation !== this.#generation || !open) throw new CrashError();
    };
    const enter = (call: Call) => {
      check();
      this.#enter(call, name);
    };
    const handle: StorageFile = {
      name,
      size: () => {
        enter('size');
        return file.size;
      },
      read: (target, position) =>
        readFully(target, position, (rest, at) => {
          enter('read');
          return file.read(this.#shortened(rest, 'short read'), at);
        }),
      write: (views, position) =>
        writeFully(views, position, (rest, at) => {
          check();
          return this.#write(file, rest.length === 1 ? rest[0] : Buffer.concat(rest), at);
        }),
      openThrough: () => {
        through = this.writesThrough;
      },
      writeThrough: (views, _, position) => {
        check();
        through &&= this.#writeThrough(file, Buffer.concat(views), position);
        return through;
      },
      sync: () => {
        check();
        const failing = () => {
          if (this.#crashed) return file.writeBack(this.random, this.counts);
          this.syncFailed = true;
          file.failSync(this.random, this.counts);
        };
        this.#perform('sync', file.label, () => file.sync(), failing);
      },
      truncate: (size) => {
        check();
        this.#perform('truncate', file.label, () => file.truncate(size));
      },
      close: () => {
        if (!open) return;
        enter('close');
        open = false;
        this.openFiles--;
      },
    };
    this.#handles.set(handle, file);
    return handle;
  }

  /** What a call handles of what it was given: all of it, or less. */
  #shortened(bytes: Uint8Array, kind: 'short write' | 'short read'): Uint8Array {
    const { shortOneIn } = this.#faults;
    if (shortOneIn === undefined || bytes.byteLength < 2 || !this.random.oneIn(shortOneIn)) return bytes;
    this.counts.add(kind);
    return bytes.subarray(0, this.random.between(1, bytes.byteLength - 1));
  }

  /** One call: returns how many bytes it took. */
  #write(file: Sectors, bytes: Uint8Array, position: number): number {
    let count = 0;
    const some = () => {
      const part = bytes.subarray(0, this.random.below(bytes.byteLength + 1));
      if (!this.#crashed && part.byteLength > 0) this.counts.add('a part of a failing write is there');
      file.write(part, position);
    };
    const write = () => {
      if (this.random.oneIn(4)) file.writeBack(this.random, this.counts);
      const taken = this.#fitting(file, this.#shortened(bytes, 'short write'), position);
      file.write(taken, position);
      count = taken.byteLength;
    };
    this.#perform('write', file.label, write, some);
    return count;
  }

  /** Whole blocks, and on the platter when it is over. Returns false when it was refused, or came short. */
  #writeThrough(file: Sectors, bytes: Uint8Array, position: number): boolean {
    const end = position + bytes.byteLength;
    const blocks = Buffer.concat([bytes, Buffer.alloc(-end & (BLOCK_BYTES - 1))]);
    if (file.unsynced) throw new Error('It was written through beside what is not synced.');
    if (position > file.size) throw new Error('It was written through behind the end of the file.');
    if (this.random.oneIn(REFUSED_ONE_IN)) {
      this.counts.add('write through refused');
      return false;
    }
    let whole = false;
    const some = () => {
      if (!this.#crashed && this.#faults.errno === 'ENOSPC') {
        // Before there is anything to sync.
        return file.write(blocks.subarray(0, this.random.below(blocks.byteLength + 1)), position);
      }
      file.write(blocks, position);
      if (this.#crashed) return file.writeBack(this.random, this.counts);
      this.syncFailed = true;
      file.failSync(this.random, this.counts);
    };
    const all = () => {
      const taken = this.#fitting(file, this.#shortened(blocks, 'short write'), position);
      if (position + taken.byteLength > file.size) this.counts.add('written through behind the end of the file');
      file.write(taken, position);
      whole = taken.byteLength === blocks.byteLength;
      if (whole) file.sync();
      this.counts.add(whole ? 'written through' : 'written through in part');
    };
    this.#perform('writeThrough', file.label, all, some);
    return whole;
  }

  /** As much of it as the disk has room for. */
  #fitting(file: Sectors, bytes: Uint8Array, position: number): Uint8Array {
    const growth = Math.max(0, position + bytes.byteLength - file.size);
    const free = growth === 0 ? 0 : Math.max(0, this.quotaBytes - this.usedBytes());
    if (growth <= free) return bytes;
    const fits = bytes.byteLength - growth + free;
    if (fits <= 0) {
      this.counts.add('no space: the disk is full');
      fail('ENOSPC', 'write');
    }
    this.counts.add('no space: the disk takes a part and is full');
    return bytes.subarray(0, fits);
  }

  /** A call that only looks. */
  #enter(call: Call, name: string): void {
    if (this.#crashed) throw new CrashError();
    if (call === 'close') return;
    this.#looks++;
    this.#mayTakeLong();
    const { failAt, failing, failLookAt, errno = 'EIO' } = this.#faults;
    const chosen = failing?.includes(call) && failAt === this.#calls + 1;
    const next = this.#faults.failNext === call;
    if (!chosen && !next && failLookAt !== this.#looks) return;
    if (!chosen) this.#faults = { ...this.#faults, failLookAt: undefined, failNext: undefined };
    this.counts.add(`call fails: ${call}`);
    fail(chosen ? errno : 'EIO', `${call} ${name}`);
  }

  #mayTakeLong(): void {
    const { slowOneIn } = this.#faults;
    if (slowOneIn === undefined || this.delay === undefined || !this.random.oneIn(slowOneIn)) return;
    this.counts.add('slow call');
    this.delay(this.random.between(1, SLOW_MS));
  }

  /** A call that changes something. A crash or a fault in it leaves it done, undone or, by `partly`, half done. */
  #perform(call: Exclude<Call, 'close'>, name: string, work: () => void, partly?: () => void): void {
    if (this.#crashed) throw new CrashError();
    if (POINTS.has(call)) this.#calls++;
    this.observe?.(call, name);
    this.#mayTakeLong();
    const { crashAt, failAt, failing, errno = 'EIO' } = this.#faults;
    if (crashAt === this.#calls) this.#crashIn(call, work, partly);
    const next = this.#faults.failNext === call;
    if (next || (failAt === this.#calls && (failing === undefined || failing.includes(call)))) {
      this.#faults = { ...this.#faults, failAt: undefined, failNext: undefined };
      this.counts.add(errno === 'ENOSPC' ? 'no space: the call says so' : `call fails: ${call}`);
      partly?.();
      fail(errno, `${call} ${name}`);
    }
    work();
  }

  #crashIn(call: Call, work: () => void, partly: (() => void) | undefined): never {
    this.#crashed = true;
    if (partly !== undefined) {
      this.counts.add(MIDDLE[call] ?? 'crash in the middle of a write');
      partly();
    } else {
      const done = this.random.oneIn(2);
      this.counts.add(done ? 'crash behind a call' : 'crash before a call');
      if (done) work();
    }
    throw new CrashError();
  }

  #names(name: string): Names {
    return this.#folders.get(folderOf(name)) ?? fail('ENOENT', name);
  }

  #lookUp(name: string): Sectors | undefined {
    return this.#folders.get(folderOf(name))?.get(baseOf(name));
  }

  #find(name: string): Sectors {
    if (this.#crashed) throw new CrashError();
    return this.#lookUp(name) ?? fail('ENOENT', name);
  }
}

/** The same disk as readers see a directory. */
export function readableFiles(disk: SimulatedDisk): ReadableFiles {
  return {
    list: async () => disk.list(),
    open: async (name): Promise<ReadableFile> => {
      const file = disk.open(name, 'read');
      return {
        size: async () => file.size(),
        read: async (target, position) => file.read(target, position),
        close: async () => file.close(),
      };
    },
  };
}

const ERRNO = { EIO: -5, ENOENT: -2, EEXIST: -17, ENOSPC: -28 } as const;

function fail(code: keyof typeof ERRNO, what: string): never {
  throw Object.assign(new Error(`${code}: ${what}`), { code, errno: ERRNO[code] });
}

function folderOf(name: string): string {
  const slash = name.lastIndexOf('/');
  return slash < 0 ? '' : name.slice(0, slash);
}

function baseOf(name: string): string {
  return name.slice(name.lastIndexOf('/') + 1);
}

function rank(name: string, file: Sectors): number {
  return segmentIdOf(name) ?? 1e9 + file.id;
}
