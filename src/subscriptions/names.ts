import { invalidArgument } from '../errors.js';
import { describe } from '../producer/arguments.js';

const MOST_BYTES = 255;

/** A name is 1 to 255 bytes of UTF-8, of characters that can be printed. */
export function checkName(name: unknown): asserts name is string {
  if (typeof name !== 'string' || name === '') {
    throw invalidArgument(`The name of a subscription must be a string that is not empty, not ${describe(name)}.`);
  }
  if (Buffer.byteLength(name) > MOST_BYTES) {
    throw invalidArgument(`The name of a subscription may take ${MOST_BYTES} bytes, not ${Buffer.byteLength(name)}.`);
  }
  if (/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]/u.test(name)) {
    throw invalidArgument(
      'The name of a subscription must not contain control characters or half of a surrogate pair.',
    );
  }
}
