import { constants, type FileHandle, open, readdir } from 'node:fs/promises';
import path from 'node:path';
import { WalError } from '../errors.js';
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

/** The files of a directory. Whatever keeps them from being read is `ERR_WAL_FAILED`, but for a file that is gone. */
export function nodeFiles(directory: string): ReadableFiles {
  const refuse = (cause: Error): never => {
    throw new WalError('ERR_WAL_FAILED', `The log in ${directory} cannot be read: ${cause.message}.`, { cause });
  };
  return {
    list: async () => (await readdir(directory).catch(refuse)).sort(),
    async open(name) {
      const opening = open(path.join(directory, name), constants.O_RDONLY | SAFELY);
      const handle = await opening.catch((error) => {
        if (isGone(error)) throw error;
        return refuse(error);
      });
      return {
        size: async () => (await handle.stat().catch(refuse)).size,
        read: (target, position) => readWhole(handle, target, position).catch(refuse),
        close: () => handle.close(),
      };
    },
  };
}

async function readWhole(handle: FileHandle, target: Uint8Array, position: number): Promise<number> {
  let done = 0;
  while (done < target.byteLength) {
    const { bytesRead } = await handle.read(target, done, target.byteLength - done, position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}

export function isGone(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}
