import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { type Durability, WriteAheadLog } from 'ringwal';

/** What was acknowledged, in all rounds so far: level and hash by LSN. */
export type Acknowledged = Map<number, { level: Durability; hash: string }>;

/** Reads the notes that the killed writer's threads left. A last line that was cut short is no note. */
export function readNotes(folder: string, into: Acknowledged): Record<Durability, number> {
  const counts: Record<Durability, number> = { memory: 0, os: 0, disk: 0, replicated: 0 };
  for (const name of fs.readdirSync(folder)) {
    const text = fs.readFileSync(`${folder}/${name}`, 'utf8');
    const lines = text
      .slice(0, text.lastIndexOf('\n') + 1)
      .split('\n')
      .slice(0, -1);
    for (const line of lines) {
      const [lsn, level, hash] = line.split(' ');
      into.set(Number(lsn), { level: level as Durability, hash });
      counts[level as Durability]++;
    }
  }
  return counts;
}

export interface Findings {
  verdict: string;
  records: number;
  discardedBytes: number;
  /** Acknowledged at `os` or `disk` and not there, or not the same bytes. Must be 0. */
  missing: number;
  /** Acknowledged at `memory` only, and lost with the process: what that level allows. */
  memoryLost: number;
  /** Records out of their thread's order, gaps in the LSNs, groups with a part missing. Must be 0. */
  wrong: number;
}

/** Reopens the log, as after any crash, and compares it with what was acknowledged. */
export async function check(directory: string, acknowledged: Acknowledged): Promise<Findings> {
  await using wal = await WriteAheadLog.open(directory, { segmentBytes: 4 * 1024 * 1024 });
  const { verdict, records, discardedBytes } = wal.recovery;
  const findings: Findings = { verdict, records, discardedBytes, missing: 0, memoryLost: 0, wrong: 0 };
  const lastOf = new Map<string, number>();
  let expectedLsn = 1;
  let openGroup = 0;
  for await (const { lsn, payload } of wal.read()) {
    const [thread, sequence, , group, member, , size] = Buffer.from(payload).toString('utf8').split(' ');
    if (lsn !== expectedLsn++ || Number(sequence) <= (lastOf.get(thread) ?? -1)) findings.wrong++;
    lastOf.set(thread, Number(sequence));
    // The members of a group follow one another, from 0 on, and the last one closes it.
    if (openGroup !== (group === 'group' ? Number(member) : 0)) findings.wrong++;
    openGroup = group === 'group' ? (Number(member) + 1) % Number(size) : 0;
    const known = acknowledged.get(lsn);
    if (known !== undefined && known.hash !== createHash('sha256').update(payload).digest('hex')) findings.missing++;
  }
  if (openGroup !== 0) findings.wrong++;
  for (const [lsn, { level }] of acknowledged) {
    if (lsn < expectedLsn) continue;
    if (level === 'memory') findings.memoryLost++;
    else findings.missing++;
  }
  return findings;
}
