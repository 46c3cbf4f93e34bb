import type { BatchOperation } from 'ringwal';

const KEYS = 500;

/** The n-th thing that is done to the store: mostly puts, some deletes, some batches. The same in every run. */
export function operationsOf(n: number): BatchOperation[] {
  const key = `key-${(n * 7919) % KEYS}`;
  if (n % 10 === 3) return [{ type: 'del', key }];
  const put: BatchOperation = { type: 'put', key, value: `value ${n} ${'.'.repeat(n % 300)}` };
  if (n % 10 !== 7) return [put];
  return [put, { type: 'del', key: `key-${n % KEYS}` }, { type: 'put', key: 'latest batch', value: String(n) }];
}

/** What a store must hold after the operations with LSNs 1 to `lastLsn`, and how many steps those are. */
export function modelUpTo(lastLsn: number): { contents: [string, string][]; steps: number; whole: boolean } {
  const model = new Map<string, string>();
  let lsn = 0;
  let steps = 0;
  while (lsn < lastLsn) {
    const operations = operationsOf(steps++);
    lsn += operations.length;
    for (const operation of operations) {
      if (operation.type === 'put') model.set(String(operation.key), String(operation.value));
      else model.delete(String(operation.key));
    }
  }
  return { contents: [...model].sort(), steps, whole: lsn === lastLsn };
}
