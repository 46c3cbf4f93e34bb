import type { Producer, WriteAheadLog } from 'ringwal';

/** What one source has in flight: more than its ring holds, so that some of it always waits for the disk. */
const IN_FLIGHT = 64;

/**
 * Appends `count` numbered records. Each lane appends one, waits until it is on disk, and only then appends another:
 * that, and the ring, is all the memory that a slow disk can cost.
 */
export async function fill(log: WriteAheadLog | Producer, id: number, count: number, bytes: number): Promise<void> {
  let next = 0;
  const lane = async () => {
    const record = Buffer.alloc(bytes, 46);
    while (next < count) {
      record.writeUInt32LE(id, 0);
      record.writeUInt32LE(next++, 4);
      await log.append(record);
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, lane));
}
