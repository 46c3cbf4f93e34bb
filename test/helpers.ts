import { type ChildProcess, fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { type OpenOptions, WalError, type WalErrorCode, type WalEvents, type WalRecord, WriteAheadLog } from 'ringwal';
import type { Test } from 'tap';

export interface Scope {
  teardown(fn: () => unknown): void;
}

/** A fresh directory that is removed when the test is over. */
export function temporaryDirectory(t: Scope): string {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'ringwal-test-'));
  t.teardown(() => fs.rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A log in a fresh directory, with small files; closed when the test is over. */
export async function openLog(
  t: Scope,
  options?: OpenOptions,
  directory = temporaryDirectory(t),
): Promise<WriteAheadLog> {
  const wal = await WriteAheadLog.open(directory, { segmentBytes: 1024 * 1024, ...options });
  t.teardown(() => wal.close());
  return wal;
}

type Told<E extends keyof WalEvents> = Parameters<WalEvents[E]>[0];

/** What the log tells with its next event of this name. */
export function nextEvent<E extends keyof WalEvents>(wal: WriteAheadLog, event: E): Promise<Told<E>> {
  return new Promise((resolve) => wal.once(event, ((told: Told<E>) => resolve(told)) as never));
}

export function text(bytes: Uint8Array | undefined): string {
  return Buffer.from(bytes ?? []).toString('utf8');
}

export async function collect<T>(iterable: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of iterable) items.push(item);
  return items;
}

/** The payloads of records, as strings. */
export function payloads(records: WalRecord[]): string[] {
  return records.map((record) => text(record.payload));
}

/** The whole numbers from `first` to `last`. */
export function numbers(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

/** What an operation that must fail fails with, whether it throws or rejects. */
export async function failure(work: Promise<unknown> | (() => unknown)): Promise<unknown> {
  try {
    await (typeof work === 'function' ? work() : work);
  } catch (error) {
    return error;
  }
  throw new Error('It did not fail.');
}

/** Asserts that the operation fails with a WalError of this code and a message for people; returns the error. */
export async function failsWith(
  t: Test,
  code: WalErrorCode,
  work: Promise<unknown> | (() => unknown),
  what: string = code,
): Promise<WalError> {
  const error = await failure(work);
  t.ok(error instanceof WalError, `${what}: a WalError, not ${String(error)}`);
  t.equal((error as WalError).code, code, `${what}: its code`);
  t.ok((error as WalError).message.length > 10, `${what}: says what is wrong`);
  return error as WalError;
}

export function fixture(name: string): string {
  return fileURLToPath(new URL(`./fixtures/${name}.js`, import.meta.url));
}

export interface Child {
  process: ChildProcess;
  /** Every message so far. */
  messages: unknown[];
  /** The next message that `wanted` accepts, also one that came already; rejects when the child ends before. */
  message<T>(wanted?: (message: T) => boolean): Promise<T>;
  /** How it ended, and what it wrote. */
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null; stdout: string; stderr: string }>;
}

/** Runs a program of `test/fixtures` in a process of its own, which is killed when the test is over. */
export function startChild(t: Scope, name: string, args: string[] = [], execArgv: string[] = []): Child {
  const child = fork(fixture(name), args, { silent: true, execArgv });
  t.teardown(() => child.kill('SIGKILL'));
  const messages: unknown[] = [];
  let stdout = '';
  let stderr = '';
  child.stdout?.on('data', (data) => {
    stdout += data;
  });
  child.stderr?.on('data', (data) => {
    stderr += data;
  });
  const looking = new Set<() => void>();
  const look = () => {
    for (const again of looking) again();
  };
  let over = false;
  child.on('message', (message) => {
    messages.push(message);
    look();
  });
  const ended: Child['ended'] = new Promise((resolve) => {
    child.once('close', (code, signal) => {
      over = true;
      look();
      resolve({ code, signal, stdout, stderr });
    });
  });
  let seen = 0;
  function message<T>(wanted: (message: T) => boolean = () => true): Promise<T> {
    return new Promise((resolve, reject) => {
      const again = () => {
        for (; seen < messages.length; seen++) {
          if (!wanted(messages[seen] as T)) continue;
          looking.delete(again);
          return resolve(messages[seen++] as T);
        }
        if (!over) return undefined;
        looking.delete(again);
        return reject(new Error(`${name} ended before it said so: ${stderr}`));
      };
      looking.add(again);
      again();
    });
  }
  return { process: child, messages, message, ended };
}

/** Names and hashes of everything in a directory, to tell whether anything was touched. */
export function snapshot(directory: string): Record<string, string> {
  const files: Record<string, string> = {};
  for (const entry of fs.readdirSync(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = path.join(entry.parentPath ?? entry.path, entry.name);
    files[path.relative(directory, file)] = createHash('sha256').update(fs.readFileSync(file)).digest('hex');
  }
  return files;
}

/** The names of the segment files in a log's directory, oldest first. */
/** Where the first frame with records begins: a stamp stands before it when the writer was slow enough to be idle. */
export function firstRecordsAt(file: string): number {
  return fs.readFileSync(file).indexOf('RWLF\x01', 4096);
}

export function segmentFiles(directory: string): string[] {
  return fs
    .readdirSync(directory)
    .filter((name) => name.endsWith('.wal'))
    .sort();
}
