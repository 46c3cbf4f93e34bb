import { markGarbage } from '../src/compaction/mark.js';
import { Pace } from '../src/compaction/pace.js';
import { planRuns } from '../src/compaction/plan.js';
import { discardTemporary, rewriteRun, swapIn } from '../src/compaction/rewrite.js';
import { crc32 } from '../src/format/checksum.js';
import { checkValueOf, headerKeyOf, makeRingKey, type RingKey, SALT_BYTES } from '../src/format/encryption.js';
import { Field, FRAME_HEADER_BYTES, FrameType, writeEncoderFields } from '../src/format/frame.js';
import { encodePayload, type FrameKey, putPieces } from '../src/format/frame-payload.js';
import { align8 } from '../src/format/integers.js';
import { KeyRing } from '../src/format/key-ring.js';
import { RecordKind, type WalRecord } from '../src/format/record.js';
import {
  TRANSACTION_PREFIX_BYTES,
  type TransactionPrefix,
  TransactionRole,
  writeTransactionPrefix,
} from '../src/format/transaction.js';
import { type Replayed, replayed } from '../src/kv/replay.js';
import { listPrepared, type PreparedTransaction } from '../src/kv/transactions.js';
import { type Entry, EntryBatch } from '../src/producer/records.js';
import { Stage } from '../src/producer/stage.js';
import { Catalog } from '../src/reader/catalog.js';
import { decodeForReplay } from '../src/reader/decode-frame.js';
import type { LogSource } from '../src/reader/log-source.js';
import { readLog } from '../src/reader/read-log.js';
import { filesOf } from '../src/reader/storage-files.js';
import { type TransactionPlace, transactionRecords } from '../src/reader/transaction-records.js';
import { verifyFiles } from '../src/reader/verify.js';
import { Descriptor, FrameFlag, FrameState, type Ring } from '../src/ring/ring.js';
import { compactingName } from '../src/segments/names.js';
import { retireSegments } from '../src/segments/retire.js';
import type { Bytes } from '../src/types.js';
import { type CrashKind, readableFiles } from './simulation/simulated-disk.js';
import { type LogOptions, SEGMENT_BYTES, SimulatedLog } from './simulation/simulated-log.js';

export const put = (key: string, value: string): Entry => ({ kind: RecordKind.Put, key, value });
export const del = (key: string): Entry => ({ kind: RecordKind.Delete, key, value: undefined });
export const clear = (): Entry => ({ kind: RecordKind.Clear, key: undefined, value: undefined });
export const data = (value: string): Entry => ({ kind: RecordKind.Data, key: undefined, value });

/** A record as it was appended, and where it counts. */
export interface Past extends Entry {
  /** Of the transaction that it belongs to. */
  transaction?: string;
  /** An operation counts at this LSN; at its own when undefined, and never when null: nobody committed it (yet). */
  at?: number | null;
}

/** What is at each LSN, as it was appended. */
export type History = (Past | undefined)[];

/** How the frames of a log are encoded, but for those that are too small for it. */
export interface LogEncoding {
  codec?: number;
  /** Key 1. */
  key?: Uint8Array;
}

export interface KeyLogOptions extends LogOptions, LogEncoding {
  /** Of an encrypted log. */
  logId?: Uint8Array;
}

const LOG_ID = Buffer.from('sixteen letters.');
let names = 0;

/** A log on a simulated disk whose records have keys, with the whole of what was ever in it. */
export class KeyLog extends SimulatedLog {
  /** By LSN; index 0 is unused. */
  readonly history: History = [undefined];
  readonly keys: KeyRing;
  readonly #encoding: LogEncoding;
  readonly #ringKey: RingKey | undefined;
  #published = 0;

  constructor({ codec, key, logId = LOG_ID, ...options }: KeyLogOptions = {}) {
    const actorKey = key && {
      id: 1,
      checkValue: checkValueOf(key, logId, 1),
      headerKey: headerKeyOf(key, logId),
    };
    super({ ...options, ...(actorKey && { encryption: { logId, key: actorKey } }) });
    this.#encoding = { codec, key };
    this.#ringKey = key && makeRingKey(1, key, this.disk.random.bytes(SALT_BYTES));
    this.keys = KeyRing.of(key === undefined ? [] : [{ id: 1, key }], logId);
  }

  /** The next process on what a crash left. */
  next(kind: CrashKind): KeyLog {
    this.disk.restart(kind);
    return this.reopened();
  }

  reopened(): KeyLog {
    const again = new KeyLog({ disk: this.disk, ...this.#encoding });
    again.clock = this.clock;
    again.history.push(...this.history.slice(1));
    return again;
  }

  /** Appends one frame of these records and has it on disk. */
  write(...entries: Entry[]): void {
    this.writeFrame(FrameType.Records, entries);
  }

  /** A transaction that one frame commits. */
  commitWhole(...entries: Entry[]): void {
    const id = this.#newId();
    const at = this.history.length - 1 + entries.length;
    const prefix = { id, role: TransactionRole.Whole, operations: 0, first: 0 };
    this.writeFrame(FrameType.Transaction, entries, prefix, { transaction: id, at });
  }

  /** Says that parts will follow. */
  begin(): string {
    const id = this.#newId();
    this.sequencer.noteTransaction({ step: 'begin', id });
    return id;
  }

  writePart(id: string, ...entries: Entry[]): void {
    const prefix = { id, role: TransactionRole.Part, operations: 0, first: 0 };
    this.writeFrame(FrameType.Transaction, entries, prefix, { transaction: id, at: null });
  }

  /** Prepares a transaction, or commits it at once. */
  end(id: string, step: 'prepare' | 'commit'): void {
    const operations = this.history.filter((past) => past?.transaction === id).length;
    const first = Math.max(
      0,
      this.history.findIndex((past) => past?.transaction === id),
    );
    const { lsn } = this.sequencer.noteTransaction({ step, id, first, operations });
    this.#decided(id, step === 'commit' ? lsn : undefined);
  }

  decide(id: string, step: 'commitPrepared' | 'abortPrepared'): void {
    const { lsn } = this.sequencer.noteTransaction({ step, id });
    this.#decided(id, step === 'commitPrepared' ? lsn : undefined);
  }

  get prepared(): string[] {
    return Object.keys(this.sequencer.state.transactions?.prepared ?? {});
  }

  #decided(id: string, commit: number | undefined): void {
    this.sequencer.sync();
    if (commit === undefined) return;
    for (const past of this.history) if (past?.transaction === id) past.at = commit;
    this.history.push({ ...data(''), transaction: id });
  }

  #newId(): string {
    const hex = Buffer.from(this.disk.random.bytes(16)).toString('hex');
    return [0, 8, 12, 16, 20].map((from, i) => hex.slice(from, [8, 12, 16, 20, 32][i])).join('-');
  }

  /** A frame of some kind. */
  writeFrame(type: number, entries: Entry[], prefix?: TransactionPrefix, past: Partial<Past> = {}): void {
    const { codec = 0 } = this.#encoding;
    const key = this.#ringKey && { ...this.#ringKey, counter: this.#published };
    publish(this.producers[0].ring, this.#published++, entries, type, prefix, { codec, key });
    while (this.sequencer.step());
    if (this.sequencer.failed) throw new Error(this.control.failure());
    this.history.push(...entries.map((entry) => ({ ...entry, ...past })));
  }

  cut(lsn: number): void {
    const gone = this.sequencer.truncateAfter(lsn);
    this.history.length = lsn + 1;
    // What a commit above decided counts no more.
    for (const past of this.history) if ((past?.at ?? 0) > lsn) past!.at = null;
    retireSegments(
      this.disk,
      gone.map(({ name }) => name),
      0,
      SEGMENT_BYTES,
    );
  }

  /** The steps of a compaction, in the order in which the coordinator takes them. */
  compact({ segmentBytes = SEGMENT_BYTES, keyBytes = 1 << 20, pace = new Pace(), keys = this.keys } = {}): number {
    const { sequencer, disk } = this;
    const { key } = this.#encoding;
    const encryption = key && { keys, current: { id: 1, key }, state: sequencer.state.encryption! };
    const sealed = sequencer.sealed.map((info) => ({ ...info }));
    if (sealed.length === 0) return 0;
    const { checkpoint, low } = sequencer.state;
    const marksName = this.#temporary();
    const options = { checkpoint, whole: low === 1 && checkpoint === 0, keyBytes, keys };
    let removed = 0;
    try {
      const { segments, deletesGone } = markGarbage(disk, sealed, marksName, options, pace);
      for (const run of planRuns(segments, segmentBytes)) {
        const target = this.#temporary();
        try {
          const info = rewriteRun(disk, run, marksName, target, pace, encryption);
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
  async records(): Promise<WalRecord[]> {
    const records: WalRecord[] = [];
    const request = { from: this.sequencer.state.low, to: this.watermark(2), follow: undefined, signal: NEVER };
    for await (const batch of readLog(this.source(), request)) records.push(...batch);
    return records;
  }

  /** What a replay shows from an LSN on. */
  async replay(from: number): Promise<Replayed[]> {
    const source = this.source();
    const request = { from, to: this.watermark(2), follow: undefined, signal: NEVER, decoder: decodeForReplay };
    const shown: Replayed[] = [];
    const batches = readLog(source, request);
    for await (const one of replayed(batches, (place) => transactionRecords(source, place))) shown.push(one);
    return shown;
  }

  inDoubt(): Promise<PreparedTransaction[]> {
    return listPrepared(
      () => this.sequencer.state,
      (place: TransactionPlace) => transactionRecords(this.source(), place),
    );
  }

  source(): LogSource {
    const to = this.watermark(2);
    return {
      catalog: new Catalog(readableFiles(this.disk)),
      keys: this.keys,
      low: () => this.sequencer.state.low,
      promised: () => to,
      readable: () => Promise.resolve(to),
      liveEnd: () => undefined,
      liveIndex: () => Promise.resolve(undefined),
      watermark: () => to,
      reached: () => Promise.resolve(false),
    };
  }

  #temporary(): string {
    return compactingName(`${names++}`);
  }
}

const NEVER = new AbortController().signal;

function publish(
  ring: Ring,
  number: number,
  entries: Entry[],
  type: number,
  prefix: TransactionPrefix | undefined,
  { codec, key }: { codec: number; key: FrameKey | undefined },
): void {
  const batch = new EntryBatch(entries);
  // Everything published before is written: the ring is empty.
  const stage = new Stage(ring.data as Buffer);
  const from = FRAME_HEADER_BYTES + (prefix === undefined ? 0 : TRANSACTION_PREFIX_BYTES);
  stage.begin(from);
  batch.write(stage);
  const raw = stage.cursor - FRAME_HEADER_BYTES;
  stage.finish();
  if (prefix !== undefined) writeTransactionPrefix(ring.data, FRAME_HEADER_BYTES, prefix);
  writeEncoderFields(ring.view, 0, type, raw, raw, entries.length);
  const payload = ring.data.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + raw);
  const encoded = encodePayload(ring.data.subarray(0, FRAME_HEADER_BYTES), payload, codec, key);
  if (encoded !== undefined) {
    putPieces(ring.data, FRAME_HEADER_BYTES, encoded.pieces);
    ring.view.setUint8(Field.codec, encoded.codec);
    ring.view.setUint8(Field.encryption, encoded.encryption);
    ring.view.setUint32(Field.storedBytes, encoded.storedBytes, true);
  }
  ring.view.setUint32(Field.payloadCrc, encoded?.crc ?? crc32(payload), true);
  const end = FRAME_HEADER_BYTES + (encoded?.storedBytes ?? raw);
  ring.data.fill(0, end, align8(end));
  const at = ring.descriptor(number);
  ring.descriptors[at + Descriptor.offset] = 0;
  ring.descriptors[at + Descriptor.bytes] = align8(end);
  ring.descriptors[at + Descriptor.flags] = FrameFlag.WantsDisk;
  ring.setState(number, FrameState.Ready);
}

interface Effect {
  lsn: number;
  entry: Entry;
}

/** The operations of a history that count, where and in the order in which they do. */
function effectsOf(history: History): Effect[] {
  const effects = history.flatMap((entry, own) =>
    entry === undefined || entry.kind === RecordKind.Data || entry.at === null
      ? []
      : [{ lsn: entry.at ?? own, own, entry }],
  );
  return effects.sort((a, b) => a.lsn - b.lsn || a.own - b.own);
}

/** The state that they lead to, onto what the state outside held. */
function stateAfter(effects: Effect[], onto = new Map<string, string>()): Map<string, string> {
  for (const { entry } of effects) apply(entry, onto);
  return onto;
}

function apply(entry: Entry, state: Map<string, string>): void {
  if (entry.kind === RecordKind.Put) state.set(String(entry.key), String(entry.value));
  else if (entry.kind === RecordKind.Delete) state.delete(String(entry.key));
  else state.clear();
}

function effectOf({ lsn, op }: Replayed): Effect {
  if (op.type === 'clear') return { lsn, entry: clear() };
  return { lsn, entry: op.type === 'put' ? put(text(op.key), text(op.value)) : del(text(op.key)) };
}

const KINDS = ['data', 'put', 'del', 'clear'] as const;

/** What is wrong with what a log holds, compared with what was appended to it; undefined when nothing is. */
export async function faultOf(log: KeyLog, history: History): Promise<string | undefined> {
  const records = await log.records();
  const there = new Set(records.map(({ lsn }) => lsn));
  for (const { lsn, kind, key, payload, transaction } of records) {
    const { kind: number, key: itsKey = '', value = '', transaction: its } = history[lsn] ?? {};
    const same = KINDS[number ?? -1] === kind && String(value) === text(payload) && its === transaction;
    if (!same || text(key) !== String(itsKey)) return `LSN ${lsn} is not what was appended`;
  }
  const { low } = log.sequencer.state;
  const missing = history.findIndex((entry, lsn) => lsn >= low && entry?.kind === RecordKind.Data && !there.has(lsn));
  if (missing >= 0) return `the opaque record at LSN ${missing} is gone`;
  return (await replayFaultOf(log, history)) ?? (await doubtFaultOf(log, history)) ?? (await verifyFaultOf(log));
}

async function replayFaultOf(log: KeyLog, history: History): Promise<string | undefined> {
  const all = effectsOf(history);
  const starts = startsOf(log, history);
  const shown = starts.length === 0 ? [] : (await log.replay(starts[0])).map(effectOf);
  for (const from of starts) {
    const outside = stateAfter(all.filter(({ lsn }) => lsn < from));
    const expected = stateAfter(
      all.filter(({ lsn }) => lsn >= from),
      new Map(outside),
    );
    // What begins later shows the end of it.
    const part = shown.filter(({ lsn }) => lsn >= from);
    const actual = stateAfter(part, new Map(outside));
    if (!sameMap(expected, actual)) return `a replay from LSN ${from} leads to ${show(actual)}, not ${show(expected)}`;
  }
  const somewhere = starts[starts.length >> 1];
  if (somewhere === undefined) return undefined;
  const again = (await log.replay(somewhere)).map(effectOf);
  const expected = shown.filter(({ lsn }) => lsn >= somewhere);
  const told = (effects: Effect[]) => JSON.stringify(effects);
  return told(again) === told(expected) ? undefined : `a replay from LSN ${somewhere} is not the end of a longer one`;
}

async function doubtFaultOf(log: KeyLog, history: History): Promise<string | undefined> {
  for (const { id, operations, lost } of await log.inDoubt()) {
    const its = history.flatMap((past) => (past?.transaction === id ? [[text(past.key), text(past.value)]] : []));
    const found = operations.map((op) => [text(op.key), op.type === 'put' ? text(op.value) : '']);
    if (lost || JSON.stringify(its) !== JSON.stringify(found)) return `${id}, in doubt, is not what was prepared`;
  }
  return undefined;
}

async function verifyFaultOf(log: KeyLog): Promise<string | undefined> {
  const { verdict, damage } = await verifyFiles(filesOf(log.disk), {}, log.keys);
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

function text(bytes: Bytes | undefined): string {
  return Buffer.from(bytes ?? []).toString();
}

export function sameMap(a: Map<string, string>, b: Map<string, string>): boolean {
  return a.size === b.size && [...a].every(([key, value]) => b.get(key) === value);
}

function show(map: Map<string, string>): string {
  return JSON.stringify([...map].sort());
}
