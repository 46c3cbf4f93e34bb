import { type CommitEvent, WriteAheadLog } from 'ringwal';
import { claim, inTemporaryDirectory } from '../support.js';
import { Consumer } from './consumer.js';

/**
 * An online shop's log. The indexer makes orders searchable as soon as the kernel has them ('os'): should the machine
 * lose power, index and log forget the same records. The notifier sends mail, which cannot be taken back, so it waits
 * for 'disk'. Each reads exactly the records that its events name.
 */
const ORDERS = 20_000;
const PAID_EVERY = 10;

await inTemporaryDirectory(async (directory) => {
  const wal = await WriteAheadLog.open(directory, { flushIntervalMs: 50 });

  const index = new Map<string, number>();
  const indexer = new Consumer(wal, (record) => {
    index.set(Buffer.from(record.payload).toString('utf8', 0, 12), record.lsn);
  });
  const mailed: number[] = [];
  let tooEarly = 0;
  const notifier = new Consumer(wal, (record) => {
    if (record.lsn > wal.watermark('disk')) tooEarly++;
    if (Buffer.from(record.payload).includes('paid')) mailed.push(record.lsn);
  });
  let lead = 0;
  // What an async listener rejects with goes to the log's `error` event, as what any listener throws.
  wal.on('commit:os', async (event: CommitEvent) => {
    lead = Math.max(lead, event.lsn - notifier.lsn);
    await indexer.advance(event);
  });
  wal.on('commit:disk', (event: CommitEvent) => notifier.advance(event));

  const paid: Promise<number>[] = [];
  for (let i = 0; i < ORDERS; ) {
    // A hundred customers at a time.
    const orders: Promise<number>[] = [];
    for (const end = i + 100; i < end; i++) {
      const isPaid = i % PAID_EVERY === 0;
      const order = `order-${String(i).padStart(6, '0')} ${isPaid ? 'paid' : 'open'}`;
      const appended = wal.append(order, { durability: isPaid && i % 400 === 0 ? 'disk' : 'os' });
      if (isPaid) paid.push(appended);
      orders.push(appended);
    }
    await Promise.all(orders);
  }
  await wal.sync();
  await Promise.all([indexer.reached(ORDERS), notifier.reached(ORDERS)]);

  for (const [name, { advances, lsn }] of [
    ['indexer  on commit:os  ', indexer],
    ['notifier on commit:disk', notifier],
  ] as const) {
    console.log(`${name}  ${advances} advances, ${(lsn / advances).toFixed(0)} records each, up to LSN ${lsn}`);
  }
  console.log(`the indexer was up to ${lead} records ahead of the notifier\n`);

  claim(
    indexer.gaps === 0 && notifier.gaps === 0,
    'the advances of each level follow one another without gap or overlap',
  );
  claim(indexer.records === ORDERS && notifier.records === ORDERS, `both read ${ORDERS} records, each once`);
  claim(index.size === ORDERS, `${index.size} orders are searchable`);
  claim(tooEarly === 0, 'the notifier never acted on a record above the disk watermark');
  const expected = await Promise.all(paid);
  claim(mailed.join() === expected.join(), `${mailed.length} paid orders were mailed, in order, each once`);
  claim(lead > 0, 'the two levels really differ');
  await wal.close();
});
