import type { Work } from '../../src/cli/bench/contenders.js';
import type { Measurement } from '../../src/cli/bench/load.js';
import type { Fio } from './native.js';
import type { Results } from './task.js';
import type { Runner } from './works.js';

export type CountedBy = 'itself' | 'strace' | 'its statistics' | 'nobody';

/** One contender at one kind of work. */
export interface Row {
  event: string;
  work: Work;
  threads: number;
  runner: Runner;
  label: string;
  /** Medians of the rounds. */
  median: Measurement;
  countedBy: CountedBy;
  /** Records per second of each round. */
  rounds: number[];
  /** ringwal to this contender in records per second, in the same round: the median. Above 1, ringwal is quicker. */
  ratio: number;
}

export interface ReadRow {
  what: string;
  label: string;
  recordsPerSecond: number;
  ratio: number;
}

export interface OpenRow {
  label: string;
  bytes: number;
  /** Threads and all. */
  totalMs: number;
  /** What depends on the log. */
  logMs?: number;
}

/** What `npm run bench:peers` found. */
export interface Comparison {
  date: string;
  node: string;
  cores: number;
  /** Load average when it began: what else the machine was doing. */
  load?: number;
  rounds: number;
  seconds: number;
  /** Names and versions. */
  versions: Record<string, string>;
  skipped: string[];
  disk?: Results['disk'];
  /** How far apart the processors were, once before each kind of work: see `measureCrossing`, in nanoseconds. */
  crossings?: number[];
  fio?: Fio;
  rows: Row[];
  reading: ReadRow[];
  opening: OpenRow[];
}
