import { getEnvironmentData } from 'node:worker_threads';
import { patch } from './slow-disk.js';

patch(Number(getEnvironmentData('ringwal-bench-sync')));
