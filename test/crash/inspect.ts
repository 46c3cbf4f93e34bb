import { type VerifyReport, verifyLog, WalError, type WalRecord, WriteAheadLog } from 'ringwal';
import type { Ledger } from './ledger.js';

export interface Inspected {
  verdict: VerifyReport['verdict'] | 'no log yet';
  records: number;
}

/** Compares the log, as the death left it, with what must be in it. */
export async function inspect(directory: string, ledger: Ledger): Promise<Inspected> {
  const report = await verifyLog(directory).catch((error) => {
    if (error instanceof WalError && error.code === 'ERR_WAL_NOT_FOUND') return undefined;
    throw error;
  });
  if (report === undefined) {
    ledger.judge([]);
    return { verdict: 'no log yet', records: 0 };
  }
  if (report.verdict === 'corrupt') throw new Error(`verify: ${JSON.stringify(report.damage)}`);
  if (ledger.closed && report.verdict !== 'clean') throw new Error('The log was closed, and its end is torn.');
  const records = await readAll(await WriteAheadLog.open(directory, { readOnly: true }));
  if (records.length !== report.records) throw new Error(`verify saw ${report.records} of ${records.length} records`);
  ledger.judge(records);
  return { verdict: report.verdict, records: records.length };
}

/** The log as the next opening leaves it. */
export async function inspectOpened(directory: string, ledger: Ledger): Promise<void> {
  const wal = await WriteAheadLog.open(directory, { segmentBytes: 256 * 1024, autoCleanup: false });
  const { checkpoint, lastLsn } = wal.recovery;
  if (wal.watermark('disk') !== lastLsn) throw new Error('What was recovered is not reported as durable.');
  const subscription = await wal.subscribe('consumer');
  ledger.opened(checkpoint, subscription.acknowledged);
  ledger.judge(await readAll(wal));
}

async function readAll(log: WriteAheadLog): Promise<WalRecord[]> {
  const all: WalRecord[] = [];
  for await (const records of log.read().batches()) all.push(...records);
  await log.close();
  return all;
}
