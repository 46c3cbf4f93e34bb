/** Only calls that matter stop the process; the others run at full speed. */
export const STRACE = [
  '-f',
  '-qq',
  '--seccomp-bpf',
  '-e',
  'trace=open,openat,close,fsync,fdatasync,msync,sync_file_range,syncfs,write,writev,pwrite64,pwritev,pwritev2',
];

const SYNCS = /^(?:fsync|fdatasync|msync|sync_file_range|syncfs)\(/;
const OPENS = /^(?:open|openat)\(.*\bO_D?SYNC\b/;
const WRITES = /^(?:write|writev|pwrite64|pwritev|pwritev2)\((\d+)/;

/**
 * Counts what makes a trace's process wait for the disk: the calls that sync, and every write to a file that was opened
 * to sync with each write (LMDB writes its meta page so).
 */
export function countSyncs(trace: string): number {
  const synced = new Set<string>();
  /** Threads in the middle of opening such a file: the descriptor comes with a later line. */
  const opening = new Set<string>();
  let syncs = 0;
  for (const line of trace.split('\n')) {
    const [, thread, call] = /^(?:(\d+)\s+)?(.*)$/.exec(line) ?? [];
    if (call === undefined) continue;
    if (SYNCS.test(call)) syncs++;
    const write = WRITES.exec(call);
    if (write !== null && synced.has(write[1])) syncs++;
    const closed = /^close\((\d+)/.exec(call);
    if (closed !== null) synced.delete(closed[1]);
    if (OPENS.test(call) && call.includes('<unfinished')) opening.add(thread);
    const resumed = /^<\.\.\. open(?:at)? resumed>/.test(call) && opening.delete(thread);
    const descriptor = / = (\d+)(?:<.*>)?$/.exec(call);
    if ((OPENS.test(call) || resumed) && descriptor !== null) synced.add(descriptor[1]);
  }
  return syncs;
}
