import { parentPort, workerData } from 'node:worker_threads';
import { Ball, OVER } from './crossing.js';

/** The other side of {@link measureCrossing}: returns whatever is thrown. */
const slots = workerData as Int32Array;
parentPort!.postMessage('ready');
for (let thrown = 0; thrown !== OVER; thrown = Atomics.load(slots, Ball.thrown)) {
  Atomics.store(slots, Ball.caught, thrown);
}
