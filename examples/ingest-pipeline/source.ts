import { workerData } from 'node:worker_threads';
import { connect } from 'ringwal';
import { fill } from './fill.js';

/** One source of the pipeline, in a thread of its own, with a ring of its own. */
const producer = await connect(workerData.handle);
await fill(producer, workerData.id, workerData.records, workerData.recordBytes);
await producer.close();
