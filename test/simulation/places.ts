import { RecordKind } from '../../src/format/record.js';
import { keyOf, kindOf } from './records.js';

/** What was given an LSN. */
export interface Place {
  /** 0: the commit of a transaction of more than one frame. */
  id: number;
  producer: number;
  /** Last LSN of the atomic append that the record belongs to. */
  lastOfAppend: number;
  kind: number;
  key: string;
  /** Of the transaction that it is of. */
  transaction: string | undefined;
  /** An operation that counts only once something commits it, if ever. */
  part: boolean;
  /** Compaction took it out, and it was seen that nobody needs it. */
  gone: boolean;
}

export function placeOf(id: number, producer: number, lastOfAppend: number): Place {
  const kind = id === 0 ? RecordKind.Data : kindOf(id);
  const keyed = kind === RecordKind.Put || kind === RecordKind.Delete;
  const key = keyed ? keyOf(id).toString() : '';
  return { id, producer, lastOfAppend, kind, key, transaction: undefined, part: false, gone: false };
}

/** A key-value operation, and the LSN at which it counts. */
export interface Effect {
  lsn: number;
  at: number;
  place: Place;
}

/**
 * The operations that count up to LSN `last`, in the order in which they do: those of a transaction at its commit, all of
 * them, or none of them when `isLost` says so of a part of it.
 */
export function effectsOf(
  places: readonly Place[],
  parts: ReadonlyMap<string, readonly number[]>,
  last: number,
  isLost: (lsn: number) => boolean,
): Effect[] {
  const effects: Effect[] = [];
  for (let lsn = 1; lsn <= last; lsn++) {
    const place = places[lsn - 1];
    if (place.part || isLost(lsn)) continue;
    if (place.kind !== RecordKind.Data) effects.push({ lsn, at: lsn, place });
    else if (place.id === 0) {
      const its = parts.get(place.transaction!) ?? [];
      if (!its.some(isLost)) for (const own of its) effects.push({ lsn: own, at: lsn, place: places[own - 1] });
    }
  }
  return effects;
}

/** Keys, and the numbers of the puts that gave them their values. */
export type State = Map<string, number>;

export function apply(effects: Iterable<Effect>, onto: State): State {
  for (const { place } of effects) {
    if (place.kind === RecordKind.Put) onto.set(place.key, place.id);
    else if (place.kind === RecordKind.Delete) onto.delete(place.key);
    else onto.clear();
  }
  return onto;
}
