/** As shells report the death by a signal: 128 and its number. */
const EXIT_CODES: Partial<Record<NodeJS.Signals, number>> = { SIGINT: 130, SIGTERM: 143 };

/** The first Ctrl-C is a request; the second, with the listeners gone, ends the process as usual. */
export function listenForSignals(): { signal: AbortSignal; exitCode(): number; stop(): void } {
  const controller = new AbortController();
  let received: NodeJS.Signals | undefined;
  const onSignal = (name: NodeJS.Signals) => {
    received = name;
    stop();
    controller.abort();
  };
  const stop = () => {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return {
    signal: controller.signal,
    exitCode: () => (received === undefined ? 0 : (EXIT_CODES[received] ?? 1)),
    stop,
  };
}
