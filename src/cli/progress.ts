import { rate, size } from './figures.js';

const WIDTH = 28;
const REDRAW_MS = 100;

/** A progress bar on one line of a terminal. Does nothing when standard error is none. */
export class Progress {
  readonly #stream: NodeJS.WriteStream;
  readonly #total: number | undefined;
  readonly #startedAt = performance.now();
  #drawnAt = Number.NEGATIVE_INFINITY;

  /** `total` bytes; undefined when that is not known. */
  constructor(total: number | undefined, stream: NodeJS.WriteStream = process.stderr) {
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
    const done = Math.min(1, bytes / total);
    const filled = Math.round(done * WIDTH);
    const left = done > 0 ? `${Math.ceil((seconds / done) * (1 - done))} s left` : '';
    const bar = '█'.repeat(filled) + '░'.repeat(WIDTH - filled);
    return `${bar} ${String(Math.floor(done * 100)).padStart(3)}%  ${size(bytes)} of ${size(total)}  ${speed}  ${left}`;
  }
}
