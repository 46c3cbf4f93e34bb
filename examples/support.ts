import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/** Runs a demonstration in a fresh directory, which is removed afterwards. */
export async function inTemporaryDirectory(demonstrate: (directory: string) => Promise<void>): Promise<void> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'ringwal-example-'));
  try {
    await demonstrate(directory);
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

/** Prints a claim, and makes the process end with code 1 when it does not hold. */
export function claim(holds: boolean, text: string): void {
  console.log(`${holds ? 'ok  ' : 'FAIL'}  ${text}`);
  if (!holds) process.exitCode = 1;
}

const MIB = 1024 * 1024;

export function mib(bytes: number): string {
  return (bytes / MIB).toFixed(1);
}

/** A row of a table whose columns are as wide as their titles. */
export function row(titles: readonly string[], cells: readonly (string | number)[]): string {
  return titles.map((title, i) => String(cells[i]).padStart(title.length)).join('  ');
}
