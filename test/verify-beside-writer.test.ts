import { verifyLog, WriteAheadLog } from 'ringwal';
import t from 'tap';
import { cli } from './cli-helpers.js';
import { temporaryDirectory } from './helpers.js';

t.test('a log that is being written is sound for verify, and dump ends', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await WriteAheadLog.open(directory, { segmentBytes: 1024 * 1024 });
  const payload = Buffer.alloc(200, 'x');
  let appending = true;
  // Something to see from the first round on, however slow the disk is.
  let appended = await log.append(payload);
  // Each of these goes on as soon as its record is on disk; the actor writes while this thread looks.
  const writers = Array.from({ length: 100 }, async () => {
    while (appending) appended = Math.max(appended, await log.append(payload));
  });
  const damage: unknown[] = [];
  let verified = 0;
  try {
    for (let round = 0; round < 30; round++) {
      const before = log.watermark('disk');
      const report = await verifyLog(directory);
      damage.push(...report.damage);
      if (report.lastLsn < before) t.fail(`verify saw LSN ${report.lastLsn} of ${before}`);
      verified = report.records;
    }
    const { code, stdout, stderr } = await cli(['dump', directory, '--from', '2']);
    t.equal(code, 0, stderr);
    t.ok(stdout.startsWith('{"lsn":2,'));
  } finally {
    appending = false;
    await Promise.all(writers);
    await log.close();
  }
  t.same(damage, []);
  t.ok(verified > 0);
  t.match(await verifyLog(directory), { verdict: 'clean', firstLsn: 1, lastLsn: appended, records: appended });
});
