import type { Bytes } from 'ringwal';

/**
 * What a key holds. The key's bytes are kept as a string with one character a byte ('latin1'): so a Map finds it, `<` sorts
 * it as bytes, and any bytes will do. `undefined` is a tombstone: the key was deleted, and older tables are not asked.
 */
export interface Entry {
  key: string;
  value: Buffer | undefined;
}

export function keyOf(key: Bytes): string {
  return copyOf(key).toString('latin1');
}

/** The caller may reuse its buffers, so what is kept is a copy. */
export function copyOf(bytes: Bytes): Buffer {
  return typeof bytes === 'string' ? Buffer.from(bytes, 'utf8') : Buffer.from(bytes);
}

/** Sorted entries of several sources, newest source first, as one: of each key only what the newest source says. */
export function* merged(sources: Iterable<Entry>[]): Generator<Entry> {
  const iterators = sources.map((source) => source[Symbol.iterator]());
  try {
    const heads = iterators.map((iterator) => iterator.next());
    for (;;) {
      let least: Entry | undefined;
      for (const { done, value } of heads) {
        if (!done && (least === undefined || value.key < least.key)) least = value;
      }
      if (least === undefined) return;
      yield least;
      heads.forEach(({ done, value }, i) => {
        if (!done && value.key === least.key) heads[i] = iterators[i].next();
      });
    }
  } finally {
    for (const iterator of iterators) iterator.return?.();
  }
}
