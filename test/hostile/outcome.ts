import { WAL_ERROR_CODES, WalError } from '../../src/errors.js';
import { Unbounded } from './memory-disk.js';
import { must } from './property.js';

export type Outcome<T> = { ok: true; value: T } | { ok: false; error: WalError };

/**
 * What bad input may lead to: a result, or a `WalError` with a code of the list and a message for people. Anything else
 * (a TypeError, a RangeError, work without end) is thrown on.
 */
export async function outcomeOf<T>(work: () => T | Promise<T>): Promise<Outcome<T>> {
  try {
    return { ok: true, value: await work() };
  } catch (error) {
    if (!(error instanceof WalError)) throw error;
    checkError(error);
    return { ok: false, error };
  }
}

/** The same for what does not wait. */
export function outcomeNow<T>(work: () => T): Outcome<T> {
  try {
    return { ok: true, value: work() };
  } catch (error) {
    if (!(error instanceof WalError)) throw error;
    checkError(error);
    return { ok: false, error };
  }
}

function checkError(error: WalError): void {
  must(WAL_ERROR_CODES.includes(error.code), `the code ${error.code} is not in the list`);
  must(error.message.length > 10, 'the message does not say what is wrong');
  must(!(error.cause instanceof Unbounded), 'work without end behind a WalError');
}
