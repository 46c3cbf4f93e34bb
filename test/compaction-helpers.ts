import { markGarbage } from '../src/compaction/mark.js';
import { Pace } from '../src/compaction/pace.js';
import { planRuns } from '../src/compaction/plan.js';
import { discardTemporary, rewriteRun, swapIn } from '../src/compaction/rewrite.js';
import { crc32 } from '../src/format/checksum.js';
import { Field, FRAME_HEADER_BYTES, FrameType, writeEncoderFields } from '../src/format/frame.js';
import { align8 } from '../src/format/integers.js';
import { RecordKind, type WalRecord } from '../src/format/record.js';
import { type Entry, EntryBatch } from '../src/producer/records.js';
import { Stage } from '../src/producer/stage.js';
import { filesOf } from '../src/reader/storage-files.js';
import { verifyFiles } from '../src/reader/verify.js';
import { Descriptor, FrameFlag, FrameState, type Ring } from '../src/ring/ring.js';
import { compactingName } from '../src/segments/names.js';
import { retireSegments } from '../src/segments/retire.js';
import { readAll } from './simulation/reading.js';
import { SEGMENT_BYTES, SimulatedLog } from './simulation/simulated-log.js';

export const put = (key: string, value: string): Entry => ({ kind: RecordKind.Put, key, value });
export const del = (key: string): Entry => ({ kind: RecordKind.Delete, key, value: undefined });
export const clear = (): Entry => ({ kind: RecordKind.Clear, key: undefined, value: undefined });
export const data = (value: string): Entry => ({ kind: RecordKind.Data, key: undefined, value });

/** What is at each LSN, as it was appended. */
export type History = (Entry | undefined)[];

let names = 0;

/** A log on a simulated disk whose records have keys, with the whole of what was ever in it. */
export class KeyLog extends SimulatedLog {
  /** By LSN; index 0 is unused. */
  readonly history: History = [undefined];
  #published = 0;

  /** Appends one frame of these records and has it on disk. */
  write(...entries: Entry[]): void {
    this.writeFrame(FrameType.Records, entries);
  }

  /** A frame of some other kind: `encryption` as the header has it. */
  writeFrame(type: number, entries: Entry[], encryption = 0): void {
    publish(this.producers[0].ring, this.#published++, entries, type, encryption);
    while (this.sequencer.step());
    if (this.sequencer.failed) throw new Error(this.control.failure());
    this.history.push(...entries);
  }

  cut(lsn: number): void {
    const gone = this.sequencer.truncateAfter(lsn);
    this.history.length = lsn + 1;
    retireSegments(
      this.disk,
      gone.map(({ name }) => name),
      0,
      SEGMENT_BYTES,
    );
  }

  /** The steps of a compaction, in the order in which the coordinator takes them. */
  compact({ segmentBytes = SEGMENT_BYTES, keyBytes = 1 << 20, pace = new Pace() } = {}): number {
    const { sequencer, disk } = this;
    const sealed = sequencer.sealed.map((info) => ({ ...info }));
    if (sealed.length === 0) return 0;
    const { checkpoint, low } = sequencer.state;
    const marksName = this.#temporary();
    const options = { checkpoint, whole: low === 1 && checkpoint === 0, keyBytes };
    let removed = 0;
    try {
      const { segments, deletesGone } = markGarbage(disk, sealed, marksName, options, pace);
      for (const run of planRuns(segments, segmentBytes)) {
        const target = this.#temporary();
        try {
          const info = rewriteRun(disk, run, marksName, target, pace);
          sequencer.noteCompaction(sealed[sealed.length - 1].lastLsn, deletesGone);
          swapIn(disk, target, info.name);
          const ids = run.map((old) => old.info.id);
          sequencer.replaceSealed(ids, info);
          const gone = run.slice(0, -1).map((old) => old.info.name);
          retireSegments(disk, gone, 0, SEGMENT_BYTES);
          removed += run.reduce((sum, { dead }) => sum + dead, 0);
        } finally {
          if (!disk.crashed) discardTemporary(disk, [target]);
        }
      }
    } finally {
      if (!disk.crashed) discardTemporary(disk, [marksName]);
    }
    return removed;
  }

  /** All records that are in the log. */
  records(): Promise<WalRecord[]> {
    return readAll(this.disk, this.sequencer.state.low, this.watermark(2));
  }

  #temporary(): string {
    return compactingName(`${names++}`);
  }
}

function publish(ring: Ring, number: number, entries: Entry[], type: number, encryption: number): void {
  const batch = new EntryBatch(entries);
  // Everything published before is written: the ring is empty.
  const stage = new Stage(ring.data as Buffer);
  stage.begin(FRAME_HEADER_BYTES);
  batch.write(stage);
  const end = stage.cursor;
  stage.finish();
  const stored = end - FRAME_HEADER_BYTES;
  writeEncoderFields(ring.view, 0, type, stored, stored, entries.length);
  ring.view.setUint8(Field.encryption, encryption);
  ring.view.setUint32(Field.payloadCrc, crc32(ring.data.subarray(FRAME_HEADER_BYTES, end)), true);
  const at = ring.descriptor(number);
  ring.descriptors[at + Descriptor.offset] = 0;
  ring.descriptors[at + Descriptor.bytes] = align8(end);
  ring.descriptors[at + Descriptor.flags] = FrameFlag.WantsDisk;
  ring.setState(number, FrameState.Ready);
}

/** The state that a history leads to, from an LSN on, onto what the state outside held. */
export function replay(history: History, from = 1, onto = new Map<string, string>()): Map<string, string> {
  for (const entry of history.slice(from)) apply(entry, onto);
  return onto;
}

function apply(entry: Entry | undefined, state: Map<string, string>): void {
  if (entry === undefined || entry.kind === RecordKind.Data) return;
  if (entry.kind === RecordKind.Put) state.set(String(entry.key), String(entry.value));
  else if (entry.kind === RecordKind.Delete) state.delete(String(entry.key));
  else state.clear();
}

/** What is wrong with what a log holds, compared with what was appended to it; undefined when nothing is. */
export async function faultOf(log: KeyLog, history: History): Promise<string | undefined> {
  const records = await log.records();
  const there = new Map(records.map((record) => [record.lsn, record]));
  for (const { lsn, kind, key, payload } of records) {
    const { kind: number, key: itsKey = '', value = '' } = history[lsn] ?? {};
    const same = ['data', 'put', 'del', 'clear'][number ?? -1] === kind && String(value) === text(payload);
    if (!same || text(key) !== String(itsKey)) return `LSN ${lsn} is not what was appended`;
  }
  const { low } = log.sequencer.state;
  const missing = history.findIndex((entry, lsn) => lsn >= low && entry?.kind === RecordKind.Data && !there.has(lsn));
  if (missing >= 0) return `the opaque record at LSN ${missing} is gone`;
  const found = history.map((_, lsn) => (there.has(lsn) ? history[lsn] : undefined));
  for (const from of startsOf(log, history)) {
    const outside = replay(history.slice(0, from));
    const expected = replay(history, from, new Map(outside));
    const actual = replay(found, from, new Map(outside));
    if (!sameMap(expected, actual)) return `a replay from LSN ${from} leads to ${show(actual)}, not ${show(expected)}`;
  }
  const { verdict, damage } = await verifyFiles(filesOf(log.disk));
  return verdict === 'corrupt' ? `verify: ${damage[0].segment} at ${damage[0].offset}: ${damage[0].reason}` : undefined;
}

/**
 * Where a replay may begin: behind every state that may be outside by now or by a later checkpoint, and at the beginning,
 * as long as the log goes back there.
 */
function startsOf({ sequencer: { state } }: KeyLog, history: History): number[] {
  const { checkpoint, low, deletesGone = 0 } = state;
  const least = checkpoint > 0 ? checkpoint : deletesGone;
  const starts = history.map((_, lsn) => lsn + 1).filter((from) => from > least);
  return low === 1 ? [1, ...starts] : starts;
}

function text(bytes: Uint8Array | undefined): string {
  return Buffer.from(bytes ?? []).toString();
}

export function sameMap(a: Map<string, string>, b: Map<string, string>): boolean {
  return a.size === b.size && [...a].every(([key, value]) => b.get(key) === value);
}

function show(map: Map<string, string>): string {
  return JSON.stringify([...map].sort());
}
