import { Codec } from '../../src/format/codec.js';
import { Level } from '../../src/format/levels.js';
import type { WalRecord } from '../../src/format/record.js';
import { filesOf } from '../../src/reader/storage-files.js';
import { retireSegments } from '../../src/segments/retire.js';
import { data, del, KeyLog, type LogEncoding, put } from '../compaction-helpers.js';
import { Random } from '../simulation/random.js';
import { readAll } from '../simulation/reading.js';
import { SimulatedDisk } from '../simulation/simulated-disk.js';
import { SEGMENT_BYTES, SimulatedLog } from '../simulation/simulated-log.js';
import type { Image } from './memory-disk.js';
import { readWith, unlocked } from './reading.js';

/** A log as the engine wrote it, and what is in it. */
export interface RealLog {
  name: string;
  image: Image;
  /** By LSN, each as one text. */
  records: ReadonlyMap<number, string>;
  /** The same of what `truncateAfter` took: when the header that says so is lost with the first frame, it comes back. */
  cutOff: ReadonlyMap<number, string>;
  low: number;
  lastLsn: number;
  /** The key that it is encrypted with. */
  secret: Uint8Array | undefined;
  /** Compaction left some of its LSNs out. */
  compacted: boolean;
}

/** Logs with the pasts that matter: small files, so that many of their mutations can be tried. */
export async function realLogs(): Promise<RealLog[]> {
  const logs: RealLog[] = [];
  for (const [name, write] of Object.entries(PASTS)) {
    const disk = new SimulatedDisk(new Random(logs.length + 1));
    const cutOff = new Map<number, string>();
    logs.push(await asReal(name, await write(disk, cutOff), cutOff));
  }
  for (const [name, past] of Object.entries(ENCODED)) {
    const log = new KeyLog({ disk: new SimulatedDisk(new Random(logs.length + 1)), ...past });
    writeEncoded(log, past);
    logs.push(await asReal(name, log, new Map(), past));
  }
  return logs;
}

/** A log whose payloads are not what is in the files. */
interface Encoded extends LogEncoding {
  compact?: boolean;
  close?: boolean;
}

const SECRET = Buffer.alloc(32, 'a key');

const ENCODED: Record<string, Encoded> = {
  'compressed by brotli': { codec: Codec.Brotli },
  'compressed by deflate, and closed': { codec: Codec.Deflate, close: true },
  encrypted: { key: SECRET },
  'compressed and encrypted': { codec: Codec.Brotli, key: SECRET },
  compacted: { compact: true },
  'compressed, encrypted and compacted': { codec: Codec.Deflate, key: SECRET, compact: true, close: true },
};

/** Small frames, and some that are large enough to be compressed, in two segments and a third that is open. */
function writeEncoded(log: KeyLog, { compact, close }: Encoded): void {
  const value = 'compresses well, '.repeat(300);
  for (const round of ['1', '2', '3']) {
    log.clock += 10;
    log.write(put('a', round), data(`opaque ${round}`), del('b'));
    log.write(put('large', value + round), put('b', round));
    log.commitWhole(put('c', round), put(`only ${round}`, value));
    if (round !== '3') log.sequencer.rotate();
  }
  if (compact) log.compact();
  if (close) log.sequencer.close();
}

/** What each of the logs went through. */
type Past = (disk: SimulatedDisk, cutOff: Map<number, string>) => SimulatedLog | Promise<SimulatedLog>;

const PASTS: Record<string, Past> = {
  'left as it is': (disk) => {
    const log = new SimulatedLog({ disk });
    appendSome(log, 6);
    log.sequencer.idle();
    return log;
  },
  closed: (disk) => {
    const log = new SimulatedLog({ disk });
    appendSome(log, 5);
    log.sequencer.close();
    return log;
  },
  rotated: (disk) => {
    const log = new SimulatedLog({ disk });
    for (let i = 0; i < 3; i++) {
      appendSome(log, 3);
      log.sequencer.notePositions({ mailer: { acknowledged: i, level: 'os' } });
      log.sequencer.rotate();
    }
    appendSome(log, 2);
    log.sequencer.notePositions({ mailer: 2 });
    log.sequencer.sync();
    return log;
  },
  'cleaned up and recycled': (disk) => {
    const log = new SimulatedLog({ disk });
    for (let i = 0; i < 3; i++) {
      appendSome(log, 4);
      log.sequencer.rotate();
    }
    log.sequencer.updateState((state) => ({ ...state, checkpoint: log.watermark(Level.Disk) - 5 }));
    const gone = log.sequencer.cleanup().map(({ name }) => name);
    for (const spare of retireSegments(disk, gone, 1, SEGMENT_BYTES).spares) log.sequencer.addSpare(spare);
    appendSome(log, 3);
    log.sequencer.rotate();
    appendSome(log, 2);
    return log;
  },
  'cut behind a record': async (disk, cutOff) => {
    const log = new SimulatedLog({ disk });
    appendSome(log, 5);
    log.sequencer.rotate();
    appendSome(log, 3);
    for (const [lsn, text] of byLsn(await readAll(disk, 1, log.watermark(Level.Disk)))) cutOff.set(lsn, text);
    for (const { name } of log.sequencer.truncateAfter(log.watermark(Level.Disk) - 3)) disk.remove(name);
    appendSome(log, 3);
    return log;
  },
  'opened again after a crash': (disk) => {
    const first = new SimulatedLog({ disk });
    appendSome(first, 4);
    first.append(Level.Os, 2);
    first.sequencer.step();
    disk.crash();
    const log = SimulatedLog.reopen(disk, 'process');
    appendSome(log, 3);
    log.sequencer.close();
    return log;
  },
};

function appendSome(log: SimulatedLog, groups: number): void {
  for (let i = 0; i < groups; i++) {
    log.clock += 10;
    log.append(Level.Disk, 1 + (i % 3));
    log.sequencer.step();
    log.collect();
  }
}

async function asReal(
  name: string,
  log: SimulatedLog,
  cutOff: RealLog['cutOff'],
  { key: secret, compact = false }: Encoded = {},
): Promise<RealLog> {
  const image = new Map<string, Uint8Array>();
  for (const file of log.disk.fileNames()) {
    const handle = log.disk.open(file, 'read');
    const bytes = new Uint8Array(handle.size());
    handle.read(bytes, 0);
    handle.close();
    image.set(file, bytes);
  }
  const { low } = log.sequencer.state;
  const lastLsn = log.watermark(Level.Disk);
  const records = await readWith(await unlocked(log.disk, secret), filesOf(log.disk), low, lastLsn);
  return { name, image, records: byLsn(records), cutOff, low, lastLsn, secret, compacted: compact };
}

/** Everything of a record but its time, as one text. */
export function textOf({ kind, key, payload }: Pick<WalRecord, 'kind' | 'key' | 'payload'>): string {
  return `${kind} ${Buffer.from(key ?? []).toString('hex')} ${Buffer.from(payload).toString('hex')}`;
}

export function byLsn(records: readonly WalRecord[]): Map<number, string> {
  return new Map(records.map((record) => [record.lsn, textOf(record)]));
}
