import fs from 'node:fs';
import t from 'tap';
import { decodeRecords } from '../src/format/record.js';
import { afterTransaction, clampedTo, decodeState, EMPTY_STATE, encodeState, neededFrom } from '../src/format/state.js';
import {
  readTransactionPrefix,
  TRANSACTION_PREFIX_BYTES,
  TransactionRole,
  writeTransactionPrefix,
} from '../src/format/transaction.js';
import type { WalRecord } from '../src/types.js';

const ID = '01234567-89ab-4cde-8f01-23456789abcd';
const OTHER = '11234567-89ab-4cde-8f01-23456789abcd';

function fromDocument(): Buffer {
  const document = fs.readFileSync(new URL('../../docs/FORMAT.md', import.meta.url), 'utf8');
  const [, dump] = /<!-- transaction -->\n```text\n([\s\S]*?)```/.exec(document)!;
  const rows = dump.split('\n').map((line) => /^[0-9a-f]{8} {2}([0-9a-f ]+?) *\|/.exec(line)?.[1] ?? '');
  return Buffer.from(rows.join('').replaceAll(' ', ''), 'hex');
}

t.test(
  'the transaction frame of the document decodes to what the document says, and encodes to the same',
  async (t) => {
    const payload = fromDocument();
    const prefix = { id: ID, role: TransactionRole.Commit, operations: 3, first: 5 };
    t.same(readTransactionPrefix(payload, 0, payload.byteLength), prefix);
    const again = Buffer.alloc(payload.byteLength);
    t.equal(writeTransactionPrefix(again, 0, prefix), TRANSACTION_PREFIX_BYTES);
    t.same(again, payload);
    const records: WalRecord[] = [];
    decodeRecords(payload, TRANSACTION_PREFIX_BYTES, payload.byteLength, 1, 12, 0, 1, 99, records);
    t.same(records, [{ lsn: 12, kind: 'data', payload: new Uint8Array(), timestamp: 0 }]);
  },
);

t.test('a prefix that is none is corruption', async (t) => {
  const payload = fromDocument();
  const wrong = (change: (bytes: Buffer) => Buffer | undefined) => {
    const bytes = Buffer.from(payload);
    const changed = change(bytes) ?? bytes;
    t.throws(() => readTransactionPrefix(changed, 0, changed.byteLength), { code: 'ERR_WAL_CORRUPT' });
  };
  wrong((bytes) => bytes.subarray(0, 31));
  wrong((bytes) => {
    bytes[16] = 5;
    return undefined;
  });
  wrong((bytes) => {
    bytes[31] = 1;
    return undefined;
  });
});

t.test('the state follows from the frames', async (t) => {
  const prefix = (role: number, id = ID, first = 5) => ({ id, role, operations: 3, first });
  const none = { ...EMPTY_STATE, checkpoint: 20 };
  t.equal(afterTransaction(none, prefix(TransactionRole.Whole), 6, 1), none);
  t.equal(afterTransaction(none, prefix(TransactionRole.Part), 6, 1), none);
  const doubtful = afterTransaction(none, prefix(TransactionRole.Prepare), 10, 1);
  t.same(doubtful.transactions, { prepared: { [ID]: { first: 5, prepared: 9, operations: 3 } }, holds: [] });
  t.equal(neededFrom(doubtful), 5);
  t.same(afterTransaction(doubtful, prefix(TransactionRole.Abort), 12, 11), none);
  t.same(afterTransaction(doubtful, prefix(TransactionRole.Commit), 12, 1), none, 'in the same segment');
  const held = afterTransaction(doubtful, prefix(TransactionRole.Commit), 12, 11);
  t.same(held.transactions, { prepared: {}, holds: [{ first: 5, commit: 12 }] });
  t.equal(neededFrom(held), 21, 'the checkpoint is past it');
  t.equal(neededFrom({ ...held, checkpoint: 11 }), 5);
  const two = afterTransaction(held, prefix(TransactionRole.Commit, OTHER, 7), 13, 11);
  t.same(two.transactions!.holds, [{ first: 5, commit: 13 }], 'one for a segment');
  const next = afterTransaction(two, prefix(TransactionRole.Commit, OTHER, 12), 31, 30);
  t.same(next.transactions!.holds, [
    { first: 5, commit: 13 },
    { first: 12, commit: 31 },
  ]);
  const covering = afterTransaction(next, prefix(TransactionRole.Commit, OTHER, 4), 41, 40);
  t.same(covering.transactions!.holds, [{ first: 4, commit: 41 }], 'those that it covers are gone');
  t.same(clampedTo(doubtful, 9).transactions, doubtful.transactions);
  t.equal(clampedTo(doubtful, 8).transactions, undefined);
  t.same(clampedTo(next, 20).transactions!.holds, [
    { first: 5, commit: 13 },
    { first: 12, commit: 20 },
  ]);
  t.same(decodeState(encodeState(next)), next);
});

t.test('a state that says nonsense of transactions is corruption', async (t) => {
  const nonsense = [
    { prepared: { [ID]: { first: 'a', prepared: 1, operations: 1 } }, holds: [] },
    { prepared: { [ID]: null }, holds: [] },
    { prepared: {}, holds: [{ first: 1 }] },
    { prepared: {} },
    { prepared: null, holds: [] },
    7,
    null,
  ];
  for (const transactions of nonsense) {
    const bytes = Buffer.from(JSON.stringify({ ...EMPTY_STATE, transactions }));
    t.throws(() => decodeState(bytes), { code: 'ERR_WAL_CORRUPT' }, JSON.stringify(transactions));
  }
});
