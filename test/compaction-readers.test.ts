import { verifyLog, type WalRecord, WriteAheadLog } from 'ringwal';
import t from 'tap';
import { Catalog } from '../src/reader/catalog.js';
import { nodeFiles } from '../src/reader/files.js';
import { withFile } from '../src/segments/read-segment.js';
import { KeyLog, put } from './compaction-helpers.js';
import { collect, failsWith, numbers, openLog, segmentFiles, temporaryDirectory } from './helpers.js';
import { Random } from './simulation/random.js';
import { readableFiles, SimulatedDisk } from './simulation/simulated-disk.js';

const SMALL = { segmentBytes: 65_536, autoCleanup: false };
const SEGMENTS = 6;
const IN_EACH = 300;

/** In each segment the same keys, and an opaque record for every third. */
async function fill(log: WriteAheadLog, segments = SEGMENTS): Promise<void> {
  for (let segment = 0; segment < segments; segment++) {
    const appends: Promise<unknown>[] = [];
    for (let i = 0; i < IN_EACH; i++) {
      const value = `segment ${segment} `.repeat(8);
      appends.push(i % 3 === 0 ? log.append(value) : log.put(`key ${i}`, value));
    }
    await Promise.all(appends);
    await log.rotate();
  }
}

/** The log, and one of the same directory that knows it from its files alone, as another process does. */
async function twoViews(t: Parameters<typeof openLog>[0]): Promise<{ log: WriteAheadLog; views: WriteAheadLog[] }> {
  const directory = temporaryDirectory(t);
  const log = await openLog(t, SMALL, directory);
  await fill(log);
  return { log, views: [log, await openLog(t, { readOnly: true }, directory)] };
}

function isOpaque({ kind }: WalRecord): boolean {
  return kind === 'data';
}

t.test('readers that are anywhere in the log go on over a compaction', async (t) => {
  const { log, views } = await twoViews(t);
  const total = SEGMENTS * IN_EACH;
  const readers: { seen: WalRecord[]; rest: AsyncIterator<WalRecord[]> }[] = [];
  for (const view of views) {
    for (let from = 1; from < total; from += 173) {
      const rest = view.read({ from, to: total }).batches();
      const { value } = await rest.next();
      readers.push({ seen: [...value], rest });
    }
  }
  const { removed } = await log.compact();
  t.equal(removed, (SEGMENTS - 1) * (IN_EACH / 3) * 2);
  for (const { seen, rest } of readers) {
    const first = seen[0].lsn;
    for (let next = await rest.next(); !next.done; next = await rest.next()) seen.push(...next.value);
    const lsns = seen.map(({ lsn }) => lsn);
    t.same(
      lsns,
      [...lsns].sort((a, b) => a - b),
      'in order',
    );
    t.equal(new Set(lsns).size, lsns.length, 'each once');
    t.equal(seen.at(-1)?.lsn, total);
    // Each opaque record, and the last of each key.
    const there = new Set(lsns);
    const expected = numbers(first, total).filter((lsn) => (lsn - 1) % 3 === 0 || lsn > total - IN_EACH);
    t.same(
      expected.filter((lsn) => !there.has(lsn)),
      [],
    );
  }
});

t.test('whoever knows a segment from before finds what is in the new one', async (t) => {
  const { log, views } = await twoViews(t);
  const files = segmentFiles(log.directory);
  for (const view of views) {
    await collect(view.read());
    for (const lsn of [1, 500, 1000]) await view.get(lsn);
  }
  await log.compact();
  t.ok(segmentFiles(log.directory).length < files.length, 'files are gone');
  for (const view of views) {
    t.equal((await view.get(301)).lsn, 301, 'an opaque record');
    t.equal((await view.get(1799)).kind, 'put');
    await failsWith(t, 'ERR_WAL_NOT_FOUND', view.get(302));
    const records = await collect(view.read({ from: 302, to: 1790 }));
    t.equal(records[0].lsn, 304);
    t.equal(records.filter(isOpaque).length, 496);
    t.equal((await collect(view.read({ from: new Date(0) }))).length, 800);
  }
  // Once more, into the place of the file that the first compaction made.
  await log.put('key 1', 'new');
  await log.rotate();
  await log.compact();
  for (const view of views) t.equal((await collect(view.read({ from: 5 }))).length, 798);
});

t.test('followers, here and from the files alone, get all opaque records through compactions', async (t) => {
  const { log, views } = await twoViews(t);
  const rounds = 5;
  const total = (SEGMENTS + rounds * 2) * IN_EACH;
  const following = views.map((view) => collect(view.read({ follow: true, from: 1, to: total })));
  for (let round = 0; round < rounds; round++) {
    await fill(log, 2);
    await log.compact();
  }
  for (const seen of await Promise.all(following)) {
    t.equal(seen.filter(isOpaque).length, total / 3);
    t.equal(new Set(seen.map(({ lsn }) => lsn)).size, seen.length);
    t.equal(seen.at(-1)?.lsn, total);
  }
});

t.test('a compaction between the list of files and a look at one of them hides nothing', async (t) => {
  const { log } = await twoViews(t);
  const files = nodeFiles(log.directory);
  let compacted = false;
  const list = async () => {
    const names = await files.list();
    if (!compacted && known) {
      compacted = true;
      await log.compact();
    }
    return names;
  };
  let known = false;
  const catalog = new Catalog({ list, open: files.open });
  const [first] = await catalog.refresh();
  known = true;
  await catalog.renew(first.name);
  t.ok(compacted);
  t.not(catalog.entries[0].name, first.name);
  t.equal(catalog.entries[0].header.firstLsn, 1);
});

t.test('verify beside a writer that compacts never takes it for damage', async (t) => {
  const { log } = await twoViews(t);
  let over = false;
  const compacting = (async () => {
    for (let round = 0; round < 8; round++) {
      await fill(log, 2);
      await log.compact();
    }
    over = true;
  })();
  let looks = 0;
  while (!over) {
    const { verdict, damage } = await verifyLog(log.directory);
    looks++;
    if (verdict === 'corrupt') t.fail(JSON.stringify(damage[0]));
    const reading = await WriteAheadLog.open(log.directory, { readOnly: true });
    const records = await collect(reading.read());
    t.ok(records.filter(isOpaque).length >= (SEGMENTS * IN_EACH) / 3);
    await reading.close();
  }
  await compacting;
  t.ok(looks > 0);
});

t.test('appends, clean-up, cuts and checkpoints beside compactions', async (t) => {
  const directory = temporaryDirectory(t);
  const log = await WriteAheadLog.open(directory, { ...SMALL, autoCleanup: true });
  const errors: unknown[] = [];
  log.on('error', (error) => errors.push(error));
  let compactions = 0;
  for (let round = 0; round < 10; round++) {
    const compacting = log.compact().then(() => compactions++);
    await fill(log, 1);
    const last = log.watermark('disk');
    if (round % 3 === 1) await log.checkpoint(last - 2 * IN_EACH).catch((error) => errors.push(error));
    if (round % 3 === 2) {
      const cut = await log.truncateAfter(last - 10).then(
        () => '',
        (error) => error.code,
      );
      t.match(cut, /^(ERR_WAL_INVALID_ARGUMENT)?$/);
    }
    await compacting;
  }
  t.equal(compactions, 10);
  t.same(
    errors.filter((error) => (error as { code?: string }).code !== 'ERR_WAL_INVALID_ARGUMENT'),
    [],
  );
  const map = new Map<string, Uint8Array>();
  await log.recover(map);
  t.ok(map.size <= 200);
  await log.close();
  t.equal((await verifyLog(directory)).verdict, 'clean');
  const again = await openLog(t, SMALL, directory);
  const now = new Map<string, Uint8Array>();
  await again.recover(now);
  t.same(now, map);
});

t.test('a reader knows a compacted file, whichever of those that it replaced could not be removed', async (t) => {
  for (const left of [0, 1]) {
    const log = new KeyLog({ disk: new SimulatedDisk(new Random(1)) });
    for (let segment = 0; segment < 4; segment++) {
      for (let i = 0; i < 20; i++) log.write(put(`key ${i}`, `value ${segment}`));
      log.sequencer.rotate();
    }
    log.write(put('behind', 'it'));
    const { disk } = log;
    const files = readableFiles(disk);
    const catalog = new Catalog(files);
    await catalog.refresh();
    const { name } = log.sequencer.sealed[left];
    const bytes = withFile(disk, name, (file) => {
      const all = new Uint8Array(file.size());
      file.read(all, 0);
      return all;
    });
    t.ok(log.compact() > 0);
    const back = disk.open(name, 'create');
    back.write([bytes], 0);
    back.close();
    t.same(await catalog.refresh(), await new Catalog(files).refresh(), `${name} is still there`);
  }
});
