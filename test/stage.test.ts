import fc from 'fast-check';
import { WriteAheadLog } from 'ringwal';
import t from 'tap';
import { STAGE_BYTES, Stage } from '../src/producer/stage.js';
import { temporaryDirectory } from './helpers.js';

const LENGTHS = fc.oneof(
  fc.integer({ min: 0, max: 40 }),
  fc.integer({ min: STAGE_BYTES - 30, max: STAGE_BYTES + 30 }),
  fc.integer({ min: 0, max: 3 * STAGE_BYTES }),
);

function pattern(length: number, salt: number): Buffer {
  return Buffer.from(Array.from({ length }, (_, i) => i * 7 + salt * 31 + (i >> 8)));
}

t.test('what is staged arrives in the ring byte for byte, whatever the lengths, and nothing beside it', (t) => {
  fc.assert(
    fc.property(fc.array(LENGTHS, { maxLength: 12 }), fc.integer({ min: 0, max: 100 }), (lengths, words) => {
      const start = words * 8;
      const total = lengths.reduce((sum, length) => sum + length, 0);
      const ring = Buffer.alloc(start + total + 64, 0xee);
      const stage = new Stage(ring);
      stage.begin(start);
      const pieces = lengths.map(pattern);
      for (const piece of pieces) {
        if (stage.reserve(piece.length)) {
          stage.bytes.set(piece, stage.used);
          stage.used += piece.length;
        } else {
          stage.bypass((target, at) => {
            target.set(piece, at);
            return at + piece.length;
          });
        }
      }
      const end = stage.cursor;
      stage.finish();
      const expected = Buffer.concat(pieces);
      const padding = (8 - (total % 8)) % 8;
      if (end !== start + total || stage.cursor !== end + padding) throw new Error('the cursor is elsewhere');
      if (!ring.subarray(start, end).equals(expected)) throw new Error('other bytes');
      if (ring.subarray(end, end + padding).some((byte) => byte !== 0)) throw new Error('padding is not zero');
      const beside = [...ring.subarray(0, start), ...ring.subarray(end + padding)];
      if (beside.some((byte) => byte !== 0xee)) throw new Error('it wrote outside');
    }),
  );
  t.pass();
  t.end();
});

t.test('records of all lengths and kinds, alone and in batches, come back as they were appended', async (t) => {
  const directory = temporaryDirectory(t);
  const wal = await WriteAheadLog.open(directory, { ringBytes: 512 * 1024, durability: 'os' });
  const lengths = fc.sample(LENGTHS, { numRuns: 200, seed: 20 });
  const expected: string[] = [];
  const appends: Promise<unknown>[] = [];
  lengths.forEach((length, i) => {
    const bytes = pattern(length, i);
    const text = `${'ü'.repeat(length >> 2)}${i}`;
    expected.push(bytes.toString('hex'), Buffer.from(text).toString('hex'));
    if (i % 3 === 0) appends.push(wal.append(bytes), wal.append(text));
    else if (i % 3 === 1) appends.push(wal.appendMany([bytes, text]));
    else appends.push(wal.batch([{ type: 'put', key: bytes.subarray(0, 5), value: bytes }]), wal.put(text, text));
  });
  await Promise.all(appends);
  const seen: string[] = [];
  for await (const { payload } of wal.read()) seen.push(Buffer.from(payload).toString('hex'));
  t.equal(seen.length, expected.length);
  t.ok(
    seen.every((hex, i) => hex === expected[i]),
    'byte for byte, in order',
  );
  await wal.close();
});
