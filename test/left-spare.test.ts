import fs from 'node:fs';
import path from 'node:path';
import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { collect, openLog, payloads, temporaryDirectory } from './helpers.js';

t.test('a spare that an earlier run left behind is the first segment of the next', async (t) => {
  const directory = temporaryDirectory(t);
  const options = { segmentBytes: 65536 };
  const wal = await WriteAheadLog.open(directory, options);
  await wal.append('first');
  await wal.close();
  // What it holds does not matter: the bytes of an old segment, say.
  const spare = path.join(directory, 'spare-0123456789ab.tmp');
  fs.writeFileSync(
    spare,
    Buffer.concat([fs.readFileSync(path.join(directory, '0000000000000001.wal')), Buffer.alloc(65536)]).subarray(
      0,
      65536,
    ),
  );
  const { ino } = fs.statSync(spare);
  const again = await WriteAheadLog.open(directory, options);
  await again.append('second');
  t.notOk(fs.existsSync(spare));
  t.equal(fs.statSync(path.join(directory, '0000000000000002.wal')).ino, ino);
  await again.close();
  const last = await openLog(t, options, directory);
  t.match(last.recovery, { verdict: 'clean', lastLsn: 2 });
  t.same(payloads(await collect(last.read())), ['first', 'second']);
});
