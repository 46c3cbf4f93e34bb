const watched = new WeakMap<AbortSignal, Set<() => void>>();

/**
 * Calls `abort` when the signal fires; the function returned calls that off. However many calls share a signal, it has
 * one listener: a signal for thousands of appends is no leak, and Node must not warn of one.
 */
export function onAbort(signal: AbortSignal, abort: () => void): () => void {
  let calls = watched.get(signal);
  if (calls === undefined) {
    const all = new Set<() => void>();
    calls = all;
    watched.set(signal, all);
    signal.addEventListener('abort', () => fire(signal, all), { once: true });
  }
  const all = calls;
  all.add(abort);
  return () => all.delete(abort);
}

function fire(signal: AbortSignal, calls: Set<() => void>): void {
  watched.delete(signal);
  for (const abort of calls) abort();
}
