import type { OpenOptions } from '../coordinator/options.js';
import { rate, size } from './figures.js';

const WIDTH = 28;
const REDRAW_MS = 100;

/** A progress bar on one line of a terminal. Does nothing when standard error is none. */
export class Progress {
  readonly #stream: NodeJS.WriteStream;
  readonly #total: number | undefined;
  readonly #unit: 'bytes' | 'records';
  readonly #startedAt = performance.now();
  #drawnAt = Number.NEGATIVE_INFINITY;

  /** `total` in `unit`; undefined when that is not known. */
  constructor(
    total: number | undefined,
    unit: 'bytes' | 'records' = 'bytes',
    stream: NodeJS.WriteStream = process.stderr,
  ) {
    this.#unit = unit;
    this.#total = total;
    this.#stream = stream;
  }

  update(bytes: number, records: number): void {
    if (!this.#stream.isTTY || performance.now() - this.#drawnAt < REDRAW_MS) return;
    this.#drawnAt = performance.now();
    this.#stream.write(`\r\x1b[2K${this.#line(bytes, records)}`);
  }

  /** Takes the bar off the screen, so that what is printed next has the line to itself. */
  clear(): void {
    if (this.#stream.isTTY && this.#drawnAt > 0) this.#stream.write('\r\x1b[2K');
  }

  #line(bytes: number, records: number): string {
    const seconds = (performance.now() - this.#startedAt) / 1000;
    const speed = `${records.toLocaleString('en')} records  ${rate(records / seconds)}`;
    const total = this.#total;
    if (total === undefined || total === 0) return `${size(bytes)}  ${speed}`;
    const inRecords = this.#unit === 'records';
    const done = Math.min(1, (inRecords ? records : bytes) / total);
    const filled = Math.round(done * WIDTH);
    const left = done > 0 ? `${Math.ceil((seconds / done) * (1 - done))} s left` : '';
    const bar = '█'.repeat(filled) + '░'.repeat(WIDTH - filled);
    return `${bar} ${String(Math.floor(done * 100)).padStart(3)}%  ${inRecords ? `of ${total.toLocaleString('en')}` : `${size(bytes)} of ${size(total)}`}  ${speed}  ${left}`;
  }
}

/** Shows how far the recovery of a log is that has much to read; goes into the options of `open`. */
export function recoveryProgress(): { onProgress: (progress: RecoveryProgress) => void; clear: () => void } {
  let progress: Progress | undefined;
  return {
    onProgress({ bytes, totalBytes, records }) {
      progress ??= new Progress(totalBytes);
      progress.update(bytes, records);
    },
    clear: () => progress?.clear(),
  };
}

type RecoveryProgress = Parameters<NonNullable<OpenOptions['onProgress']>>[0];
