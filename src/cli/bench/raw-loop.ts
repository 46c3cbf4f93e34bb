import fs from 'node:fs';
import path from 'node:path';
import { Gathering } from './gathering.js';

/**
 * What a careful programmer writes without a log: one thread that gathers what is pending, writes it with one call,
 * calls fdatasync, and resolves the promises. No checksums, no format, no recovery, no other threads.
 */
export class RawLoop {
  syncs = 0;
  readonly #fd: number;
  readonly #gathering: Gathering<Uint8Array>;
  #buffer = Buffer.allocUnsafeSlow(1 << 20);
  #position = 0;
  /** Whether the group at hand is to be synced. */
  #sync: boolean;
  readonly #always: boolean;
  readonly #beginAgainAt: number;

  /**
   * `gather`: everything pending goes into one write and one sync; otherwise each append has its own. `beginAgainAt`: a file of
   * so many bytes is written over from its beginning on, so that it does not grow any more.
   */
  constructor(directory: string, sync: boolean, gather: boolean, beginAgainAt = Number.POSITIVE_INFINITY) {
    this.#beginAgainAt = beginAgainAt;
    this.#fd = fs.openSync(path.join(directory, 'raw'), 'w');
    this.#always = sync;
    this.#sync = sync;
    this.#gathering = new Gathering((payloads) => this.#commit(payloads), gather ? undefined : 1);
  }

  /** `sync`: the group of this append is synced, even if the loop does not always do that. */
  append(payload: Uint8Array, sync = false): Promise<void> {
    if (sync) this.#sync = true;
    return this.#gathering.append(payload);
  }

  close(): void {
    fs.closeSync(this.#fd);
  }

  #commit(payloads: Uint8Array[]): void {
    let bytes = 0;
    for (const payload of payloads) bytes += payload.byteLength;
    if (bytes > this.#buffer.byteLength) this.#buffer = Buffer.allocUnsafeSlow(bytes * 2);
    let at = 0;
    for (const payload of payloads) {
      this.#buffer.set(payload, at);
      at += payload.byteLength;
    }
    if (this.#position + bytes > this.#beginAgainAt) this.#position = 0;
    writeAll(this.#fd, this.#buffer.subarray(0, bytes), this.#position);
    this.#position += bytes;
    if (!this.#sync) return;
    fs.fdatasyncSync(this.#fd);
    this.syncs++;
    this.#sync = this.#always;
  }
}

function writeAll(fd: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.byteLength; ) {
    done += fs.writeSync(fd, bytes, done, bytes.byteLength - done, position + done);
  }
}
