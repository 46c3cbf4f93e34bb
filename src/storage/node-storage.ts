import fs from 'node:fs';
import path from 'node:path';
import { fillDirectly } from './fill.js';
import { readFully, writeFully } from './fully.js';
import type { Storage, StorageFile } from './storage.js';
import { ThroughFile } from './through-file.js';

export type SyncMethod = 'fdatasync' | 'dsync';

const { O_NOFOLLOW = 0, O_NONBLOCK = 0 } = fs.constants;
/**
 * For whatever has the name of one of the log's files: a symbolic link is not followed, least of all to be written
 * through, and opening a pipe does not wait for its other end. Means nothing to regular files, and to Windows.
 */
export const SAFELY = O_NOFOLLOW | O_NONBLOCK;

/** `Storage` over a real directory, with node:fs. */
export class NodeStorage implements Storage {
  readonly #directory: string;
  readonly #syncMethod: SyncMethod;
  readonly #writeThrough: boolean;

  /** `writeThrough`: whether {@link StorageFile.openThrough} does anything. */
  constructor(directory: string, syncMethod: SyncMethod = 'fdatasync', writeThrough = true) {
    this.#directory = directory;
    this.#syncMethod = syncMethod;
    this.#writeThrough = writeThrough;
  }

  list(folder = ''): string[] {
    try {
      return fs.readdirSync(path.join(this.#directory, folder)).sort();
    } catch (error) {
      if (folder !== '' && (error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  }

  open(name: string, mode: 'read' | 'write' | 'create'): StorageFile {
    const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_DSYNC = 0 } = fs.constants;
    const dsync = this.#syncMethod === 'dsync' ? O_DSYNC : 0;
    const flags = SAFELY | { read: O_RDONLY, write: O_RDWR | dsync, create: O_RDWR | O_CREAT | O_EXCL }[mode];
    const location = path.join(this.#directory, name);
    const fd = fs.openSync(location, flags, 0o644);
    return new NodeFile(name, location, fd, mode === 'write' && dsync !== 0, this.#writeThrough);
  }

  /** A rename always replaces; that it does not do so unasked is a matter of names that are never used twice. */
  rename(from: string, to: string): void {
    fs.renameSync(path.join(this.#directory, from), path.join(this.#directory, to));
  }

  remove(name: string): void {
    fs.unlinkSync(path.join(this.#directory, name));
  }

  makeFolder(name: string): void {
    const folder = path.join(this.#directory, name);
    fs.mkdirSync(folder, { recursive: true });
    if (fs.lstatSync(folder).isSymbolicLink()) throw new Error(`${folder} is a symbolic link, which is not followed`);
  }

  syncFolder(folder = ''): void {
    syncDirectory(path.join(this.#directory, folder));
  }

  freeBytes(): number {
    const { bavail, bsize } = fs.statfsSync(this.#directory);
    return bavail * bsize;
  }
}

/** Makes a directory's entries durable. Windows has no such call and no such need: NTFS journals its directories. */
export function syncDirectory(directory: string): void {
  if (process.platform === 'win32') return;
  const fd = fs.openSync(directory, 'r');
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

class NodeFile implements StorageFile {
  readonly name: string;
  /** Where it lay when it was opened. */
  readonly #location: string;
  readonly #fd: number;
  /** Writes return only once they are on stable storage (O_DSYNC), so that `sync` has little left to do. */
  readonly #writesAreSynced: boolean;
  /** There may be something to sync that no such write of ours took along: bytes of an earlier process, or a new size. */
  #unsynced = true;
  #closed = false;
  readonly #writesThrough: boolean;
  #through: ThroughFile | undefined;

  constructor(name: string, location: string, fd: number, writesAreSynced: boolean, writesThrough: boolean) {
    this.name = name;
    this.#location = location;
    this.#fd = fd;
    this.#writesAreSynced = writesAreSynced;
    this.#writesThrough = writesThrough;
  }

  get descriptor(): number | undefined {
    return this.#writesAreSynced ? undefined : this.#fd;
  }

  size(): number {
    return fs.fstatSync(this.#fd).size;
  }

  read(target: Uint8Array, position: number): number {
    return readFully(target, position, (rest, at) => fs.readSync(this.#fd, rest, 0, rest.byteLength, at));
  }

  write(views: readonly Uint8Array[], position: number): void {
    const tail = this.#through?.tailBefore(position);
    this.#through?.forgetTail();
    if (tail === undefined) this.#write(views, position);
    else this.#write([tail, ...views], position - tail.byteLength);
  }

  #write(views: readonly Uint8Array[], position: number): void {
    writeFully(views, position, (rest, at) =>
      rest.length === 1
        ? fs.writeSync(this.#fd, rest[0], 0, rest[0].byteLength, at)
        : fs.writevSync(this.#fd, rest, at),
    );
  }

  fillDirectly(from: number, to: number): number {
    this.#unsynced = true;
    return fillDirectly(this.#location, SAFELY, from, to);
  }

  openThrough(): void {
    if (this.#writesThrough) this.#through ??= ThroughFile.open(this.#location, SAFELY);
  }

  writeThrough(views: readonly Uint8Array[], bytes: number, position: number): boolean {
    const through = this.#through;
    if (through === undefined || !ThroughFile.takes(bytes, position)) return false;
    if (through.write(views, bytes, position, (target, at) => this.read(target, at))) return true;
    this.#closeThrough();
    return false;
  }

  sync(): void {
    if (this.#writesAreSynced && !this.#unsynced) return;
    fs.fdatasyncSync(this.#fd);
    this.#unsynced = false;
  }

  truncate(size: number): void {
    this.#through?.forgetTail();
    fs.ftruncateSync(this.#fd, size);
    this.#unsynced = true;
  }

  close(): void {
    // Never twice, whatever came of it: the number may be another file's by then.
    if (this.#closed) return;
    this.#closed = true;
    try {
      this.#closeThrough();
    } finally {
      fs.closeSync(this.#fd);
    }
  }

  #closeThrough(): void {
    const through = this.#through;
    this.#through = undefined;
    through?.close();
  }
}
