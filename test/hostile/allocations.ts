/** The ways by which the engine gets memory whose size a file could ask for. */
const FROM_BUFFER = ['alloc', 'allocUnsafe', 'allocUnsafeSlow'] as const;

/**
 * Runs `work` and returns the largest single piece of memory that was asked for by a size meanwhile. What is only taken
 * as a view of something else does not count. Not for runs that overlap.
 */
export async function largestAllocation<T>(work: () => T | Promise<T>): Promise<{ largest: number; result: T }> {
  let largest = 0;
  const note = (size: unknown) => {
    if (typeof size === 'number') largest = Math.max(largest, size);
  };
  const array = globalThis.Uint8Array;
  const kept = FROM_BUFFER.map((name) => [name, Buffer[name]] as const);
  globalThis.Uint8Array = new Proxy(array, {
    construct(target, args, newTarget) {
      note(args[0]);
      return Reflect.construct(target, args, newTarget);
    },
  });
  for (const [name, original] of kept) {
    Buffer[name] = ((size: number, ...rest: never[]) => {
      note(size);
      return original(size, ...rest);
    }) as never;
  }
  try {
    return { result: await work(), largest };
  } finally {
    globalThis.Uint8Array = array;
    for (const [name, original] of kept) Buffer[name] = original as never;
  }
}
