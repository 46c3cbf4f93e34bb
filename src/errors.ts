/** Every code a {@link WalError} can carry. The list is the type: a code is stable once it stands here. */
export const WAL_ERROR_CODES = [
  'ERR_WAL_INVALID_ARGUMENT',
  'ERR_WAL_LOCKED',
  'ERR_WAL_CLOSED',
  'ERR_WAL_READ_ONLY',
  'ERR_WAL_NOT_FOUND',
  'ERR_WAL_RECORD_TOO_LARGE',
  'ERR_WAL_NO_SPACE',
  'ERR_WAL_FAILED',
  'ERR_WAL_INDETERMINATE',
  'ERR_WAL_CORRUPT',
  'ERR_WAL_TRUNCATED',
  'ERR_WAL_VERSION',
  'ERR_WAL_KEY',
  'ERR_WAL_TRANSACTION',
] as const;

export type WalErrorCode = (typeof WAL_ERROR_CODES)[number];

/** Where damage was found. Only `ERR_WAL_CORRUPT` carries it. */
export interface DamagePlace {
  /** The segment's file name, as `ringwal inspect` prints it. */
  segment?: string;
  /** Bytes from the start of that file. */
  offset?: number;
  /** The log sequence number that was expected there. */
  lsn?: number;
}

export interface WalErrorOptions extends DamagePlace {
  cause?: unknown;
}

/** The one error class of this package. Branch on `code`; the message is for people. */
export class WalError extends Error {
  readonly code: WalErrorCode;
  readonly segment?: string;
  readonly offset?: number;
  readonly lsn?: number;

  constructor(code: WalErrorCode, message: string, options: WalErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'WalError';
    this.code = code;
    if (options.segment !== undefined) this.segment = options.segment;
    if (options.offset !== undefined) this.offset = options.offset;
    if (options.lsn !== undefined) this.lsn = options.lsn;
  }
}

/** A `WalError` as plain data. Errors lose their fields on the way between threads, so they travel like this. */
export interface PlainError extends DamagePlace {
  code: WalErrorCode;
  message: string;
  cause?: { name: string; message: string; code?: string; errno?: number; syscall?: string };
}

export function toPlainError(error: unknown, fallback: WalErrorCode = 'ERR_WAL_FAILED'): PlainError {
  if (error instanceof WalError) {
    const { code, message, segment, offset, lsn } = error;
    return {
      code,
      message,
      segment,
      offset,
      lsn,
      cause: error.cause === undefined ? undefined : plainCause(error.cause),
    };
  }
  const cause = plainCause(error);
  return { code: fallback, message: cause.message, cause };
}

export function fromPlainError(plain: PlainError): WalError {
  const { code, message, segment, offset, lsn } = plain;
  return new WalError(code, message, { segment, offset, lsn, cause: plain.cause && rebuildCause(plain.cause) });
}

function plainCause(cause: unknown): NonNullable<PlainError['cause']> {
  if (!(cause instanceof Error)) return { name: 'Error', message: textOf(cause) };
  const { name, message } = cause;
  const { code, errno, syscall } = cause as NodeJS.ErrnoException;
  return { name, message, code, errno, syscall };
}

/** Anything can be thrown, also what has no text. */
function textOf(thrown: unknown): string {
  try {
    return String(thrown);
  } catch {
    return `an ${typeof thrown} without a text`;
  }
}

function rebuildCause(plain: NonNullable<PlainError['cause']>): Error {
  const { message, ...fields } = plain;
  return Object.assign(new Error(message), fields);
}

export function invalidArgument(message: string): WalError {
  return new WalError('ERR_WAL_INVALID_ARGUMENT', message);
}

export function corrupt(message: string, place: DamagePlace): WalError {
  return new WalError('ERR_WAL_CORRUPT', message, place);
}

export function isCorrupt(error: unknown): boolean {
  return error instanceof WalError && error.code === 'ERR_WAL_CORRUPT';
}
