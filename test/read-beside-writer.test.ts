import { verifyLog, WriteAheadLog } from 'ringwal';
import t from 'tap';
import { temporaryDirectory } from './helpers.js';

t.test('a log that is being written opens read only, and verifies: growth is no damage', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await WriteAheadLog.open(directory, { segmentBytes: 1024 * 1024 });
  const payload = Buffer.alloc(200, 'x');
  let appending = true;
  // Each of these goes on as soon as its record is on disk; the actor writes while this thread looks.
  const writers = Array.from({ length: 400 }, async () => {
    while (appending) await log.append(payload);
  });
  await log.append(payload);
  try {
    for (let round = 0; round < 40; round++) {
      const reader = await WriteAheadLog.open(directory, { readOnly: true });
      let last = 0;
      for await (const records of reader.read().batches()) last = records[records.length - 1].lsn;
      if (last < reader.recovery.lastLsn) t.fail(`read to LSN ${last} of ${reader.recovery.lastLsn}`);
      await reader.close();
      const { verdict, damage } = await verifyLog(directory);
      if (verdict === 'corrupt') t.fail(JSON.stringify(damage));
    }
  } finally {
    appending = false;
    await Promise.all(writers);
    await log.close();
  }
  const { verdict, records } = await verifyLog(directory);
  t.equal(verdict, 'clean');
  t.equal(records, log.recovery.lastLsn + records);
});
