import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Subscription, WriteAheadLog } from 'ringwal';
import { MailServer } from './mail-server.js';

/**
 * The process that gets killed: a shop. It takes orders, and writes each in one batch with the mail that is to be sent
 * for it: either both are there or none. A subscription carries the mails to the mail server, and acknowledges those
 * that it took.
 */
const LANES = 4;
/** Acknowledging every few is enough: what comes again, the mail server knows. */
const ACKNOWLEDGE_EVERY = 5;

const [directory, mailbox, notes, life] = process.argv.slice(2);
const fd = fs.openSync(notes, 'a');
const note = (what: string, value: number | string) => fs.writeSync(fd, `${what} ${value}\n`);

async function takeOrders(wal: WriteAheadLog, lane: number): Promise<never> {
  for (let i = 0; ; i++) {
    const order = `${life}-${lane}-${i}`;
    const { last } = await wal.batch([
      { type: 'put', key: `order/${order}`, value: JSON.stringify({ order, items: 1 + (i % 5) }) },
      { type: 'put', key: `outbox/${order}`, value: `To customer ${order}: thank you.` },
    ]);
    note('accepted', `${order} ${last}`);
    await sleep(1);
  }
}

async function sendMails(subscription: Subscription): Promise<void> {
  note('from', subscription.acknowledged);
  const server = new MailServer(mailbox);
  let sent = 0;
  for await (const { lsn, key, payload } of subscription) {
    if (
      Buffer.from(key ?? [])
        .toString()
        .startsWith('outbox/')
    ) {
      note('delivered', lsn);
      // The LSN is what makes sending it twice harmless.
      server.send(lsn, Buffer.from(payload).toString());
      if (++sent % ACKNOWLEDGE_EVERY !== 0) continue;
      note('acknowledging', lsn);
      await subscription.ack(lsn);
      note('acknowledged', lsn);
    }
  }
}

const wal = await WriteAheadLog.open(directory, { segmentBytes: 1024 * 1024 });
await Promise.all([
  sendMails(await wal.subscribe('mailer')),
  ...Array.from({ length: LANES }, (_, i) => takeOrders(wal, i)),
]);
