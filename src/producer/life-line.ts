import * as workerThreads from 'node:worker_threads';

/**
 * How the thread that opened a log and a thread that appends to it notice each other's death: a message port between
 * them, which closes with either thread. Node lends no other sign of a terminated thread. It can pass ports between
 * arbitrary threads since 20.19 and 22.5; before that, a dead thread's ring stays until the log is closed.
 */
interface LifeLine {
  ringwal: 'life-line';
  channel: string;
  port: workerThreads.MessagePort;
}

type PostMessageToThread = (threadId: number, value: unknown, transfer: unknown[]) => Promise<void>;

/** Opening thread: what to do when the producer on a channel is gone. */
const expected = new Map<string, () => void>();

function onWorkerMessage(message: unknown): void {
  const { ringwal, channel, port } = (message ?? {}) as Partial<LifeLine>;
  if (ringwal !== 'life-line' || channel === undefined || port === undefined) return;
  port.on('close', () => {
    const gone = expected.get(channel);
    forgetLifeLine(channel);
    gone?.();
  });
  port.unref();
}

export function expectLifeLine(channel: string, gone: () => void): void {
  if (expected.size === 0) process.on('workerMessage', onWorkerMessage);
  expected.set(channel, gone);
}

export function forgetLifeLine(channel: string): void {
  if (expected.delete(channel) && expected.size === 0) process.off('workerMessage', onWorkerMessage);
}

/** Producer's thread: ties a line to the opening thread. The function returned lets go of it. */
export function tieLifeLine(opener: number, channel: string, gone: () => void): () => void {
  const { postMessageToThread } = workerThreads as { postMessageToThread?: PostMessageToThread };
  if (postMessageToThread === undefined || opener === workerThreads.threadId) return () => {};
  const { port1, port2 } = new workerThreads.MessageChannel();
  const lifeLine: LifeLine = { ringwal: 'life-line', channel, port: port2 };
  let tied = true;
  port1.on('close', () => tied && gone());
  port1.unref();
  const letGo = () => {
    tied = false;
    port1.close();
  };
  postMessageToThread(opener, lifeLine, [port2]).catch((error: NodeJS.ErrnoException) => {
    const alone = tied && error.code === 'ERR_WORKER_MESSAGING_FAILED';
    letGo();
    // No such thread, or nobody there listens: it ended before this thread came, or closed the log, which the control block tells.
    if (alone) gone();
  });
  return letGo;
}
