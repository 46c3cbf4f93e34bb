/** Standard output that waits for a slow reader and lets one go that has seen enough (`ringwal dump DIR | head`). */
export class Output {
  readonly #stream: NodeJS.WriteStream;
  #gone = false;
  #resume: (() => void) | undefined;
  readonly #leave = new AbortController();

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
    stream.on('drain', () => this.#resume?.());
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
      this.#gone = true;
      this.#leave.abort();
      this.#resume?.();
    });
  }

  /** Fires when nobody reads any more. */
  get closed(): AbortSignal {
    return this.#leave.signal;
  }

  /** Nobody reads any more: whatever is still written goes nowhere. */
  get gone(): boolean {
    return this.#gone;
  }

  async write(text: string): Promise<void> {
    if (this.#gone || this.#stream.write(text)) return;
    await new Promise<void>((resolve) => {
      this.#resume = resolve;
    });
    this.#resume = undefined;
  }
}
