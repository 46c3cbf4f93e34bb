import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { collect, payloads, temporaryDirectory, text } from './helpers.js';

t.test('what was appended is read back after the log was closed and opened again', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await WriteAheadLog.open(directory);
  t.equal(log.recovery.verdict, 'empty');
  t.equal(await log.append('first'), 1);
  t.equal(await log.put('key', 'value'), 2);
  t.same(await log.appendMany(['a', 'b']), { first: 3, last: 4 });
  await log.close();

  const again = await WriteAheadLog.open(directory);
  t.match(again.recovery, { verdict: 'clean', records: 4, firstLsn: 1, lastLsn: 4 });
  const records = await collect(again.read());
  t.same(payloads(records), ['first', 'value', 'a', 'b']);
  t.equal(text(records[1].key), 'key');
  t.equal(await again.append('next'), 5);
  await again.close();
});
