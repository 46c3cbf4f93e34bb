/** What may have become of a transaction, by what its caller had been told when the crash came. */
export type Fate = 'absent' | 'in doubt' | 'committed';
export const ALLOWED = {
  begun: ['absent'],
  committing: ['absent', 'committed'],
  preparing: ['absent', 'in doubt'],
  prepared: ['in doubt'],
  'committing prepared': ['in doubt', 'committed'],
  committed: ['committed'],
  aborting: ['in doubt', 'absent'],
  aborted: ['absent'],
} satisfies Record<string, Fate[]>;

export type Phase = keyof typeof ALLOWED;

export interface Told {
  id: string;
  operations: number;
  phase: Phase;
  /** Of the commit. */
  lsn?: number;
}

/** A transaction as somebody sees it who replays the log: the keys of its operations, and where they appeared. */
export interface Seen {
  keys: string[];
  lsns: Set<number>;
}

/** A log as recovery made it: what a replay shows, by name, the keys of those in doubt, by id, and its checkpoint. */
export interface Found {
  replay: Map<string, Seen>;
  inDoubt: Map<string, string[]>;
  checkpoint: number;
}

/** The keys of a transaction's operations: its name, and their number. */
export function keysOf(name: string, operations: number): string[] {
  return Array.from({ length: operations }, (_, i) => `${name}:${i}`);
}

/** Gathers what a replay shows, by the name in the keys. */
export function see(seen: Map<string, Seen>, key: string, lsn: number): void {
  const name = key.split(':')[0];
  const known = seen.get(name) ?? { keys: [], lsns: new Set() };
  known.keys.push(key);
  known.lsns.add(lsn);
  seen.set(name, known);
}

/** What of the log is not as it may be. */
export function problemsOf(told: ReadonlyMap<string, Told>, { replay, inDoubt, checkpoint }: Found): string[] {
  const problems: string[] = [];
  for (const [name, { id, operations, phase, lsn }] of told) {
    const seen = replay.get(name);
    const doubted = inDoubt.get(id);
    const keys = keysOf(name, operations).join();
    if (seen !== undefined && (seen.keys.join() !== keys || seen.lsns.size !== 1))
      problems.push(`${name} is not whole`);
    if (doubted !== undefined && doubted.join() !== keys) problems.push(`${name}, in doubt, lacks operations`);
    if (seen !== undefined && doubted !== undefined) problems.push(`${name} is committed and in doubt`);
    const fate: Fate = seen !== undefined ? 'committed' : doubted !== undefined ? 'in doubt' : 'absent';
    // What is before the checkpoint is not replayed.
    const applied = phase === 'committed' && lsn! <= checkpoint;
    if (applied ? fate !== 'absent' : !(ALLOWED[phase] as Fate[]).includes(fate)) {
      problems.push(`${name}, ${phase}: ${fate}`);
    }
    if (phase === 'committed' && seen !== undefined && !seen.lsns.has(lsn!)) {
      problems.push(`${name} moved from LSN ${lsn} to ${[...seen.lsns]}`);
    }
  }
  const ids = new Set([...told.values()].map(({ id }) => id));
  for (const id of inDoubt.keys()) if (!ids.has(id)) problems.push(`${id} came from nowhere`);
  for (const name of replay.keys()) if (!told.has(name)) problems.push(`${name} came from nowhere`);
  return problems;
}
