import { Level } from '../../src/format/levels.js';
import type { WalRecord } from '../../src/format/record.js';
import { retireSegments } from '../../src/segments/retire.js';
import { Random } from '../simulation/random.js';
import { readAll } from '../simulation/reading.js';
import { SimulatedDisk } from '../simulation/simulated-disk.js';
import { SEGMENT_BYTES, SimulatedLog } from '../simulation/simulated-log.js';
import type { Image } from './memory-disk.js';

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
}

/** Logs with the pasts that matter: small files, so that many of their mutations can be tried. */
export async function realLogs(): Promise<RealLog[]> {
  const logs: RealLog[] = [];
  for (const [name, write] of Object.entries(PASTS)) {
    const disk = new SimulatedDisk(new Random(logs.length + 1));
    const cutOff = new Map<number, string>();
    logs.push(await asReal(name, await write(disk, cutOff), cutOff));
  }
  return logs;
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

async function asReal(name: string, log: SimulatedLog, cutOff: RealLog['cutOff']): Promise<RealLog> {
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
  const records = await readAll(log.disk, low, lastLsn);
  return { name, image, records: byLsn(records), cutOff, low, lastLsn };
}

/** Everything of a record but its time, as one text. */
export function textOf({ kind, key, payload }: Pick<WalRecord, 'kind' | 'key' | 'payload'>): string {
  return `${kind} ${Buffer.from(key ?? []).toString('hex')} ${Buffer.from(payload).toString('hex')}`;
}

export function byLsn(records: readonly WalRecord[]): Map<number, string> {
  return new Map(records.map((record) => [record.lsn, textOf(record)]));
}
