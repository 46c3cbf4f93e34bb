import fc from 'fast-check';
import { frameOffsets, segmentsOf } from './forge.js';
import type { Image } from './memory-disk.js';

/** What accidents, and people, do to the files of a log. No checksum is computed anew. */
export type Mutation =
  | { kind: 'flip'; file: number; place: Place; bit: number }
  | { kind: 'overwrite'; file: number; place: Place; bytes: Uint8Array }
  | { kind: 'insert'; file: number; place: Place; bytes: Uint8Array }
  | { kind: 'delete'; file: number; place: Place; length: number }
  | { kind: 'truncate'; file: number; place: Place }
  | { kind: 'extend'; file: number; bytes: Uint8Array }
  | { kind: 'duplicate'; file: number; place: Place; to: Place; length: number }
  | { kind: 'swap'; file: number; place: Place; to: Place; length: number }
  | { kind: 'splice'; file: number; place: Place; other: number }
  | { kind: 'remove'; file: number }
  | { kind: 'exchange'; file: number; other: number }
  | { kind: 'copy'; file: number; id: string }
  | { kind: 'replace'; file: number; other: number }
  | { kind: 'junk'; name: string; bytes: Uint8Array };

/** Near the beginning of a frame or of the header, or anywhere. */
interface Place {
  near: boolean;
  which: number;
  by: number;
}

const place: fc.Arbitrary<Place> = fc.record({ near: fc.boolean(), which: fc.nat(1 << 20), by: fc.nat(130) });
const file = fc.nat(5);
const bytes = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 200 }),
  fc.nat(600).map((n) => new Uint8Array(n + 1)),
);
const length = fc.oneof(fc.nat(70), fc.nat(5000)).map((n) => n + 1);

/** Names that a stranger could leave in the directory. */
const strange = fc.constantFrom(
  '9999999999999999.wal',
  '9007199254740991.wal',
  '0000000000000000.wal',
  '00000000000000001.wal',
  '1.wal',
  'spare-.tmp',
  'spare-abc.tmp',
  'preparing-abc.tmp',
  'LOCK',
  'quarantine/9999999999999999.wal@0',
  'quarantine/0000000000000009.wal@17',
  'quarantine/notes',
  'readme.txt',
);

export const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('flip' as const), file, place, bit: fc.nat(7) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('overwrite' as const), file, place, bytes }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('insert' as const), file, place, bytes }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('delete' as const), file, place, length }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('truncate' as const), file, place }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('extend' as const), file, bytes }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('duplicate' as const), file, place, to: place, length }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('swap' as const), file, place, to: place, length }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('splice' as const), file, place, other: file }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('remove' as const), file }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('exchange' as const), file, other: file }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('copy' as const),
      file,
      id: fc.nat(12).map((id) => String(id).padStart(16, '0')),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('replace' as const), file, other: file }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('junk' as const), name: strange, bytes }) },
);

/** The mutated log; a new image. `other`: another log, to splice with. */
export function mutate(image: Image, change: Mutation, other: Image): Map<string, Uint8Array> {
  const result = new Map<string, Uint8Array>([...image].map(([name, content]) => [name, Uint8Array.from(content)]));
  if (change.kind === 'junk') return result.set(change.name, change.bytes);
  const names = segmentsOf(result);
  if (names.length === 0) return result;
  const name = names[change.file % names.length];
  const strangers = segmentsOf(other);
  const content = result.get(name)!;
  switch (change.kind) {
    case 'remove':
      result.delete(name);
      return result;
    case 'copy':
      return result.set(`${change.id}.wal`, content);
    case 'exchange': {
      const second = names[change.other % names.length];
      result.set(name, result.get(second)!);
      return result.set(second, content);
    }
    case 'replace':
      return result.set(name, Uint8Array.from(other.get(strangers[change.other % strangers.length])!));
    default:
      return result.set(name, changed(content, change, other.get(strangers[change.file % strangers.length])!));
  }
}

type OfBytes = Exclude<Mutation, { kind: 'junk' | 'remove' | 'copy' | 'exchange' | 'replace' }>;

function changed(content: Uint8Array, change: OfBytes, stranger: Uint8Array): Uint8Array {
  if (change.kind === 'extend') return Buffer.concat([content, change.bytes]);
  if (content.byteLength === 0) return content;
  const at = offsetOf(content, change.place);
  switch (change.kind) {
    case 'flip':
      content[at] ^= 1 << change.bit;
      return content;
    case 'overwrite':
      content.set(change.bytes.subarray(0, content.byteLength - at), at);
      return content;
    case 'insert':
      return Buffer.concat([content.subarray(0, at), change.bytes, content.subarray(at)]);
    case 'delete':
      return Buffer.concat([content.subarray(0, at), content.subarray(at + change.length)]);
    case 'truncate':
      return content.slice(0, at);
    case 'splice':
      return Buffer.concat([content.subarray(0, at), stranger.subarray(at)]);
    case 'duplicate':
      content.copyWithin(offsetOf(content, change.to), at, at + change.length);
      return content;
    case 'swap': {
      const to = offsetOf(content, change.to);
      const length = Math.min(change.length, content.byteLength - Math.max(at, to));
      const [a, b] = [content.slice(at, at + length), content.slice(to, to + length)];
      content.set(b, at);
      content.set(a, to);
      return content;
    }
  }
}

function offsetOf(content: Uint8Array, { near, which, by }: Place): number {
  const places = near ? [0, ...frameOffsets(content)] : [];
  const at = near ? places[which % places.length] + by : which;
  return at % content.byteLength;
}
