import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { type OpenOptions, verifyLog, WriteAheadLog } from 'ringwal';
import t from 'tap';
import { collect, segmentFiles, temporaryDirectory, text } from './helpers.js';

const WAYS: [string, OpenOptions][] = [
  ['compressed', { compression: 'brotli' }],
  ['encrypted', { encryptionKey: randomBytes(32) }],
  ['compressed and encrypted', { compression: 'deflate', encryptionKey: randomBytes(32) }],
];
const VALUE = 'a value that compresses well, and is nobody else’s business. '.repeat(20);

function filesOf(directory: string): string[] {
  return segmentFiles(directory).map((name) => path.join(directory, name));
}

for (const [how, encoding] of WAYS) {
  t.test(
    `transactions in a log that is ${how}: whole ones, ones larger than the ring, and ones in doubt`,
    async (t) => {
      const directory = temporaryDirectory(t);
      const options = { ...encoding, ringBytes: 256 * 1024, segmentBytes: 256 * 1024, autoCleanup: false };
      let wal = await WriteAheadLog.open(directory, options);
      const expected = new Map<string, string>();
      const begin = (name: string, count: number, counts: boolean) => {
        const transaction = wal.transaction();
        for (let i = 0; i < count; i++) {
          transaction.put(`${name} ${i}`, VALUE + i);
          if (counts) expected.set(`${name} ${i}`, VALUE + i);
        }
        return transaction;
      };
      await begin('small', 3, true).commit();
      await begin('medium', 50, true).commit();
      await begin('larger than the ring', 600, true).commit();
      const [decided, undecided, dropped] = [
        await begin('decided', 400, true).prepare(),
        await begin('undecided', 5, false).prepare(),
        await begin('dropped', 300, false).prepare(),
      ];
      await wal.close();

      wal = await WriteAheadLog.open(directory, options);
      const doubtful = await wal.preparedTransactions();
      t.same(new Set(doubtful.map(({ id }) => id)), new Set([decided, undecided, dropped]));
      t.same(doubtful.map(({ operations }) => operations.length).sort(), [300, 400, 5]);
      await wal.commitPrepared(decided);
      await wal.abortPrepared(dropped);
      await wal.close();

      wal = await WriteAheadLog.open(directory, options);
      const found = new Map<string, Uint8Array>();
      await wal.recover(found);
      t.equal(found.size, expected.size);
      t.ok([...expected].every(([key, value]) => text(found.get(key)!) === value));
      t.same(
        (await wal.preparedTransactions()).map(({ id }) => id),
        [undecided],
      );
      t.ok((await collect(wal.read())).some(({ transaction }) => transaction === dropped));
      await wal.close();
      const { encryptionKey } = encoding;
      t.match(await verifyLog(directory, { encryptionKey }), { verdict: 'clean', damage: [] });

      // And compacted, with garbage in every kind of frame.
      wal = await WriteAheadLog.open(directory, options);
      for (const name of ['small 1', 'medium 7', 'medium 8', 'larger than the ring 5', 'decided 3']) {
        await wal.put(name, `${VALUE}anew`);
        expected.set(name, `${VALUE}anew`);
      }
      await wal.rotate();
      const before = filesOf(directory);
      const { removed, bytesAfter, bytesBefore } = await wal.compact();
      t.equal(removed, 3 + 300, 'what was replaced in whole transactions, and all of the aborted one');
      t.ok(bytesAfter < bytesBefore);
      t.ok(filesOf(directory).length <= before.length);
      const left = new Map<string, Uint8Array>();
      await wal.recover(left);
      t.same([...left].map(([key, value]) => [key, text(value)]).sort(), [...expected].sort(), 'the same state');
      const [{ id, operations }] = await wal.preparedTransactions();
      t.same([id, operations.length], [undecided, 5]);
      t.equal((await wal.compact()).removed, 0);
      await wal.close();
      t.match(await verifyLog(directory, { encryptionKey }), { verdict: 'clean', damage: [] });
      if (encryptionKey === undefined) return;
      const files = segmentFiles(directory).map((name) => fs.readFileSync(path.join(directory, name)));
      t.notOk(
        files.some((bytes) => bytes.includes('nobody else') || bytes.includes('larger than the ring')),
        'in no file',
      );
    },
  );
}
