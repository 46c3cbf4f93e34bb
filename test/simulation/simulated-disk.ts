import type { ReadableFile, ReadableFiles } from '../../src/reader/files.js';
import { segmentIdOf } from '../../src/segments/names.js';
import type { Storage, StorageFile } from '../../src/storage/storage.js';
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

export interface Faults {
  /** Crash in the middle of this call, counted from 1. */
  crashAt?: number;
  /** Fail this call, counted from 1, if it is one of `failing`. */
  failAt?: number;
  failing?: readonly Call[];
  errno?: 'EIO' | 'ENOSPC';
}

/** Calls that change something or can lose something: where a crash or a fault is worth its while. */
const POINTS: ReadonlySet<Call> = new Set([
  'create',
  'write',
  'sync',
  'truncate',
  'rename',
  'remove',
  'makeFolder',
  'syncFolder',
]);

/**
 * A disk in memory that behaves as badly as a disk may. What was written is on the platter only after a sync, or at
 * random before it; names are only durable after a sync of their directory, which the sync of a file does not imply.
 * All of its choices come from `random`, which may be replaced between calls.
 */
export class SimulatedDisk implements Storage {
  random: Random;
  /** Bytes that all files together may take. */
  quotaBytes = Number.POSITIVE_INFINITY;
  /** Called before each call that counts, with the file's name. */
  observe: ((call: Call, name: string) => void) | undefined;
  /** A sync of a file failed since the last power loss: what programs read may not be what is on the platter. */
  syncFailed = false;
  openFiles = 0;
  #faults: Faults = {};
  #calls = 0;
  #crashed = false;
  #generation = 0;
  #nextId = 1;
  readonly #folders = new Map<string, Names>([['', new Names()]]);
  /** Folders whose own name is not durable yet. */
  readonly #newFolders = new Set<string>();

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
    if (kind === 'process') return;
    this.syncFailed = false;
    for (const folder of this.#newFolders) if (this.random.oneIn(2)) this.#folders.delete(folder);
    this.#newFolders.clear();
    for (const names of this.#folders.values()) names.losePower(this.random);
    for (const names of this.#folders.values()) for (const file of names.files()) file.losePower(this.random);
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
    this.#find(name).flip(position, bit);
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
    this.openFiles++;
    const enter = (call: Call) => {
      if (generation !== this.#generation || !open) throw new CrashError();
      this.#enter(call, name);
    };
    const perform = (call: Call, work: () => void, partly?: () => void) => {
      if (generation !== this.#generation || !open) throw new CrashError();
      this.#perform(call, file.label, work, partly);
    };
    return {
      name,
      size: () => {
        enter('size');
        return file.size;
      },
      read: (target, position) => {
        enter('read');
        return file.read(target, position);
      },
      write: (views, position) => {
        const bytes = views.length === 1 ? views[0] : Buffer.concat(views);
        const part = () => file.write(bytes.subarray(0, this.random.below(bytes.byteLength + 1)), position);
        perform('write', () => this.#write(file, bytes, position), part);
      },
      sync: () => {
        const failing = () => {
          if (this.#crashed) return file.writeBack(this.random);
          this.syncFailed = true;
          file.failSync(this.random);
        };
        perform('sync', () => file.sync(), failing);
      },
      truncate: (size) => perform('truncate', () => file.truncate(size)),
      close: () => {
        if (!open) return;
        enter('close');
        open = false;
        this.openFiles--;
      },
    };
  }

  #write(file: Sectors, bytes: Uint8Array, position: number): void {
    if (this.random.oneIn(4)) file.writeBack(this.random);
    const growth = Math.max(0, position + bytes.byteLength - file.size);
    const free = growth === 0 ? 0 : Math.max(0, this.quotaBytes - this.usedBytes());
    if (growth <= free) return file.write(bytes, position);
    file.write(bytes.subarray(0, bytes.byteLength - growth + free), position);
    fail('ENOSPC', 'write');
  }

  /** A call that only looks. */
  #enter(call: Call, name: string): void {
    if (this.#crashed) throw new CrashError();
    const { failAt, failing } = this.#faults;
    if (failing?.includes(call) && failAt === this.#calls + 1) fail(this.#faults.errno ?? 'EIO', `${call} ${name}`);
  }

  /** A call that changes something. A crash or a fault in it leaves it done, undone or, by `partly`, half done. */
  #perform(call: Call, name: string, work: () => void, partly?: () => void): void {
    if (this.#crashed) throw new CrashError();
    if (POINTS.has(call)) this.#calls++;
    this.observe?.(call, name);
    const { crashAt, failAt, failing, errno = 'EIO' } = this.#faults;
    if (crashAt === this.#calls) {
      this.#crashed = true;
      if (partly !== undefined) partly();
      else if (this.random.oneIn(2)) work();
      throw new CrashError();
    }
    if (failAt === this.#calls && (failing === undefined || failing.includes(call))) {
      this.#faults = { ...this.#faults, failAt: undefined };
      partly?.();
      fail(errno, `${call} ${name}`);
    }
    work();
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
