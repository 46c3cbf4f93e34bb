import { once } from 'node:events';
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { freshWarmUp } from '../../src/cli/bench/compare.js';
import type { Work } from '../../src/cli/bench/contenders.js';
import { load, type Measurement } from '../../src/cli/bench/load.js';
import { type ContenderName, ENTRANTS, type Seat } from './contenders.js';

/** One producer thread of a contender. Says when it is warm, and begins when all are. */
export interface ThreadData {
  contender: ContenderName;
  work: Work;
  directory: string;
  seconds: number;
  seat: Seat;
}

export type ThreadMessage = { op: 'warm' } | { op: 'done'; measurement: Measurement; warmUp: Measurement };

const { contender: name, work, directory, seconds, seat } = workerData as ThreadData;
const port = parentPort as MessagePort;
const contender = await ENTRANTS[name].make(work, directory, seat);
const warmUp = await load(contender, work, freshWarmUp(seconds));
port.postMessage({ op: 'warm' } satisfies ThreadMessage);
await once(port, 'message');
const measurement = await load(contender, work, seconds);
port.postMessage({ op: 'done', measurement, warmUp } satisfies ThreadMessage);
await contender.close();
