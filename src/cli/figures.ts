/** Figures for people. */

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];

export function size(bytes: number): string {
  let unit = 0;
  while (bytes >= 1024 && unit < UNITS.length - 1) {
    bytes /= 1024;
    unit++;
  }
  return `${unit === 0 ? bytes : bytes.toFixed(1)} ${UNITS[unit]}`;
}

export function count(number: number): string {
  return number.toLocaleString('en');
}

export function rate(perSecond: number): string {
  return `${Number.isFinite(perSecond) ? Math.round(perSecond).toLocaleString('en') : 0}/s`;
}

/** `1 segment`, `2 segments`. */
export function plural(number: number, what: string): string {
  return `${count(number)} ${what}${number === 1 ? '' : 's'}`;
}

/** Columns aligned to their widest cell; numbers to the right. */
export function table(head: string[], rows: (string | number)[][]): string {
  const cells = [head, ...rows].map((row) => row.map((cell) => (typeof cell === 'number' ? count(cell) : cell)));
  const widths = head.map((_, i) => Math.max(...cells.map((row) => row[i].length)));
  const right = head.map((_, i) => rows.length > 0 && rows.every((row) => typeof row[i] === 'number'));
  return cells
    .map((row) => row.map((cell, i) => (right[i] ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))).join('  '))
    .map((line) => `  ${line.trimEnd()}\n`)
    .join('');
}
