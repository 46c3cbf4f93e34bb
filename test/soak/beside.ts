// A process that follows the log which another one writes: `beside DIRECTORY SECONDS EVERY_MS`. It checks every record, opens
// the log anew now and then, and sends samples of what it uses.
import { setTimeout as delay } from 'node:timers/promises';
import { WalError, WriteAheadLog } from 'ringwal';
import { identify } from '../crash/records.js';
import { sendSamples } from './sampler.js';

const [directory, seconds, everyMs] = process.argv.slice(2);
const endsAt = performance.now() + Number(seconds) * 1000;
const LIFE_MS = 7_000;
const counts = { lives: 0, followed: 0, overtaken: 0 };
const OVERTAKEN = new Set(['ERR_WAL_TRUNCATED', 'ERR_WAL_NOT_FOUND']);

async function live(): Promise<void> {
  const log = await WriteAheadLog.open(directory, { readOnly: true });
  counts.lives++;
  const until = AbortSignal.timeout(LIFE_MS);
  let next = log.recovery.lastLsn + 1;
  try {
    for await (const record of log.read({ from: next, follow: true, level: 'os', signal: until })) {
      if (record.lsn !== next++) throw new Error(`LSN ${record.lsn} came in the place of ${next - 1}.`);
      identify(record);
      counts.followed++;
    }
  } catch (error) {
    if (!until.aborted) {
      // The writer cut the log, or cleaned up faster than this reads.
      if (!(error instanceof WalError) || !OVERTAKEN.has(error.code)) throw error;
      counts.overtaken++;
    }
  }
  await log.close();
}

sendSamples(Number(everyMs));
while (performance.now() < endsAt) {
  await live().catch((error) => {
    // Before the writer has made it.
    if (!(error instanceof WalError) || !OVERTAKEN.has(error.code)) throw error;
  });
  await delay(100);
}
process.send?.({ counts }, () => process.exit());
