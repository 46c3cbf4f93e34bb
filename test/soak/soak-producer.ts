// A thread of the soak: appends at all levels, at a pace, until it is told to end or the log is closed.
import { setTimeout as delay } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { connect, type Durability, type ProducerHandle, WalError } from 'ringwal';
import { type Identity, operationOf, payloadOf } from '../crash/records.js';

export interface SoakProducerTask {
  handle: ProducerHandle;
  name: string;
}

const LEVELS: Durability[] = ['memory', 'os', 'disk'];
const { handle, name } = workerData as SoakProducerTask;
let over = false;
parentPort?.once('message', () => {
  over = true;
});

const producer = await connect(handle);
for (let number = 0; !over; ) {
  const identity = (kind: Identity['kind'], size = 1, place = 0) => ({ name, number: number++, size, place, kind });
  try {
    const appends: Promise<unknown>[] = LEVELS.flatMap((durability) => [
      producer.append(payloadOf(identity('data')), { durability }),
      producer.append(payloadOf(identity('data')), { durability }),
      producer.batch(
        [0, 1, 2].map((place) => operationOf(identity(place === 2 ? 'del' : 'put', 3, place))),
        { durability },
      ),
    ]);
    await Promise.all(appends);
  } catch (error) {
    if (!(error instanceof WalError) || error.code !== 'ERR_WAL_CLOSED') throw error;
    over = true;
  }
  await delay(5);
}
await producer.close();
parentPort?.close();
