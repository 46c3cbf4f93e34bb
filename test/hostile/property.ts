import fc from 'fast-check';

/** Something that must hold for whatever bytes, or values, somebody hands in. */
export interface Property {
  /** What is promised. */
  name: string;
  /** How many runs `npm test` makes, and how many a round of `npm run fuzz` does: by what one run costs. */
  runs: number;
  /** Throws what fast-check found: the smallest input that breaks it, with seed and path. */
  check(seed: number, runs: number): Promise<void>;
}

/** Nothing that is checked here may be kept waiting, nor keep its inputs. */
const COMMON = { verbose: 0, endOnFailure: false } as const;

/** A property of one arbitrary input. `holds` throws when it does not. */
export function property<T>(
  name: string,
  runs: number,
  input: fc.Arbitrary<T>,
  holds: (value: T) => void | Promise<void>,
): Property {
  return {
    name,
    runs,
    check: (seed, numRuns) =>
      fc.assert(
        fc.asyncProperty(input, async (value) => await holds(value)),
        { ...COMMON, seed, numRuns },
      ),
  };
}

/** Throws unless it is so: for what is inside a property, where fast-check wants an exception. */
export function must(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(what);
}
