import type { BatchOperation, Lsn, WriteAheadLog } from 'ringwal';
import { copyOf, type Entry, keyOf } from './entries.js';

/** The log holds two kinds of keys, told apart by their first byte: those of the user, and the manifest's own. */
const USER = 'u';
const MANIFEST = 'm';
const FLUSHED = 'flushed';

/** What the store consists of, beside the log's end. */
export interface Manifest {
  /** Size in bytes by id, the oldest first. */
  tables: Map<number, number>;
  /** Everything up to this LSN is in the tables. */
  flushed: Lsn;
}

/** A user's operation as the log holds it. */
export function inLog({ key, value }: Entry): BatchOperation {
  const name = Buffer.from(USER + key, 'latin1');
  return value === undefined ? { type: 'del', key: name } : { type: 'put', key: name, value };
}

/**
 * Makes another manifest the one that counts, durably, and in one step: which tables there are and up to where they reach is
 * one transaction. All tables are named each time, since clean-up may take from the log what named them before.
 */
export async function commitManifest(wal: WriteAheadLog, { tables, flushed }: Manifest, dropped: number[]) {
  const tx = wal.transaction();
  for (const [id, bytes] of tables) await tx.put(MANIFEST + id, String(bytes));
  for (const id of dropped) await tx.delete(MANIFEST + id);
  await tx.put(MANIFEST + FLUSHED, String(flushed));
  await tx.commit({ durability: 'disk' });
}

/** Replays the log: the newest manifest, and the user's operations, into `apply`. */
export async function readLog(wal: WriteAheadLog, apply: (entry: Entry, lsn: Lsn) => void): Promise<Manifest> {
  const found = new Map<string, string>();
  await wal.replay((op, lsn) => {
    if (op.type === 'clear') throw new Error('This store never clears: this log is not its own.');
    const key = keyOf(op.key);
    const value = op.type === 'put' ? copyOf(op.value) : undefined;
    if (key.startsWith(USER)) apply({ key: key.slice(1), value }, lsn);
    else if (value === undefined) found.delete(key.slice(1));
    else found.set(key.slice(1), String(value));
  });
  const flushed = Number(found.get(FLUSHED) ?? 0);
  found.delete(FLUSHED);
  const { checkpoint } = wal.recovery;
  // A checkpoint is always behind a manifest. Better no store than one without its tables, which would pass for orphans.
  if (flushed < checkpoint) throw new Error(`The log was cleaned up to LSN ${checkpoint} and names no tables.`);
  const tables = [...found].map(([id, bytes]) => [Number(id), Number(bytes)] as const).sort(([a], [b]) => a - b);
  return { tables: new Map(tables), flushed };
}
