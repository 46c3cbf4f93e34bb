import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { connect, type Durability, type ProducerHandle, WriteAheadLog } from 'ringwal';

/**
 * The process that gets killed: threads that append as quickly as they can, at all levels, until the end comes. Each
 * notes what was acknowledged in a file of its own, in the very moment it was: what stands there survives a SIGKILL,
 * because the kernel has it.
 */
const THREADS = 3;
const IN_FLIGHT = 32;
const GROUP = 5;
const LEVELS: Durability[] = ['memory', 'os', 'disk'];

interface Start {
  handle: ProducerHandle;
  name: string;
  acks: string;
}

if (isMainThread) {
  const [directory, acks, round] = process.argv.slice(2);
  const wal = await WriteAheadLog.open(directory, { segmentBytes: 4 * 1024 * 1024 });
  for (let thread = 0; thread < THREADS; thread++) {
    const start: Start = { handle: wal.producer(), name: `${round}.${thread}`, acks };
    new Worker(new URL(import.meta.url), { workerData: start });
  }
} else {
  await write(workerData as Start);
}

async function write({ handle, name, acks }: Start): Promise<void> {
  const producer = await connect(handle);
  const notes = fs.openSync(`${acks}/${name}`, 'a');
  let sequence = 0;
  const record = () => `${name} ${sequence++} ${'x'.repeat(sequence % 200)}`;
  const acknowledge = (first: number, durability: Durability, payloads: string[]) => {
    const lines = payloads.map((payload, i) => `${first + i} ${durability} ${hash(payload)}\n`);
    fs.writeSync(notes, lines.join(''));
  };
  const lane = async (): Promise<never> => {
    for (;;) {
      const durability = LEVELS[sequence % LEVELS.length];
      if (sequence % 7 === 0) {
        // `group` tells the checker that these five stand or fall together.
        const payloads = Array.from({ length: GROUP }, (_, i) => `${record()} group ${i} of ${GROUP}`);
        const { first } = await producer.appendMany(payloads, { durability });
        acknowledge(first, durability, payloads);
      } else {
        const payload = record();
        acknowledge(await producer.append(payload, { durability }), durability, [payload]);
      }
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, lane));
}

function hash(payload: string): string {
  return createHash('sha256').update(payload).digest('hex');
}
