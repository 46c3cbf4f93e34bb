import fs from 'node:fs';
import path from 'node:path';
import { tryLock } from 'fs-native-extensions';
import { WalError } from '../errors.js';
import { LOCK_NAME } from '../segments/names.js';
import { SAFELY } from '../storage/node-storage.js';

/**
 * The right to write to a directory: an advisory lock of the operating system on the file LOCK, which ends with the
 * process however it ends. It excludes other opens of the same process too. Advisory locks are as good as the
 * filesystem's: NFS without a lock daemon has none.
 */
export class DirectoryLock {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  static acquire(directory: string): DirectoryLock {
    const { O_RDWR, O_CREAT, O_APPEND } = fs.constants;
    const fd = fs.openSync(path.join(directory, LOCK_NAME), O_RDWR | O_CREAT | O_APPEND | SAFELY, 0o644);
    try {
      if (tryLock(fd)) return new DirectoryLock(fd);
    } catch (error) {
      fs.closeSync(fd);
      throw error;
    }
    fs.closeSync(fd);
    throw new WalError(
      'ERR_WAL_LOCKED',
      `The log in ${directory} is open for writing already, in this process or another. Close it there, or open it with readOnly: true.`,
    );
  }

  release(): void {
    // Closing the only descriptor of the open file gives the lock back.
    fs.closeSync(this.#fd);
  }
}
