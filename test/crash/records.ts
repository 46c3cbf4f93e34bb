import type { BatchOperation, WalRecord } from 'ringwal';

/**
 * What the writers of the crash tests append. A record says who it is (`name|number|size|place|kind`: its producer, its number there,
 * how many records its batch has, its place among them) and the rest of its bytes follow from that. So every record
 * can be checked byte for byte, also one that was never acknowledged.
 */
export interface Identity {
  name: string;
  number: number;
  size: number;
  place: number;
  kind: 'data' | 'put' | 'del';
}

/** Names that begin so are those of producers whose records are all large. */
export const LARGE = 'L';
const LARGE_EVERY = 97;

export function labelOf({ name, number, size, place, kind }: Identity): string {
  return `${name}|${number}|${size}|${place}|${kind}`;
}

function parseLabel(label: string): Identity {
  const [name, number, size, place, kind] = label.split('|');
  return { name, number: Number(number), size: Number(size), place: Number(place), kind: kind as Identity['kind'] };
}

/** Mostly short, now and then one that fills a frame. */
export function fillingOf(name: string, number: number): string {
  const large = name.startsWith(LARGE) || number % LARGE_EVERY === 5;
  const bytes = large ? 40_000 + ((number * 7919) % 200_000) : (number * 131) % 1500;
  return `${name}.${number};`.repeat(Math.ceil(bytes / 8)).slice(0, bytes);
}

/** The payload of a `data` record. */
export function payloadOf(identity: Identity): string {
  return `${labelOf(identity)}|${fillingOf(identity.name, identity.number)}`;
}

export function operationOf(identity: Identity): BatchOperation {
  const key = labelOf(identity);
  if (identity.kind === 'del') return { type: 'del', key };
  return { type: 'put', key, value: fillingOf(identity.name, identity.number) };
}

const utf8 = (bytes: Uint8Array | undefined) => Buffer.from(bytes ?? []).toString('utf8');

/** Who a record of the log is; throws when it is not exactly what its producer appended. */
export function identify(record: WalRecord): Identity {
  const { lsn, kind } = record;
  const whole = utf8(kind === 'data' ? record.payload : record.key);
  const identity = parseLabel(kind === 'data' ? whole.split('|', 5).join('|') : whole);
  const { name, number } = identity;
  const right =
    kind === 'data'
      ? whole === payloadOf(identity)
      : whole === labelOf(identity) && (kind === 'del' || utf8(record.value) === fillingOf(name, number));
  if (!right || identity.kind !== kind) {
    throw new Error(`LSN ${lsn} is not what anybody appended: ${kind} '${whole.slice(0, 80)}'`);
  }
  return identity;
}
