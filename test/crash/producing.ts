import type { Durability, WriteAheadLog } from 'ringwal';
import { Random } from '../simulation/random.js';
import { NoteBook } from './notes.js';
import { type Identity, LARGE, labelOf, operationOf, payloadOf } from './records.js';
import type { WriterTask } from './writer-task.js';

export interface ProducingTask extends Omit<WriterTask, 'directory'> {
  thread: number;
  /** See notes.ts. */
  era: SharedArrayBuffer;
  /** Every record fills a frame, so that the encoders get something to do. */
  large?: boolean;
}

const LEVELS: Durability[] = ['memory', 'os', 'os', 'disk', 'disk'];

type Log = Pick<WriteAheadLog, 'append' | 'appendMany' | 'put' | 'delete' | 'batch'>;

/** Appends of every kind at every level, until one fails; notes each that is acknowledged. */
export class Producing {
  readonly #log: Log;
  readonly #book: NoteBook;
  readonly #random: Random;
  readonly #name: string;
  readonly #era: Int32Array;
  #next = 0;

  constructor(log: Log, task: ProducingTask) {
    const { notes, thread, seed, round, large } = task;
    this.#log = log;
    this.#book = new NoteBook(`${notes}.${thread}`);
    this.#random = Random.of(seed, round, thread);
    this.#name = `${large ? LARGE : ''}r${round}t${thread}`;
    this.#era = new Int32Array(task.era);
  }

  /** Resolves to the codes of what failed, in order. */
  async run(): Promise<string[]> {
    const failures: string[] = [];
    while (failures.length === 0) {
      const appends = Array.from({ length: this.#random.between(1, 16) }, () => this.#one());
      for (const result of await Promise.allSettled(appends)) {
        if (result.status === 'rejected') failures.push(String((result.reason as { code?: unknown }).code));
      }
    }
    return failures;
  }

  #one(): Promise<void> {
    const level = this.#random.pick(LEVELS);
    const options = { durability: level };
    const log = this.#log;
    switch (this.#random.below(6)) {
      case 0: {
        const many = this.#identities(this.#random.between(2, 9), () => 'data');
        return this.#note(level, many, () => log.appendMany(many.map(payloadOf), options).then(firstOf));
      }
      case 1: {
        const many = this.#identities(this.#random.between(2, 9), () => this.#random.pick(['put', 'del']));
        return this.#note(level, many, () => log.batch(many.map(operationOf), options).then(firstOf));
      }
      case 2: {
        const [put] = this.#identities(1, () => 'put');
        const { key, value } = operationOf(put) as { key: string; value: string };
        return this.#note(level, [put], () => log.put(key, value, options));
      }
      case 3: {
        const [del] = this.#identities(1, () => 'del');
        return this.#note(level, [del], () => log.delete(labelOf(del), options));
      }
      default: {
        const [data] = this.#identities(1, () => 'data');
        return this.#note(level, [data], () => log.append(payloadOf(data), options));
      }
    }
  }

  #identities(size: number, kind: () => string): Identity[] {
    return Array.from({ length: size }, (_, place) => {
      return { name: this.#name, number: this.#next++, size, place, kind: kind() as Identity['kind'] };
    });
  }

  async #note(level: Durability, identities: Identity[], append: () => Promise<number>): Promise<void> {
    const from = Atomics.load(this.#era, 0);
    const first = await append();
    const to = Atomics.load(this.#era, 0);
    identities.forEach((identity, i) => {
      this.#book.acknowledgement({ lsn: first + i, level, from, to, label: labelOf(identity) });
    });
  }
}

const firstOf = ({ first }: { first: number }) => first;
