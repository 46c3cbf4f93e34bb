import { constants, open, readdir } from 'node:fs/promises';
import path from 'node:path';
import { SAFELY } from '../storage/node-storage.js';

/** What readers need of a directory: less than the engine, and without holding up the thread. */
export interface ReadableFiles {
  list(): Promise<string[]>;
  /** Rejects with an error of code ENOENT when the file is gone. */
  open(name: string): Promise<ReadableFile>;
}

export interface ReadableFile {
  size(): Promise<number>;
  /** Fills `target` from `position` on; returns how many bytes there were, fewer only at the end of the file. */
  read(target: Uint8Array, position: number): Promise<number>;
  close(): Promise<void>;
}

export function nodeFiles(directory: string): ReadableFiles {
  return {
    list: async () => (await readdir(directory)).sort(),
    async open(name) {
      const handle = await open(path.join(directory, name), constants.O_RDONLY | SAFELY);
      return {
        size: async () => (await handle.stat()).size,
        async read(target, position) {
          let done = 0;
          while (done < target.byteLength) {
            const { bytesRead } = await handle.read(target, done, target.byteLength - done, position + done);
            if (bytesRead === 0) break;
            done += bytesRead;
          }
          return done;
        },
        close: () => handle.close(),
      };
    },
  };
}

export function isGone(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}
