import type { Storage, StorageFile } from '../../src/storage/storage.js';

/** What a directory holds: names (a folder's in front) and bytes. */
export type Image = ReadonlyMap<string, Uint8Array>;

/** Thrown when something does more than what it was given could be worth. No `WalError`, so that nobody takes it for one. */
export class Unbounded extends Error {}

/** Far more calls than anything needs that reads a log of these sizes a few times over. */
const MOST_CALLS = 20_000;

/** No file grows larger. */
const MOST_BYTES = 64 * 1024 * 1024;

/**
 * A directory in memory that counts what is done to it, and puts an end to what would not end by itself. Every loop over
 * a log goes through its storage, so that counting calls tells an endless one without looking at the clock.
 */
export class MemoryDisk implements Storage {
  readonly #files = new Map<string, Buffer>();
  /** Calls so far. */
  calls = 0;
  /** Bytes asked for by reads so far. */
  asked = 0;
  /** Calls that change something. */
  changes = 0;

  constructor(image: Image = new Map()) {
    for (const [name, bytes] of image) this.#files.set(name, Buffer.from(bytes));
  }

  image(): Map<string, Uint8Array> {
    return new Map([...this.#files].map(([name, bytes]) => [name, Buffer.from(bytes)]));
  }

  get bytes(): number {
    return [...this.#files.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  list(folder = ''): string[] {
    this.#count();
    const prefix = folder === '' ? '' : `${folder}/`;
    return [...this.#files.keys()]
      .filter((name) => name.startsWith(prefix) && !name.slice(prefix.length).includes('/'))
      .map((name) => name.slice(prefix.length))
      .sort();
  }

  open(name: string, mode: 'read' | 'write' | 'create'): StorageFile {
    this.#count();
    const there = this.#files.has(name);
    if (mode === 'create' && there) throw failure('EEXIST', name);
    if (mode !== 'create' && !there) throw failure('ENOENT', name);
    if (mode === 'create') this.#change(() => this.#files.set(name, Buffer.alloc(0)));
    // A file that was renamed stays the same file for whoever has it open: none of the callers writes to one.
    const bytes = () => this.#files.get(name) ?? Buffer.alloc(0);
    return {
      name,
      size: () => {
        this.#count();
        return bytes().byteLength;
      },
      read: (target, position) => {
        this.#count();
        this.asked += target.byteLength;
        // As the operating system has it, through node:fs.
        if (!Number.isSafeInteger(position) || position < 0) throw new RangeError(`a read at ${position}`);
        const part = bytes().subarray(position, position + target.byteLength);
        target.set(part);
        return part.byteLength;
      },
      write: (views, position) => {
        if (position > MOST_BYTES) throw failure('ENOSPC', name);
        this.#change(() => {
          let content = bytes();
          for (const view of views) {
            const grown = Buffer.alloc(Math.max(content.byteLength, position + view.byteLength));
            content.copy(grown);
            grown.set(view, position);
            content = grown;
            position += view.byteLength;
          }
          this.#files.set(name, content);
        });
      },
      sync: () => this.#count(),
      truncate: (size) =>
        this.#change(() => {
          if (size > MOST_BYTES) throw failure('ENOSPC', name);
          const cut = Buffer.alloc(size);
          bytes().copy(cut);
          this.#files.set(name, cut);
        }),
      close: () => this.#count(),
    };
  }

  rename(from: string, to: string): void {
    this.#change(() => {
      const bytes = this.#files.get(from);
      if (bytes === undefined) throw failure('ENOENT', from);
      this.#files.delete(from);
      this.#files.set(to, bytes);
    });
  }

  remove(name: string): void {
    this.#change(() => {
      if (!this.#files.delete(name)) throw failure('ENOENT', name);
    });
  }

  makeFolder(): void {
    this.#count();
  }

  syncFolder(): void {
    this.#count();
  }

  freeBytes(): number {
    this.#count();
    return Number.POSITIVE_INFINITY;
  }

  #count(): void {
    if (++this.calls > MOST_CALLS) throw new Unbounded(`more than ${MOST_CALLS} calls`);
  }

  #change(work: () => void): void {
    this.#count();
    this.changes++;
    work();
  }
}

function failure(code: string, name: string): Error {
  return Object.assign(new Error(`${code}: ${name}`), { code });
}

export function sameImage(a: Image, b: Image): boolean {
  return (
    a.size === b.size && [...a].every(([name, bytes]) => Buffer.compare(bytes, b.get(name) ?? Buffer.alloc(0)) === 0)
  );
}
