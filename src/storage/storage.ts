/**
 * The few file operations that the engine needs. Everything that writes a log goes through this, synchronously, so that
 * a test can put a simulated disk underneath. Names are relative to the log's directory; `folder/name` is allowed.
 */
export interface Storage {
  /** Names in the log's directory, or in a folder of it; empty when that folder does not exist. */
  list(folder?: string): string[];
  /** `create` fails when the file exists; `write` and `create` allow reading too. */
  open(name: string, mode: 'read' | 'write' | 'create'): StorageFile;
  /** `replace`: whatever has the name `to` may lose it, in one step. Without it nobody counts on what happens then. */
  rename(from: string, to: string, replace?: boolean): void;
  remove(name: string): void;
  /** Creates a folder; nothing happens when it exists. */
  makeFolder(name: string): void;
  /** Makes the names in the log's directory (or a folder of it) durable: creations, renames and removals so far. */
  syncFolder(folder?: string): void;
  /** Bytes that a new file could take; Infinity when that is not known. */
  freeBytes(): number;
}

export interface StorageFile {
  readonly name: string;
  /** For another thread of this process that is to call fdatasync; undefined where that is not all there is to it. */
  readonly descriptor?: number | undefined;
  size(): number;
  /** Fills `target` from `position` on and returns how many bytes there were: fewer only at the end of the file. */
  read(target: Uint8Array, position: number): number;
  /** Writes all views, one behind the other, or throws. After a throw any part of them may be in the file. */
  write(views: readonly Uint8Array[], position: number): void;
  /**
   * Writes zeros to `[from, to)` past the page cache, and returns how far it came; the rest is for {@link write}. Only
   * while the file has the name that it was opened by. Undefined where there is no such way.
   */
  fillDirectly?(from: number, to: number): number;
  /** Makes {@link writeThrough} possible, where it is. Only while the file has the name that it was opened by. */
  openThrough?(): void;
  /**
   * {@link write} and {@link sync} in one, past the page cache, for views of `bytes` bytes together. Returns whether it did
   * that; false: not in this way, and a part of it may be in the file, so that `write` and `sync` have all of it to do.
   * May throw as both of them do.
   *
   * Only while everything written before is on stable storage, which this does not see to; and where zeros may come behind
   * the views, up to the end of the block of 4 KiB, also where the file ended before and is longer then.
   */
  writeThrough?(views: readonly Uint8Array[], bytes: number, position: number): boolean;
  /** Puts the file's bytes and its size on stable storage (fdatasync). Must not be retried after it threw. */
  sync(): void;
  truncate(size: number): void;
  close(): void;
}
