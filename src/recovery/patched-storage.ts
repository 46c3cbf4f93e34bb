import type { Storage, StorageFile } from '../storage/storage.js';
import { layOver } from './apply-repair.js';
import type { RepairPlan, SegmentPatch } from './repair-plan.js';

/** A directory as it would be after a repair, for reading: nothing in it is changed. */
export class PatchedStorage implements Storage {
  readonly #storage: Storage;
  readonly #patches: ReadonlyMap<string, SegmentPatch>;
  readonly #hidden: ReadonlySet<string>;

  constructor(storage: Storage, { segments, setAside }: Pick<RepairPlan, 'segments' | 'setAside'>) {
    this.#storage = storage;
    this.#patches = new Map(segments.map((segment) => [segment.name, segment]));
    this.#hidden = new Set(setAside);
  }

  list(folder = ''): string[] {
    const names = this.#storage.list(folder);
    if (folder !== '') return names;
    const created = [...this.#patches.values()].filter(({ create }) => create).map(({ name }) => name);
    return [...names.filter((name) => !this.#hidden.has(name)), ...created].sort();
  }

  open(name: string, mode: 'read' | 'write' | 'create'): StorageFile {
    if (mode !== 'read') return refuse();
    const patch = this.#patches.get(name);
    if (patch === undefined) return this.#storage.open(name, 'read');
    return new PatchedFile(name, patch.create ? undefined : this.#storage.open(name, 'read'), patch);
  }

  rename(): void {
    refuse();
  }

  remove(): void {
    refuse();
  }

  makeFolder(): void {
    refuse();
  }

  syncFolder(): void {}

  freeBytes(): number {
    return 0;
  }
}

class PatchedFile implements StorageFile {
  readonly name: string;
  readonly #file: StorageFile | undefined;
  readonly #patch: SegmentPatch;

  constructor(name: string, file: StorageFile | undefined, patch: SegmentPatch) {
    this.name = name;
    this.#file = file;
    this.#patch = patch;
  }

  size(): number {
    const { patches, fileBytes } = this.#patch;
    return fileBytes ?? Math.max(this.#file?.size() ?? 0, ...patches.map(({ to }) => to));
  }

  read(target: Uint8Array, position: number): number {
    const count = Math.max(0, Math.min(target.byteLength, this.size() - position));
    const bytes = target.subarray(0, count);
    const known = this.#file?.read(bytes, position) ?? 0;
    bytes.fill(0, known);
    for (const patch of this.#patch.patches) layOver(bytes, position, patch);
    return count;
  }

  write(): void {
    refuse();
  }

  sync(): void {}

  truncate(): void {
    refuse();
  }

  close(): void {
    this.#file?.close();
  }
}

function refuse(): never {
  throw new Error('What was patched in memory can only be read.');
}
