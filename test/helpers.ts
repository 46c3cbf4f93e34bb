import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { WalRecord } from 'ringwal';

/** A fresh directory that is removed when the test is over. */
export function temporaryDirectory(t: { teardown(fn: () => void): void }): string {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'ringwal-test-'));
  t.teardown(() => fs.rmSync(directory, { recursive: true, force: true }));
  return directory;
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
