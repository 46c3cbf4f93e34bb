import fs from 'node:fs';
import path from 'node:path';
import { type CompactionReport, verifyLog, type WalRecord, WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { cli } from './cli-helpers.js';
import { collect, failsWith, nextEvent, openLog, segmentFiles, snapshot, temporaryDirectory, text } from './helpers.js';

const SMALL = { segmentBytes: 65_536, autoCleanup: false };

/** Two sealed segments and an open one. Returns what was in the log. */
async function fill(log: WriteAheadLog): Promise<WalRecord[]> {
  await log.batch([
    { type: 'put', key: 'a', value: 'old' },
    { type: 'put', key: 'b', value: 'kept' },
    { type: 'del', key: 'never there' },
  ]);
  await log.append('opaque 1');
  await log.rotate();
  await log.put('a', 'new');
  await log.put('gone', '1');
  await log.delete('gone');
  await log.append('opaque 2');
  await log.rotate();
  await log.put('c', 'in the open segment');
  return collect(log.read());
}

/** What is in the directory, without the segment that is open: that one gets a stamp when the log falls idle. */
function sealedFiles({ directory }: WriteAheadLog): [name: string, hash: string][] {
  const open = segmentFiles(directory).at(-1);
  return Object.entries(snapshot(directory)).map(([name, hash]) => [name, name === open ? '' : hash]);
}

function lsns(records: WalRecord[]): number[] {
  return records.map(({ lsn }) => lsn);
}

async function mapOf(log: WriteAheadLog, from?: number): Promise<Map<string, string>> {
  const map = new Map<string, Uint8Array>();
  await log.recover(map, { from });
  return new Map([...map].sort().map(([key, value]) => [key, text(value)]));
}

t.test('of each key the last operation stays; opaque records, LSNs, times and bytes are what they were', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await openLog(t, SMALL, directory);
  const before = await fill(log);
  const map = await mapOf(log);
  const told = nextEvent(log, 'compact');
  const report = await log.compact();
  t.match(report, { segmentsBefore: 2, segmentsAfter: 1, records: 8, removed: 4 });
  t.ok(report.bytesAfter < report.bytesBefore && report.durationMs > 0);
  t.same(await told, report);

  const after = await collect(log.read());
  t.same(lsns(after), [2, 4, 5, 8, 9]);
  t.same(
    after,
    before.filter(({ lsn }) => lsns(after).includes(lsn)),
  );
  t.same(await mapOf(log), map);
  t.equal(text((await log.get(5)).payload), 'new');
  t.equal((await log.get(4)).timestamp, before[3].timestamp);
  for (const lsn of [1, 3, 6, 7]) await failsWith(t, 'ERR_WAL_NOT_FOUND', log.get(lsn), `LSN ${lsn}`);
  t.same(lsns(await collect(log.read({ from: 3, to: 6 }))), [4, 5]);
  t.match(await verifyLog(directory), { verdict: 'clean', records: 5, segments: 2, firstLsn: 2, lastLsn: 9 });

  await log.close();
  const again = await openLog(t, SMALL, directory);
  t.match(again.recovery, { verdict: 'clean', records: 5, lastLsn: 9, segments: 2 });
  t.same(await collect(again.read()), after);
  t.equal(await again.append('goes on'), 10);
});

t.test('a second compaction of the same segments changes nothing', async (t) => {
  const log = await openLog(t, SMALL);
  await fill(log);
  await log.compact();
  const files = sealedFiles(log);
  t.match(await log.compact(), { segmentsBefore: 1, segmentsAfter: 1, removed: 0 });
  t.same(sealedFiles(log), files);
});

t.test('nothing happens to a log without sealed segments, or without garbage in them', async (t) => {
  const log = await openLog(t, SMALL);
  t.match(await log.compact(), { segmentsBefore: 0, segmentsAfter: 0, bytesAfter: 0, removed: 0, records: 0 });
  await log.appendMany(['a', 'b']);
  await log.put('a', '1');
  await log.rotate();
  const files = sealedFiles(log);
  t.match(await log.compact(), { segmentsBefore: 1, removed: 0, records: 3 });
  t.same(sealedFiles(log), files);
});

t.test('a delete stays as long as a state outside the log may hold its key', async (t) => {
  const log = await openLog(t, SMALL);
  await log.put('a', '1');
  await log.checkpoint(1);
  await log.delete('a');
  await log.rotate();
  await log.compact();
  t.same(await collect(log.replay()), [{ lsn: 2, op: { type: 'del', key: Buffer.from('a') } }], 'above the checkpoint');
  await log.checkpoint(2);
  await log.append('x');
  await log.rotate();
  await log.compact();
  t.same(lsns(await collect(log.read())), [3], 'the checkpoint has seen it');
});

t.test('a clear takes everything before it along, and stays for the state outside', async (t) => {
  const log = await openLog(t, SMALL);
  await log.put('a', '1');
  await log.checkpoint(1);
  await log.rotate();
  await log.append('opaque');
  await log.clear();
  await log.put('b', '1');
  await log.clear();
  await log.put('c', '1');
  await log.rotate();
  await log.compact();
  t.same(lsns(await collect(log.read())), [2, 5, 6]);
});

t.test('a log without a checkpoint forgets its deletes, and then takes no first checkpoint below them', async (t) => {
  const log = await openLog(t, SMALL);
  await log.put('a', '1');
  await log.put('b', '1');
  await log.delete('a');
  await log.append('x');
  await log.rotate();
  await log.compact();
  t.same(lsns(await collect(log.read())), [2, 4]);
  const error = await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', log.checkpoint(2));
  t.match(error.message, /LSN 3 or above/);
  await log.checkpoint(3);
});

t.test('a compacted log is cut no further back than it was compacted', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await openLog(t, SMALL, directory);
  await fill(log);
  await log.compact();
  const error = await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', log.truncateAfter(7));
  t.match(error.message, /LSN 8/);
  await log.truncateAfter(8);
  t.same(lsns(await collect(log.read())), [2, 4, 5, 8]);
  await log.close();
  const again = await openLog(t, SMALL, directory);
  await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', again.truncateAfter(4), 'also after a restart');
  t.equal((await verifyLog(directory)).verdict, 'clean');
});

t.test('a time finds its record in a compacted segment, also in the middle of a frame', async (t) => {
  const log = await openLog(t, SMALL);
  const times: Date[] = [];
  for (let i = 0; i < 6; i++) {
    const lsn = await log.put(`key ${i % 2 === 0 ? i : 1}`, 'x');
    times.push(new Date((await log.get(lsn)).timestamp));
    await new Promise((resolve) => setTimeout(resolve, 3));
  }
  await log.rotate();
  await log.compact();
  t.same(lsns(await collect(log.read())), [1, 3, 5, 6]);
  for (const [i, expected] of [[1, 3, 5, 6], [3, 5, 6], [3, 5, 6], [5, 6], [5, 6], [6]].entries()) {
    t.same(lsns(await collect(log.read({ from: times[i] }))), expected, `from the time of LSN ${i + 1}`);
  }
  t.same(lsns(await collect(log.read({ to: times[3] }))), [1, 3]);
});

t.test('clean-up, subscriptions and rotation go on over compacted segments', async (t) => {
  const log = await openLog(t, SMALL);
  await fill(log);
  const mailer = await log.subscribe('mailer');
  const iterator = mailer[Symbol.asyncIterator]();
  t.equal((await iterator.next()).value.lsn, 1);
  await mailer.close();
  await log.compact();
  const again = await log.subscribe('mailer');
  const seen: number[] = [];
  for await (const { lsn } of again) {
    seen.push(lsn);
    if (lsn === 9) break;
  }
  t.same(seen, [2, 4, 5, 8, 9]);
  await again.ack(9);
  await again.close();
  await log.checkpoint(9);
  t.match(await log.cleanup(), { segments: 1 });
  await failsWith(t, 'ERR_WAL_TRUNCATED', log.get(5));
  await log.put('a', '2');
  await log.rotate();
  await log.compact();
  t.same(lsns(await collect(log.read())), [9, 10]);
});

/** Lines of an access log, by client: real ones if a file of them is named, otherwise alike. */
function accessLog(): { client: string; line: string }[] {
  const file = process.env.RINGWAL_ACCESS_LOG;
  if (file !== undefined) {
    const lines = fs.readFileSync(file, 'latin1').split('\n').slice(0, 60_000);
    return lines.map((line) => ({ client: line.slice(0, Math.max(0, line.indexOf(' '))), line }));
  }
  let seed = 1;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  return Array.from({ length: 30_000 }, (_, i) => {
    const client = `10.${random(4)}.${random(20)}.${random(5)}`;
    return { client, line: `${client} - - "GET /page/${random(500)} HTTP/1.1" 200 ${random(9000)} "${i}"` };
  });
}

t.test('a log of requests by client replays to the same map, and is much smaller', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await WriteAheadLog.open(directory, { segmentBytes: 256 * 1024, durability: 'os' });
  const lines = accessLog();
  for (let i = 0; i < lines.length; i += 1000) {
    const some = lines.slice(i, i + 1000).map(({ client, line }, j) => {
      return j % 97 === 0 ? log.delete(client) : log.put(client, line);
    });
    await Promise.all(some);
  }
  await log.rotate();
  const before = await mapOf(log);
  const report = await log.compact();
  t.same(await mapOf(log), before);
  t.equal(report.records, lines.length);
  t.equal(report.records - report.removed, before.size);
  t.ok(report.bytesAfter < report.bytesBefore / 5, JSON.stringify(report));
  t.match(await verifyLog(directory), { verdict: 'clean', records: before.size });
  await log.close();
});

t.test('while one compaction is under way, those who come share the next', async (t) => {
  const log = await openLog(t, SMALL);
  await fill(log);
  const events: CompactionReport[] = [];
  log.on('compact', (event) => events.push(event));
  const [first, second, third] = await Promise.all([log.compact(), log.compact(), log.compact()]);
  t.same(events, [first, second]);
  t.equal(second, third);
  t.equal(first.removed, 4);
  t.equal(second.removed, 0);
});

t.test('bad options, a closed log and one that is only read', async (t) => {
  const log = await openLog(t, SMALL);
  await fill(log);
  for (const options of [null, 7, { signal: 1 }, { onProgress: 'x' }]) {
    await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', log.compact(options as never), JSON.stringify(options));
  }
  await t.rejects(log.compact({ signal: AbortSignal.abort(new Error('enough')) }), { message: 'enough' });
  await log.close();
  await failsWith(t, 'ERR_WAL_CLOSED', log.compact());
  const reading = await openLog(t, { readOnly: true }, log.directory);
  await failsWith(t, 'ERR_WAL_READ_ONLY', reading.compact());
  for (const autoCompact of [-1, 2, Number.NaN, '0.5', true]) {
    const open = WriteAheadLog.open(temporaryDirectory(t), { autoCompact } as never);
    await failsWith(t, 'ERR_WAL_INVALID_ARGUMENT', open, String(autoCompact));
  }
});

async function fillMany(log: WriteAheadLog, records: number): Promise<void> {
  const appends: Promise<unknown>[] = [];
  for (let i = 0; i < records; i++) {
    appends.push(log.put(`key ${i % 1000}`, `value ${i}`, { durability: 'os' }));
    if (appends.length === 5000) await Promise.all(appends.splice(0));
  }
  await Promise.all(appends);
  await log.rotate();
}

t.test('closing the log, or a signal, ends a compaction, which leaves nothing behind', async (t) => {
  const directory = temporaryDirectory(t);
  for (const how of ['signal', 'close']) {
    const log = await WriteAheadLog.open(directory, { segmentBytes: 256 * 1024 });
    await fillMany(log, 60_000);
    const before = await mapOf(log);
    const controller = new AbortController();
    const compacting = log.compact({ signal: controller.signal });
    if (how === 'close') {
      const ended = failsWith(t, 'ERR_WAL_CLOSED', compacting);
      await Promise.all([log.close(), ended]);
    } else {
      controller.abort(new Error('enough'));
      await t.rejects(compacting, { message: 'enough' });
      await log.close();
    }
    t.same(
      fs.readdirSync(directory).filter((name) => name.startsWith('compacting-')),
      [],
    );
    const again = await WriteAheadLog.open(directory);
    t.same(await mapOf(again), before, how);
    await again.close();
  }
});

t.test('damage in a sealed segment ends a compaction, with its place, and nothing is changed', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await openLog(t, SMALL, directory);
  await fill(log);
  const [, name] = segmentFiles(directory);
  const file = path.join(directory, name);
  const bytes = fs.readFileSync(file);
  const at = bytes.indexOf('gone');
  bytes[at] ^= 1;
  fs.writeFileSync(file, bytes);
  const before = sealedFiles(log);
  const error = await failsWith(t, 'ERR_WAL_CORRUPT', log.compact());
  t.equal(error.segment, name);
  t.equal(error.lsn, 6);
  t.ok(error.offset! < at && error.offset! > at - 200);
  t.same(sealedFiles(log), before);
  t.equal(await log.append('goes on'), 10);
});

t.test('a log with autoCompact compacts itself once there is much garbage, and lets be what has none', async (t) => {
  const log = await openLog(t, { segmentBytes: 256 * 1024, autoCompact: 0.5 });
  const compacted = nextEvent(log, 'compact');
  await fillMany(log, 30_000);
  const report = (await compacted) as CompactionReport;
  t.ok(report.removed > 0);
  const map = await mapOf(log);
  t.equal(map.size, 1000);
  t.equal(map.get('key 999'), 'value 29999');
});

t.test('ringwal compact says what was won, also as JSON', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await WriteAheadLog.open(directory, SMALL);
  await fill(log);
  await log.close();
  const json = await cli(['compact', directory, '--json']);
  t.equal(json.code, 0, json.stderr);
  t.match(JSON.parse(json.stdout), { segmentsBefore: 3, segmentsAfter: 2, records: 9, removed: 4 });
  t.match(await cli(['compact', directory]), { code: 0, stdout: /^0 of 5 records removed/ });
  t.match(await cli(['verify', directory]), { code: 0, stdout: /sound: 5 records/ });
  t.match(await cli(['compact', temporaryDirectory(t)]), { code: 2, stderr: /ERR_WAL_NOT_FOUND/ });
  t.equal((await cli(['compact'])).code, 2);
});

t.test('temporary files of a compaction that a crash ended are gone after the next open', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await WriteAheadLog.open(directory, SMALL);
  await fill(log);
  await log.close();
  fs.writeFileSync(path.join(directory, 'compacting-0123456789ab.tmp'), 'half of it');
  const again: Test | WriteAheadLog = await openLog(t, SMALL, directory);
  await again.rotate();
  t.notOk(fs.readdirSync(directory).some((name) => name.startsWith('compacting-')));
});
