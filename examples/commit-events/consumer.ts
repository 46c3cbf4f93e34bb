import type { CommitEvent, WalRecord, WriteAheadLog } from 'ringwal';

/**
 * Reads the records of each advance of a watermark, in order. Advances that come while it is busy are joined to one,
 * because the events of a level are contiguous: so a slow consumer queues nothing but two numbers.
 */
export class Consumer {
  /** The last record that was handled. */
  lsn = 0;
  records = 0;
  advances = 0;
  /** Advances that did not begin where the one before ended. */
  gaps = 0;
  readonly #wal: WriteAheadLog;
  readonly #handle: (record: WalRecord) => void;
  #announced = 0;
  #busy = false;
  #waiters: { lsn: number; resolve: () => void }[] = [];

  constructor(wal: WriteAheadLog, handle: (record: WalRecord) => void) {
    this.#wal = wal;
    this.#handle = handle;
  }

  /** Resolves once the record with this LSN was handled. */
  reached(lsn: number): Promise<void> {
    if (this.lsn >= lsn) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiters.push({ lsn, resolve });
    });
  }

  /** What to call with each commit event. */
  async advance({ first, lsn }: CommitEvent): Promise<void> {
    this.advances++;
    if (first !== this.#announced + 1) this.gaps++;
    this.#announced = lsn;
    if (this.#busy) return;
    this.#busy = true;
    try {
      while (this.lsn < this.#announced) await this.#read(this.lsn + 1, this.#announced);
    } finally {
      this.#busy = false;
    }
  }

  async #read(first: number, last: number): Promise<void> {
    for await (const record of this.#wal.read({ from: first, to: last })) {
      this.#handle(record);
      this.lsn = record.lsn;
      this.records++;
    }
    for (const { lsn, resolve } of this.#waiters) if (lsn <= this.lsn) resolve();
    this.#waiters = this.#waiters.filter(({ lsn }) => lsn > this.lsn);
  }
}
