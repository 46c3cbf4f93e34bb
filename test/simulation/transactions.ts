import { fromPlainError, toPlainError, WalError } from '../../src/errors.js';
import { Level } from '../../src/format/levels.js';
import { afterTransaction, type LogState } from '../../src/format/state.js';
import { type TransactionNote, TransactionRole } from '../../src/format/transaction.js';
import type { Transaction } from '../../src/kv/transaction.js';
import { Transactions } from '../../src/kv/transactions.js';
import type { RecordBatch } from '../../src/producer/records.js';
import type { Life } from './life.js';
import { hold, type Told } from './model.js';
import { entryOf, isPutOrDelete } from './records.js';
import type { SentFrame } from './ring-producer.js';

/** Small enough for transactions of many parts. */
const PART_BYTES = 512;
const MOST_FRAME_BYTES = 1500;
const MOST_RECORD_BYTES = 12_000;
/** A ring that is full has room once so many groups were written. */
const MOST_TURNS = 10;

/** What goes on between two parts of a transaction: other threads append, others use the log. */
export type Meanwhile = (life: Life) => void | Promise<void>;

/** The package's own transactions over the rings of a life, with the model's book about them. */
export class LifeTransactions {
  readonly #life: Life;
  readonly #transactions: Transactions;
  #meanwhile: Meanwhile = () => undefined;

  constructor(life: Life) {
    this.#life = life;
    this.#transactions = new Transactions({
      limits: { maxRecordBytes: MOST_RECORD_BYTES, maxTransactionBytes: 1 << 20, partBytes: PART_BYTES },
      mostFrameBytes: MOST_FRAME_BYTES,
      defaultLevel: Level.Disk,
      checkOpen: () => undefined,
      write: async (batch, options) => {
        const frame = this.#append(batch, options?.durability === 'os' ? Level.Os : Level.Disk);
        return { first: frame.firstLsn, last: frame.firstLsn + frame.ids.length - 1 };
      },
      writePart: async (batch) => {
        await this.#meanwhile(life);
        return this.#append(batch, Level.Memory).firstLsn;
      },
      note: async (note) => this.#note(note),
      sync: async () => asked(() => this.#sync()),
      underWay: (work) => work,
    });
  }

  /** One with these operations. */
  begin(operations: number, meanwhile: Meanwhile): { tx: Transaction; told: Told } {
    const { model } = this.#life;
    this.#meanwhile = meanwhile;
    const tx = this.#transactions.begin();
    hold(!model.transactions.has(tx.id), 'Forward', () => `${tx.id} was used before`);
    const told: Told = { ids: [], phase: 'open', preparedAt: 0, durable: false, published: 0 };
    model.transactions.set(tx.id, told);
    while (told.ids.length < operations) {
      const id = this.#life.newId();
      if (!isPutOrDelete(id)) continue;
      told.ids.push(id);
      const { key, value } = entryOf(id);
      void (value.byteLength > 0 ? tx.put(key, value) : tx.delete(key));
    }
    return { tx, told };
  }

  /** Decides about one that is in doubt. Twice is refused. */
  async decide(id: string, commit: boolean): Promise<void> {
    const options = this.#life.random.oneIn(3) ? ({ durability: 'os' } as const) : undefined;
    const decide = (): Promise<unknown> =>
      commit ? this.#transactions.commitPrepared(id, options) : this.#transactions.abortPrepared(id, options);
    await this.settled(id, decide);
    const again = await decide().then(
      () => undefined,
      (error: unknown) => error as WalError,
    );
    const refused = again?.code === 'ERR_WAL_TRANSACTION' || this.#life.down;
    hold(refused, 'Whole', () => `${id} was decided twice`);
  }

  /** Takes a call about a transaction, and notes what became of it. */
  async settled<T>(id: string, call: () => Promise<T>): Promise<T> {
    const { model, sequencer } = this.#life;
    const told = model.transactions.get(id)!;
    told.phase = 'writing';
    this.#life.tally.transactions++;
    try {
      return await call();
    } finally {
      // Whether what is not durable yet lasts, the next recovery tells.
      if (!this.#life.down) {
        const { [id]: prepared } = sequencer.state.transactions?.prepared ?? {};
        told.phase = prepared === undefined ? 'decided' : 'prepared';
        told.durable = model.handed.length === 0;
        told.preparedAt = prepared?.prepared ?? 0;
      }
    }
  }

  #append(batch: RecordBatch, level: number): SentFrame {
    const { model, keys, random } = this.#life;
    const producer = random.pick(this.#life.producers);
    const posting = { level, checksum: random.oneIn(2), encoding: keys.encoding() };
    const idsOf = (id: string, count: number) => {
      const told = model.transactions.get(id)!;
      told.published += count;
      return told.ids.slice(told.published - count, told.published);
    };
    let frame: SentFrame | undefined;
    for (let turn = 0; frame === undefined && turn < MOST_TURNS; turn++) {
      frame = producer.publishBatch(batch, posting, idsOf);
      if (frame === undefined) this.#life.step();
    }
    this.#life.drain();
    if (frame === undefined || this.#life.down) throw new WalError('ERR_WAL_INDETERMINATE', 'The log is down.');
    if (frame.firstLsn === 0) throw new WalError('ERR_WAL_NO_SPACE', 'The frame was refused.');
    return frame;
  }

  /** As over the line to the actor's thread: whatever it throws arrives as a WalError. */
  #note(note: TransactionNote): number {
    return asked(() => {
      const life = this.#life;
      const { model, sequencer } = life;
      life.drain();
      const nextLsn = model.last + 1;
      const work = () => sequencer.noteTransaction(note);
      if (note.step === 'begin' || note.step === 'end') return work().lsn;
      const { state } = sequencer;
      const commits = note.step === 'commit' || note.step === 'commitPrepared';
      if (commits) model.attemptedCommit = { lsn: nextLsn, id: note.id };
      const candidates = [nextLsn, (sequencer.sealed.at(-1)?.lastLsn ?? 0) + 1].map((segmentFirst) =>
        stateBehind(note, state, nextLsn, segmentFirst),
      );
      let lsn = 0;
      life.attempt(candidates, false, () => {
        lsn = work().lsn;
        if (commits) model.committed(lsn, note.id);
      });
      life.collect();
      return lsn;
    });
  }

  #sync(): void {
    this.#life.sequencer.sync();
    this.#life.collect();
  }
}

function asked<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw fromPlainError(toPlainError(error));
  }
}

/** The state behind a step, whose frame lies in a segment that begins with `segmentFirst`. */
function stateBehind(note: TransactionNote, state: LogState, lsn: number, segmentFirst: number): LogState {
  const { id } = note;
  const { operations, first } =
    note.step === 'prepare' || note.step === 'commit'
      ? { operations: note.operations, first: note.first || lsn }
      : (state.transactions?.prepared[id] ?? { operations: 0, first: 0 });
  const role =
    note.step === 'prepare'
      ? TransactionRole.Prepare
      : note.step === 'abortPrepared'
        ? TransactionRole.Abort
        : TransactionRole.Commit;
  return afterTransaction(state, { id, role, operations, first }, lsn, segmentFirst);
}
