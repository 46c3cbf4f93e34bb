import { KeyRing, keySourceOf } from '../../src/format/key-ring.js';
import type { WalRecord } from '../../src/format/record.js';
import { Catalog } from '../../src/reader/catalog.js';
import type { ReadableFiles } from '../../src/reader/files.js';
import { readLog } from '../../src/reader/read-log.js';
import { newestHeader } from '../../src/segments/read-segment.js';
import type { Storage } from '../../src/storage/storage.js';
import type { Lsn } from '../../src/types.js';

/** What an open of the log with this key, or without one, has to read it with. As there: `ERR_WAL_KEY` when it is not the log's. */
export async function unlocked(storage: Storage, secret: Uint8Array | undefined): Promise<KeyRing> {
  const keys = new KeyRing(keySourceOf(secret));
  const header = newestHeader(storage);
  if (header !== undefined) await keys.unlock(header.logId, header.state.encryption);
  return keys;
}

/** Everything from `low` (or `from`) to `to`, by the package's own reader. */
export async function readWith(
  keys: KeyRing | undefined,
  files: ReadableFiles,
  low: Lsn,
  to: Lsn,
  from?: Lsn | Date,
): Promise<WalRecord[]> {
  const source = {
    catalog: new Catalog(files),
    keys,
    low: () => low,
    promised: () => to,
    readable: async () => to,
    liveEnd: () => undefined,
    liveIndex: async () => undefined,
    watermark: () => to,
    reached: async () => false,
  };
  const records: WalRecord[] = [];
  const request = { from, to, follow: undefined, signal: new AbortController().signal };
  for await (const batch of readLog(source, request)) records.push(...batch);
  return records;
}
