import { randomUUID } from 'node:crypto';
import { BroadcastChannel, threadId } from 'node:worker_threads';
import { invalidArgument, WalError } from '../errors.js';
import type { RingKey } from '../format/encryption.js';
import { Level } from '../format/levels.js';
import { Control, LogPhase } from '../ring/control.js';
import { Ring, RingPhase, RingSlot } from '../ring/ring.js';
import type { Bytes, Lsn } from '../types.js';
import { Appender, type AppenderOptions } from './appender.js';
import { type AppendOptions, type BatchOperation, closedError } from './arguments.js';
import { tieLifeLine } from './life-line.js';
import { type LsnRange, RecordWriter } from './producer.js';

/**
 * What another thread needs to append. A plain object: hand it over by `workerData` or `postMessage`, once, and call
 * {@link connect} with it there. Of an encrypted log it holds a key (of this one ring, not the log's): do not let it out
 * of the process.
 */
export interface ProducerHandle {
  readonly ringwal: 1;
  readonly control: SharedArrayBuffer;
  readonly ring: SharedArrayBuffer;
  /** Name of the BroadcastChannel by which the actor wakes this producer, and nobody else. */
  readonly channel: string;
  /** The thread that opened the log. */
  readonly opener: number;
  readonly defaultLevel: number;
  readonly options: AppenderOptions;
}

/** What comes over a producer's channel: a wake-up of the actor, or the opening thread's next key. */
export type ProducerMessage = 0 | { key: RingKey };

export function makeHandle(
  ring: Ring,
  control: Control,
  defaultLevel: number,
  options: AppenderOptions,
): ProducerHandle {
  return {
    ringwal: 1,
    control: control.memory,
    ring: ring.memory,
    channel: `ringwal-${randomUUID()}`,
    opener: threadId,
    defaultLevel,
    options,
  };
}

/** Whether everything about it is as {@link makeHandle} makes it, on its way from who knows where. */
function isHandle(handle: ProducerHandle): boolean {
  if (typeof handle !== 'object' || handle === null || handle.ringwal !== 1) return false;
  const { ring, control, channel, opener, defaultLevel, options } = handle;
  if (!Ring.fits(ring) || !Control.fits(control)) return false;
  if (typeof channel !== 'string' || channel === '' || !Number.isSafeInteger(opener)) return false;
  if (![Level.Memory, Level.Os, Level.Disk].some((level) => level === defaultLevel)) return false;
  if (typeof options !== 'object' || options === null) return false;
  const { frameBytes, maxRecordBytes, encodeBytes } = options;
  return [frameBytes, maxRecordBytes, encodeBytes].every((bytes) => Number.isSafeInteger(bytes) && bytes > 0);
}

/**
 * Connects this thread to a log that another thread opened. Appends go straight from here to the I/O actor.
 * A handle can be connected once; `ERR_WAL_INVALID_ARGUMENT` says that it was already, or is none.
 */
export async function connect(handle: ProducerHandle): Promise<Producer> {
  if (!isHandle(handle)) throw invalidArgument('connect takes a handle made by producer() of an open log.');
  const ring = new Ring(handle.ring);
  const control = new Control(handle.control);
  if (control.phase === LogPhase.Closed) throw closedError();
  if (control.phase === LogPhase.Failed) throw new WalError('ERR_WAL_FAILED', control.failure());
  if (Atomics.exchange(ring.head, RingSlot.connected, 1) === 1) {
    throw invalidArgument('This producer handle is connected already. Call producer() again for each thread.');
  }
  return new Producer(handle, ring, control);
}

/** A thread's own way into the log: the same calls, options and guarantees as the log itself has. */
export class Producer {
  readonly #ring: Ring;
  readonly #control: Control;
  readonly #appender: Appender;
  readonly #writer: RecordWriter;
  readonly #channel: BroadcastChannel;
  readonly #letGo: () => void;
  #closing: Promise<void> | undefined;

  /** @internal Use {@link connect}. */
  constructor(handle: ProducerHandle, ring: Ring, control: Control) {
    this.#ring = ring;
    this.#control = control;
    this.#channel = new BroadcastChannel(handle.channel);
    // Only what is in flight keeps this thread alive.
    this.#channel.unref();
    let held = false;
    this.#appender = new Appender(ring, control, handle.options, {
      hold: (busy) => {
        if (busy === held) return;
        held = busy;
        if (busy) this.#channel.ref();
        else this.#channel.unref();
      },
      backpressure: () => {},
    });
    this.#channel.onmessage = (event) => {
      const { data } = event as unknown as { data: ProducerMessage };
      if (data !== 0) this.#appender.setKey(data.key);
      this.#appender.wake();
    };
    this.#writer = new RecordWriter(this.#appender, control, handle.defaultLevel);
    this.#letGo = tieLifeLine(handle.opener, handle.channel, () => this.#openerGone());
  }

  /** As `WriteAheadLog.append`. */
  append(payload: Bytes, options?: AppendOptions): Promise<Lsn> {
    return this.#writer.append(payload, options);
  }

  /** As `WriteAheadLog.appendMany`. */
  appendMany(payloads: Iterable<Bytes>, options?: AppendOptions): Promise<LsnRange> {
    return this.#writer.appendMany(payloads, options);
  }

  /** As `WriteAheadLog.put`. */
  put(key: Bytes, value: Bytes, options?: AppendOptions): Promise<Lsn> {
    return this.#writer.put(key, value, options);
  }

  /** As `WriteAheadLog.delete`. */
  delete(key: Bytes, options?: AppendOptions): Promise<Lsn> {
    return this.#writer.delete(key, options);
  }

  /** As `WriteAheadLog.batch`. */
  batch(operations: BatchOperation[], options?: AppendOptions): Promise<LsnRange> {
    return this.#writer.batch(operations, options);
  }

  /** Waits until everything appended here is as durable as it was asked to be, and gives the ring back. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    this.#writer.refuse(new WalError('ERR_WAL_CLOSED', 'This producer is closed. Call producer() for a new handle.'));
    await this.#appender.settled();
    Atomics.store(this.#ring.head, RingSlot.phase, RingPhase.Closing);
    this.#control.ring();
    this.#channel.close();
    this.#letGo();
  }

  #openerGone(): void {
    if (this.#closing !== undefined || this.#control.phase === LogPhase.Closed) return;
    if (this.#control.phase === LogPhase.Running) this.#control.fail('the thread that opened the log is gone');
    this.#appender.wake();
  }
}
