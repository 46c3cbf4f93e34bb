import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { WriteAheadLog } from 'ringwal';
import { claim, inTemporaryDirectory, row } from '../support.js';
import { MailServer, readMails } from './mail-server.js';

/**
 * Starts a shop that sends a mail for each order, kills it with SIGKILL in full flight, several times on one log, and
 * shows that each mail was sent: none lost, none skipped, none sent twice. `--rounds N` (default 5).
 */
const { values } = parseArgs({ options: { rounds: { type: 'string', default: '5' } } });
const rounds = Number(values.rounds);
const service = fileURLToPath(new URL('./service.js', import.meta.url));
const COLUMNS = ['life', 'orders accepted', 'goes on behind LSN', 'deliveries', 'of them again', 'acknowledged LSN'];

/** What one life of the shop noted. */
interface Life {
  from: number;
  orders: { order: string; lsn: number }[];
  delivered: number[];
  /** `acknowledging`: the call was made; `acknowledged`: it has resolved. */
  acknowledging: number;
  acknowledged: number;
}

await inTemporaryDirectory(async (directory) => {
  const log = path.join(directory, 'log');
  const mailbox = path.join(directory, 'sent');
  const lives: Life[] = [];
  console.log(COLUMNS.join('  '));
  for (let life = 1; life <= rounds; life++) {
    const notes = path.join(directory, `notes-${life}`);
    await liveAndDie(log, mailbox, notes, life);
    const known = lastDelivered(lives);
    const found = readLife(notes);
    lives.push(found);
    const again = found.delivered.filter((lsn) => lsn <= known).length;
    const cells = [
      life,
      found.orders.length,
      found.from,
      found.delivered.length,
      again,
      found.acknowledged || found.from,
    ];
    console.log(row(COLUMNS, cells));
  }
  const events = await sendTheRest(log, mailbox);
  console.log();
  check(lives, events, mailbox);
});

async function liveAndDie(log: string, mailbox: string, notes: string, life: number): Promise<void> {
  fs.closeSync(fs.openSync(notes, 'a'));
  const child = spawn(process.execPath, [service, log, mailbox, notes, String(life)], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const exited = once(child, 'exit');
  const gone = exited.then(() => {
    if (!child.killed) throw new Error(`The shop ended by itself with code ${child.exitCode}.`);
  });
  while (fs.statSync(notes).size === 0) await Promise.race([gone, sleep(5)]);
  await Promise.race([gone, sleep(30 + Math.floor(Math.random() * 250))]);
  child.kill('SIGKILL');
  await exited;
}

function readLife(notes: string): Life {
  const life: Life = { from: 0, orders: [], delivered: [], acknowledging: 0, acknowledged: 0 };
  for (const line of fs.readFileSync(notes, 'utf8').split('\n').slice(0, -1)) {
    const [what, value, lsn] = line.split(' ');
    if (what === 'accepted') life.orders.push({ order: value, lsn: Number(lsn) });
    else if (what === 'delivered') life.delivered.push(Number(value));
    else if (what === 'from' || what === 'acknowledging' || what === 'acknowledged') life[what] = Number(value);
  }
  return life;
}

function lastDelivered(lives: Life[]): number {
  return Math.max(0, ...lives.flatMap(({ delivered }) => delivered));
}

/** The last life ends well: it sends what is left. Returns the LSNs of all events that the log holds. */
async function sendTheRest(log: string, mailbox: string): Promise<number[]> {
  const wal = await WriteAheadLog.open(log);
  const events: number[] = [];
  for await (const { lsn, key } of wal.read()) {
    if (
      Buffer.from(key ?? [])
        .toString()
        .startsWith('outbox/')
    )
      events.push(lsn);
  }
  const last = wal.watermark('disk');
  const server = new MailServer(mailbox);
  const mailer = await wal.subscribe('mailer');
  if (mailer.acknowledged < last) {
    for await (const { lsn, key, payload } of mailer) {
      if (
        Buffer.from(key ?? [])
          .toString()
          .startsWith('outbox/')
      )
        server.send(lsn, Buffer.from(payload).toString());
      if (lsn === last) break;
    }
    await mailer.ack(last);
  }
  await wal.close();
  return events;
}

function check(lives: Life[], events: number[], mailbox: string): void {
  const mails = readMails(mailbox);
  const sent = new Set(mails.map(({ lsn }) => lsn));
  const orders = lives.flatMap((life) => life.orders);
  claim(
    orders.length > 0 && orders.every(({ order, lsn }) => sent.has(lsn) && mailOf(mails, lsn).includes(` ${order}:`)),
    `each of the ${orders.length} orders that were accepted by processes that were then killed got its mail`,
  );
  claim(events.length === sent.size && events.every((lsn) => sent.has(lsn)), 'every event in the log was delivered');
  claim(sent.size === mails.length, `${mails.length} mails, and none was sent twice`);
  claim(inOrder(mails.map(({ lsn }) => lsn)), 'they were sent in the order of the log');
  const unbroken = lives.every(({ from, delivered }) => {
    const due = events.filter((lsn) => lsn > from).slice(0, delivered.length);
    return due.every((lsn, i) => lsn === delivered[i]);
  });
  claim(unbroken, 'each life was given an unbroken run, in order, from where it went on');
  const honest = lives.every(({ from }, i) => {
    const before = lives.slice(0, i);
    const promised = Math.max(0, ...before.map((life) => life.acknowledged));
    return from >= promised && from <= Math.max(promised, ...before.map((life) => life.acknowledging));
  });
  claim(honest, 'only what had not been acknowledged was delivered again');
}

function mailOf(mails: { lsn: number; mail: string }[], wanted: number): string {
  return mails.find(({ lsn }) => lsn === wanted)?.mail ?? '';
}

function inOrder(lsns: number[]): boolean {
  return lsns.every((lsn, i) => i === 0 || lsn > lsns[i - 1]);
}
