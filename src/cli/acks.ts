import { createHash } from 'node:crypto';
import fs from 'node:fs';
import type { Lsn } from '../types.js';

/** Opens the file of acknowledgements for appending; a line that a crash cut short is ended first. */
export function openAcks(file: string): number {
  const fd = fs.openSync(file, 'a+', 0o644);
  const { size } = fs.fstatSync(fd);
  const last = Buffer.alloc(1);
  if (size > 0 && fs.readSync(fd, last, 0, 1, size - 1) === 1 && last[0] !== 0x0a) fs.writeSync(fd, '\n');
  return fd;
}

/** Notes acknowledged records, a JSON line each; whole lines per write, so that several threads can share the file. */
export class Acks {
  readonly #fd: number;
  #lines: string[] = [];

  constructor(fd: number) {
    this.#fd = fd;
  }

  note(lsn: Lsn, payload: Uint8Array): void {
    const sha256 = createHash('sha256').update(payload).digest('hex');
    // All that one commit acknowledged goes out together.
    if (this.#lines.length === 0) setImmediate(() => this.#write());
    this.#lines.push(`{"lsn":${lsn},"sha256":"${sha256}"}\n`);
  }

  #write(): void {
    let bytes = Buffer.from(this.#lines.join(''));
    this.#lines = [];
    while (bytes.byteLength > 0) bytes = bytes.subarray(fs.writeSync(this.#fd, bytes));
  }
}
