import type { Positions } from '../format/state.js';

/**
 * Gathers changes of positions while a note of earlier ones is on its way, so that acknowledging each record costs one
 * small write a round trip and not one a record.
 */
export class PositionBook {
  readonly #write: (positions: Positions) => Promise<void>;
  #next: Map<string, Positions[string]> = new Map();
  #nextNoted: Promise<void> | undefined;
  #current: Promise<void> = Promise.resolve();

  constructor(write: (positions: Positions) => Promise<void>) {
    this.#write = write;
  }

  /** Resolves once the change is written. A later change of the same name may go along with it. */
  note(name: string, change: Positions[string]): Promise<void> {
    const known = this.#next.get(name);
    // A new subscription and its first acknowledgement in one note.
    const merged = typeof known === 'object' && known !== null && typeof change === 'number';
    this.#next.set(name, merged ? { ...known, acknowledged: change } : change);
    this.#nextNoted ??= this.#afterCurrent();
    return this.#nextNoted;
  }

  /** Resolves once everything noted so far is written, or could not be. */
  async settled(): Promise<void> {
    await this.#nextNoted?.catch(() => {});
    await this.#current.catch(() => {});
  }

  async #afterCurrent(): Promise<void> {
    await this.#current.catch(() => {});
    const positions = Object.fromEntries(this.#next);
    this.#next = new Map();
    this.#nextNoted = undefined;
    this.#current = this.#write(positions);
    await this.#current;
  }
}
