import { Worker } from 'node:worker_threads';
import { fromPlainError, WalError } from '../errors.js';
import { closedError } from '../producer/arguments.js';
import type { SurveyProgress as RecoveryProgress } from '../recovery/survey.js';
import { type Control, LogPhase, Slot } from '../ring/control.js';
import type { ActorData, ActorMessage, ActorReady, ActorRequest } from './messages.js';

interface Answer {
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

/** Who may have something in flight: the appends of this thread, and those who wait for a watermark. */
type Holder = 'appends' | 'waiters';

export interface ActorListener {
  /** A counter of this thread's ring or a watermark moved. */
  wake(): void;
  rotated(message: Extract<ActorMessage, { op: 'rotated' }>): void;
  ringDropped(id: number): void;
  wantSpare(): void;
  wantSyncer(): void;
  /** The actor's thread is gone though nobody closed it. The control block says that the log failed. */
  died(): void;
}

/** The opening thread's end of the line to the I/O actor: starts it, asks it, notices its death. */
export class ActorLink {
  readonly #worker: Worker;
  readonly #control: Control;
  readonly #answers: Answer[] = [];
  readonly #exited: Promise<void>;
  #listener: ActorListener | undefined;
  #started: ((ready: ActorReady | Error) => void) | undefined;
  #recovering: ((progress: RecoveryProgress) => void) | undefined;
  #closing = false;
  #ended = false;
  readonly #holders = new Set<Holder>();

  private constructor(control: Control, data: ActorData) {
    this.#control = control;
    this.#worker = new Worker(new URL('../../workers/io-actor.js', import.meta.url), {
      name: 'ringwal-io',
      workerData: data,
      // The actor runs this package's code alone: the caller's loaders and preloaded modules are none of its business.
      execArgv: [],
    });
    this.#worker.on('message', (message: ActorMessage) => this.#receive(message));
    this.#worker.on('error', (error) => this.#die(error));
    this.#exited = new Promise((resolve) => {
      this.#worker.once('exit', () => {
        this.#ended = true;
        this.#die(new Error('its thread ended'));
        resolve();
      });
    });
  }

  /** Starts the actor and waits until it has recovered the log. Rejects with what kept it from doing so. */
  static async start(
    control: Control,
    data: ActorData,
    signal?: AbortSignal,
    onProgress?: (progress: RecoveryProgress) => void,
  ): Promise<{ link: ActorLink; ready: ActorReady }> {
    const link = new ActorLink(control, data);
    link.#recovering = onProgress;
    const abort = () => link.#started?.(signal!.reason as Error);
    signal?.addEventListener('abort', abort, { once: true });
    const ready = await new Promise<ActorReady | Error>((resolve) => {
      link.#started = resolve;
    });
    signal?.removeEventListener('abort', abort);
    link.#started = undefined;
    if (signal?.aborted || ready instanceof Error) {
      await link.stop();
      throw signal?.aborted ? signal.reason : ready;
    }
    link.#worker.unref();
    return { link, ready };
  }

  listen(listener: ActorListener): void {
    this.#listener = listener;
  }

  /** While any holder is busy, the actor keeps the process alive. */
  hold(holder: Holder, busy: boolean): void {
    if (busy === this.#holders.has(holder)) return;
    if (busy) this.#holders.add(holder);
    else this.#holders.delete(holder);
    this.#updateRef();
  }

  request<T>(request: ActorRequest): Promise<T> {
    if (this.#control.phase === LogPhase.Failed && request.op !== 'close') return Promise.reject(this.failure());
    // Nobody is left to answer.
    if (this.#ended) return Promise.reject(closedError());
    return new Promise<T>((resolve, reject) => {
      this.#answers.push({ resolve: resolve as (value: unknown) => void, reject });
      this.#updateRef();
      this.#worker.postMessage(request);
      Atomics.add(this.#control.slots, Slot.commands, 1);
      this.#control.ring();
    });
  }

  failure(): WalError {
    return new WalError('ERR_WAL_FAILED', `The log failed and must be reopened: ${this.#control.failure()}`);
  }

  /** Asks the actor to drain, seal and end; waits until its thread is gone. */
  async close(): Promise<void> {
    this.#closing = true;
    if (this.#ended) return;
    const answer = this.request({ op: 'close' });
    await Promise.race([answer, this.#exited]);
    await this.#exited;
  }

  /** Ends the thread at once. */
  async stop(): Promise<void> {
    this.#closing = true;
    await this.#worker.terminate();
  }

  #receive(message: ActorMessage): void {
    switch (message.op) {
      case 'wake':
        return this.#listener?.wake();
      case 'rotated':
        return this.#listener?.rotated(message);
      case 'ringDropped':
        return this.#listener?.ringDropped(message.id);
      case 'wantSpare':
        return this.#listener?.wantSpare();
      case 'wantSyncer':
        return this.#listener?.wantSyncer();
      case 'ready':
        return this.#started?.(message.ready);
      case 'recovering':
        return this.#recovering?.(message.progress);
      case 'unable':
        return this.#started?.(fromPlainError(message.error));
      case 'reply': {
        const answer = this.#answers.shift();
        this.#updateRef();
        if (message.ok) answer?.resolve(message.value);
        else answer?.reject(fromPlainError(message.error));
      }
    }
  }

  /** Called for an error and again for the exit that follows it. */
  #die(error: Error): void {
    this.#started?.(new WalError('ERR_WAL_FAILED', `The I/O actor did not start: ${error.message}`, { cause: error }));
    if (!this.#closing && this.#control.phase === LogPhase.Running) {
      this.#control.fail(`the I/O actor died (${error.message})`);
      this.#listener?.died();
    }
    for (const answer of this.#answers.splice(0)) answer.reject(this.failure());
  }

  #updateRef(): void {
    if (this.#holders.size > 0 || this.#closing || this.#answers.length > 0) this.#worker.ref();
    else this.#worker.unref();
  }
}
