import fs from 'node:fs';
import path from 'node:path';

/**
 * What a careful programmer writes without a log: one thread that gathers what is pending, writes it with one call,
 * calls fdatasync, and resolves the promises. No checksums, no format, no recovery, no other threads.
 */
export class RawLoop {
  syncs = 0;
  readonly #fd: number;
  readonly #sync: boolean;
  #pending: Uint8Array[] = [];
  #resolve: (() => void)[] = [];
  #buffer = Buffer.allocUnsafeSlow(1 << 20);
  #position = 0;
  #scheduled = false;

  readonly #gather: boolean;

  /** `gather`: everything pending goes into one write and one sync; otherwise each append has its own. */
  constructor(directory: string, sync: boolean, gather: boolean) {
    this.#gather = gather;
    this.#fd = fs.openSync(path.join(directory, 'raw'), 'w');
    this.#sync = sync;
  }

  append(payload: Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      this.#pending.push(payload);
      this.#resolve.push(resolve);
      if (!this.#scheduled) this.#schedule();
    });
  }

  close(): void {
    fs.closeSync(this.#fd);
  }

  #schedule(): void {
    this.#scheduled = true;
    setImmediate(this.#commit);
  }

  readonly #commit = (): void => {
    this.#scheduled = false;
    const take = this.#gather ? this.#pending.length : 1;
    const pending = this.#pending.splice(0, take);
    const resolve = this.#resolve.splice(0, take);
    if (this.#pending.length > 0) this.#schedule();
    let bytes = 0;
    for (const payload of pending) bytes += payload.byteLength;
    if (bytes > this.#buffer.byteLength) this.#buffer = Buffer.allocUnsafeSlow(bytes * 2);
    let at = 0;
    for (const payload of pending) {
      this.#buffer.set(payload, at);
      at += payload.byteLength;
    }
    writeAll(this.#fd, this.#buffer.subarray(0, bytes), this.#position);
    this.#position += bytes;
    if (this.#sync) {
      fs.fdatasyncSync(this.#fd);
      this.syncs++;
    }
    for (const done of resolve) done();
  };
}

function writeAll(fd: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.byteLength; ) {
    done += fs.writeSync(fd, bytes, done, bytes.byteLength - done, position + done);
  }
}
