import { EventEmitter } from 'eventemitter3';

type Listener = (...args: unknown[]) => unknown;
type AnyListener = (...args: never[]) => unknown;

/**
 * An EventEmitter whose listeners cannot harm each other: what one throws, or rejects with, goes to `error`; and an
 * `error` that nobody listens to becomes a warning of the process.
 */
export class GuardedEmitter<Events extends EventEmitter.ValidEventTypes> extends EventEmitter<Events> {
  readonly #guards = new WeakMap<AnyListener, Listener>();

  override on<T extends EventEmitter.EventNames<Events>>(
    event: T,
    fn: EventEmitter.EventListener<Events, T>,
    context?: unknown,
  ): this {
    super.on(event, this.#guard(fn) as typeof fn, context);
    this.listenersChanged();
    return this;
  }

  override addListener<T extends EventEmitter.EventNames<Events>>(
    event: T,
    fn: EventEmitter.EventListener<Events, T>,
    context?: unknown,
  ): this {
    return this.on(event, fn, context);
  }

  override once<T extends EventEmitter.EventNames<Events>>(
    event: T,
    fn: EventEmitter.EventListener<Events, T>,
    context?: unknown,
  ): this {
    super.once(event, this.#guard(fn) as typeof fn, context);
    this.listenersChanged();
    return this;
  }

  override removeListener<T extends EventEmitter.EventNames<Events>>(
    event: T,
    fn?: EventEmitter.EventListener<Events, T>,
    context?: unknown,
    once?: boolean,
  ): this {
    const guard = fn && (this.#guards.get(fn as AnyListener) as typeof fn | undefined);
    super.removeListener(event, guard ?? fn, context, once);
    this.listenersChanged();
    return this;
  }

  override off<T extends EventEmitter.EventNames<Events>>(
    event: T,
    fn?: EventEmitter.EventListener<Events, T>,
    context?: unknown,
    once?: boolean,
  ): this {
    return this.removeListener(event, fn, context, once);
  }

  override removeAllListeners(event?: EventEmitter.EventNames<Events>): this {
    super.removeAllListeners(event);
    this.listenersChanged();
    return this;
  }

  /** Says it loudly: to the listeners of `error`, or as a warning when there are none. */
  protected report(error: unknown): void {
    const emit = this.emit as unknown as (event: string, error: unknown) => boolean;
    if (!emit.call(this, 'error', error))
      process.emitWarning(error instanceof Error ? error : new Error(String(error)));
  }

  /** Somebody began or ceased to listen to something. */
  protected listenersChanged(): void {}

  #guard(fn: AnyListener): Listener {
    const known = this.#guards.get(fn);
    if (known !== undefined) return known;
    let reporting = false;
    const complain = (error: unknown) => {
      // A listener of `error` that throws must not be told of its own error, over and over.
      if (reporting) return void process.emitWarning(error instanceof Error ? error : new Error(String(error)));
      reporting = true;
      this.report(error);
      reporting = false;
    };
    const guard: Listener = function (this: unknown, ...args: unknown[]) {
      try {
        const result = (fn as Listener).apply(this, args);
        if (result instanceof Promise) result.catch(complain);
      } catch (error) {
        complain(error);
      }
    };
    this.#guards.set(fn, guard);
    return guard;
  }
}
