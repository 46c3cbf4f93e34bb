import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { connect, type OpenOptions, verifyLog, type WriteAheadLog } from 'ringwal';
import t, { type Test } from 'tap';
import { type SmallDisk, smallExt4, smallTmpfs } from './fixtures/mounts.js';
import type { ProducerResult, ProducerTask } from './fixtures/producer.js';
import { collect, failsWith, fixture, numbers, openLog, payloads, text } from './helpers.js';

/**
 * Faults of real filesystems: small ones of the test's own, which it fills up and breaks. Where the machine does not let it
 * mount any, each test says so and tries nothing.
 */
const OPTIONS: OpenOptions = { segmentBytes: 256 * 1024, ringBytes: 2 * 1024 * 1024 };
const FILLING = 'x'.repeat(3000);

const DISKS: [string, (t: Test) => SmallDisk | undefined][] = [
  ['tmpfs', (t) => smallTmpfs(t, 6)],
  ['ext4', (t) => smallExt4(t, 8)],
];

/** A thread that appends until something fails, and the name of its records. */
function producing(wal: WriteAheadLog, name: string): Promise<ProducerResult> {
  const task: ProducerTask = { handle: wal.producer(), name, count: 100_000, window: 20, bytes: FILLING.length };
  const worker = new Worker(fixture('producer'), { workerData: task });
  return once(worker, 'message').then(([result]) => result as ProducerResult);
}

/** The log is sound, and holds what was acknowledged. */
async function holds(t: Test, directory: string, promised: ReadonlyMap<number, string>): Promise<WriteAheadLog> {
  t.match(await verifyLog(directory), { damage: [] });
  const wal = await openLog(t, OPTIONS, directory);
  const { firstLsn } = wal.recovery;
  const there = new Map((await collect(wal.read())).map(({ lsn, payload }) => [lsn, text(payload).trimEnd()]));
  const missing = [...promised].filter(([lsn, start]) => lsn >= firstLsn && !there.get(lsn)?.startsWith(start));
  t.same(missing, [], `everything of ${promised.size} promised is there`);
  return wal;
}

for (const [what, make] of DISKS) {
  t.test(`a real ${what} that fills up under threads, and is freed again`, async (t) => {
    const disk = make(t);
    if (disk === undefined) return;
    const directory = path.join(disk.directory, 'log');
    const wal = await openLog(t, OPTIONS, directory);
    const promised = new Map<number, string>();
    const keep = async (payload: string) => promised.set(await wal.append(payload), payload);
    await keep('first');
    for (let time = 0; time < 2; time++) {
      disk.fill();
      const names = [`a${time}`, `b${time}`];
      const results = await Promise.all(names.map((name) => producing(wal, name)));
      for (const [i, { lsns, failures }] of results.entries()) {
        t.ok(failures.length > 0, 'it filled up');
        t.same([...new Set(failures)], ['ERR_WAL_NO_SPACE'], 'and every append that failed was told why');
        for (const lsn of lsns) promised.set(lsn, `${names[i]}.`);
      }
      await failsWith(t, 'ERR_WAL_NO_SPACE', wal.append('y'.repeat(300_000)));
      disk.free();
      await keep('z'.repeat(100_000));
      await wal.checkpoint(wal.watermark('disk'));
    }
    const last = wal.watermark('disk');
    await keep('behind it');
    t.equal(wal.watermark('disk'), last + 1, 'what had no room took no LSN');
    await wal.close();
    const again = await holds(t, directory, promised);
    t.equal(again.recovery.verdict, 'clean');
    await again.close();
    disk.unmount();
  });

  t.test(`on a full ${what}: rotation, cut, checkpoint, clean-up, close, recovery and open`, async (t) => {
    const disk = make(t);
    if (disk === undefined) return;
    const directory = path.join(disk.directory, 'log');
    const wal = await openLog(t, { ...OPTIONS, autoCleanup: false }, directory);
    const producer = await connect(wal.producer());
    const promised = new Map<number, string>();
    for (const i of numbers(1, 30)) promised.set(await (i % 2 ? wal : producer).append(`${i}|${FILLING}`), `${i}|`);
    await wal.rotate();
    for (const i of numbers(31, 40)) promised.set(await producer.append(`${i}|`), `${i}|`);
    // Whatever was prepared ahead is used up.
    await wal.sync();
    disk.fill();
    let rotations = 0;
    const error = await failsWith(
      t,
      'ERR_WAL_NO_SPACE',
      (async () => {
        for (; rotations < 10; rotations++) {
          await wal.rotate();
          promised.set(await wal.append(`r${rotations}`), `r${rotations}`);
        }
      })(),
      'a rotation',
    );
    t.match(error.message, /space/);
    await failsWith(t, 'ERR_WAL_NO_SPACE', wal.truncateAfter(20), 'a cut');
    promised.set(await wal.append('still room in the segment'), 'still room');
    await wal.checkpoint(30);
    // A crash here and now: what is on the disk is copied by what would survive it, and opened while it is full.
    const copy = path.join(t.testdirName);
    fs.cpSync(directory, copy, { recursive: true });
    t.teardown(() => fs.rmSync(copy, { recursive: true, force: true }));
    const { segments } = await wal.cleanup();
    t.ok(segments > 0, 'clean-up makes room by itself');
    disk.fill();
    await producer.close();
    await wal.close();
    const reopened = await holds(t, directory, promised);
    await failsWith(t, 'ERR_WAL_NO_SPACE', reopened.append('q'.repeat(400_000)), 'a new segment');
    disk.free();
    promised.set(await reopened.append('q'.repeat(400_000)), 'qqq');
    await reopened.close();
    await (await holds(t, directory, promised)).close();

    fs.rmSync(directory, { recursive: true });
    fs.cpSync(copy, directory, { recursive: true });
    disk.fill();
    const recovered = await openLog(t, OPTIONS, directory);
    t.ok(recovered.recovery.lastLsn >= 41, 'recovered on a full disk');
    t.same(
      payloads(await collect(recovered.read({ from: 31, to: 40 }))),
      numbers(31, 40).map((i) => `${i}|`),
    );
    disk.free();
    t.equal(await recovered.append('after'), recovered.recovery.lastLsn + 1);
    await recovered.close();
    disk.unmount();
  });
}

t.test('a real ext4 that becomes read-only under a live log', async (t) => {
  const disk = smallExt4(t, 8, { onError: 'remount-ro' });
  if (disk === undefined) return;
  const trigger = `/sys/fs/ext4/${disk.device}/trigger_fs_error`;
  if (!fs.existsSync(trigger)) {
    t.comment(`This kernel offers no way to make ext4 read-only while files are open (${trigger}): not tried.`);
    return;
  }
  const directory = path.join(disk.directory, 'log');
  const wal = await openLog(t, OPTIONS, directory);
  const errors: unknown[] = [];
  wal.on('error', (error) => errors.push(error));
  const promised = new Map<number, string>();
  for (const i of numbers(1, 20)) promised.set(await wal.append(`${i}|${FILLING}`), `${i}|`);
  const waiter = failsWith(t, 'ERR_WAL_FAILED', wal.waitFor(1_000_000, 'disk'), 'a waiter');
  const thread = producing(wal, 'thread');
  await wal.waitFor(100, 'disk');
  fs.writeFileSync(trigger, 'a test of the log on it');
  const { lsns, failures } = await thread;
  for (const lsn of lsns) promised.set(lsn, 'thread.');
  t.ok(failures.length > 0, 'the thread heard of it');
  t.ok(
    failures.every((code) => code === 'ERR_WAL_INDETERMINATE' || code === 'ERR_WAL_FAILED'),
    failures.join(),
  );
  await waiter;
  await failsWith(t, 'ERR_WAL_FAILED', wal.append('x'));
  t.match(errors, [{ code: 'ERR_WAL_FAILED', message: /read-only|EROFS|EIO/ }]);
  await wal.close();
  const refused = await failsWith(t, 'ERR_WAL_FAILED', openLog(t, OPTIONS, directory), 'an open while it is read-only');
  t.match(refused.message, /read-only/);
  const reading = await openLog(t, { readOnly: true }, directory);
  t.ok((await collect(reading.read())).length >= promised.size, 'it can be read all the while');
  await reading.close();
  disk.unmount();
  disk.mount();
  const again = await holds(t, directory, promised);
  await again.append('and it goes on');
  await again.close();
  disk.unmount();
});

t.test(
  'a real block device that fails to write: fdatasync says so once, and nothing is acknowledged after it',
  async (t) => {
    const below = smallTmpfs(t, 6);
    if (below === undefined) return;
    // Its blocks come from the tmpfs below when they are written first, and cannot when that is full.
    const image = path.join(below.directory, 'image');
    const disk = smallExt4(t, 32, { image });
    if (disk === undefined) return;
    const directory = path.join(disk.directory, 'log');
    const wal = await openLog(t, { ...OPTIONS, segmentBytes: 65536 }, directory);
    wal.on('error', () => {});
    const promised = new Map<number, string>();
    for (const i of numbers(1, 10)) promised.set(await wal.append(`${i}|${FILLING}`), `${i}|`);
    await wal.rotate();
    execFileSync('sync', ['-f', disk.directory]);
    const segment = fs
      .readdirSync(directory)
      .filter((name) => name.endsWith('.wal'))
      .sort()
      .at(-1)!;
    if (!takeBlocksAway(t, path.join(directory, segment), image)) return;
    below.fill();
    const waiter = failsWith(t, 'ERR_WAL_FAILED', wal.waitFor(1_000_000, 'disk'), 'a waiter');
    const thread = producing(wal, 'thread');
    const { lsns, failures } = await thread;
    t.same(lsns, [], 'nothing was acknowledged');
    // The log's own stamp may be what meets the disk first, and fail the log before the thread appends.
    t.match(failures[0], /^ERR_WAL_(INDETERMINATE|FAILED)$/);
    await waiter;
    await failsWith(t, 'ERR_WAL_FAILED', wal.append('x'));
    t.equal(wal.watermark('disk'), 10);
    await wal.close();
    below.free();
    // What the page cache holds is not what the device holds.
    disk.unmount();
    disk.mount();
    const again = await holds(t, directory, promised);
    t.equal(await again.append('goes on'), again.recovery.lastLsn + 1);
    await again.close();
    disk.unmount();
  },
);

/** Punches the blocks of a new segment, but for the first, which holds its header, out of the image that holds its filesystem. */
function takeBlocksAway(t: Test, file: string, image: string): boolean {
  let map: string;
  try {
    map = execFileSync('filefrag', ['-v', '-b4096', file], { encoding: 'utf8', stdio: 'pipe' });
  } catch (error) {
    t.comment(`filefrag tells nothing of where a file lies, so this is not tried: ${(error as Error).message}`);
    return false;
  }
  for (const [, logical, , physical, , blocks] of map.matchAll(
    /^ *\d+: +(\d+)\.\. *(\d+): +(\d+)\.\. *(\d+): +(\d+)/gm,
  )) {
    const skip = Number(logical) === 0 ? 2 : 0;
    const [offset, length] = [Number(physical) + skip, Number(blocks) - skip].map((block) => String(block * 4096));
    if (length !== '0') execFileSync('fallocate', ['-p', '-o', offset, '-l', length, image]);
  }
  return true;
}
