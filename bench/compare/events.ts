import { inDirectory, type Measurement, median, medianOf } from '../../src/cli/bench/load.js';
import { ENTRANTS } from './contenders.js';
import { ROCKSDB, rocksdb } from './native.js';
import type { CountedBy, Row } from './results.js';
import { runTask, syncsPerRecord } from './task.js';
import type { Event, Runner } from './works.js';

export interface Settings {
  rounds: number;
  seconds: number;
  directory?: string;
  /** Whether strace is there, to count what others sync. */
  strace: boolean;
  /** Every fdatasync takes at least so long, so that ratios do not hang on the disk at hand. */
  syncMicros?: number;
  /** And that of ringwal alone so much more: a slowdown on purpose, to see that somebody notices. */
  handicapMicros?: number;
  /** A peer that fails takes no further part; why is told here. */
  onTrouble?(message: string): void;
}

export const labelOf = (runner: Runner): string => (runner === ROCKSDB ? ROCKSDB : ENTRANTS[runner].label);

/** All runners in turn, round by round; who begins changes from round to round. */
export async function runEvent(event: Event, runners: Runner[], settings: Settings): Promise<Row[]> {
  const measured = new Map<Runner, Measurement[]>(runners.map((runner) => [runner, []]));
  for (let round = 0; round < settings.rounds; round++) {
    const first = round % runners.length;
    for (const runner of [...runners.slice(first), ...runners.slice(0, first)]) {
      try {
        measured.get(runner)?.push(await once(event, runner, settings));
      } catch (error) {
        if (runner === 'ringwal') throw error;
        settings.onTrouble?.(`${labelOf(runner)} failed at '${event.name}': ${(error as Error).message}`);
        measured.delete(runner);
      }
    }
  }
  const ours = measured.get('ringwal');
  const rows: Row[] = [];
  for (const [runner, rounds] of measured) {
    const { syncs, countedBy } = await countOf(event, runner, settings);
    const figures = medianOf(rounds);
    const rates = rounds.map((round) => round.recordsPerSecond);
    rows.push({
      event: event.name,
      work: event.work,
      threads: event.threads?.length ?? 0,
      runner,
      label: labelOf(runner),
      median: syncs === undefined ? figures : { ...figures, syncsPerRecord: syncs },
      countedBy,
      rounds: rates,
      ratio: ours === undefined ? Number.NaN : median(rates.map((rate, i) => ours[i].recordsPerSecond / rate)),
    });
  }
  return rows;
}

function once(event: Event, runner: Runner, settings: Settings): Promise<Measurement> {
  return inDirectory(settings.directory, (directory) => {
    if (runner === ROCKSDB) return rocksdb(event.work, directory, settings.seconds);
    const { work, threads } = event;
    const handicap = runner === 'ringwal' ? (settings.handicapMicros ?? 0) : 0;
    const syncMicros = settings.syncMicros === undefined ? undefined : settings.syncMicros + handicap;
    return runTask({ op: 'load', contender: runner, work, threads, directory, seconds: settings.seconds, syncMicros });
  });
}

/** Who does not count by itself is run once more, shortly, under strace. */
export async function countOf(
  { name, work, threads }: Event,
  runner: Runner,
  settings: Settings,
): Promise<{ syncs?: number; countedBy: CountedBy }> {
  if (runner === ROCKSDB) return { countedBy: 'its statistics' };
  if (ENTRANTS[runner].counts) return { countedBy: 'itself' };
  if (!settings.strace) return { syncs: Number.NaN, countedBy: 'nobody' };
  const seconds = Math.min(0.2, settings.seconds);
  try {
    const syncs = await inDirectory(settings.directory, (directory) =>
      syncsPerRecord({ op: 'load', contender: runner, work, threads, directory, seconds }),
    );
    return { syncs, countedBy: 'strace' };
  } catch (error) {
    settings.onTrouble?.(`syncs of ${labelOf(runner)} at '${name}': not counted, ${(error as Error).message}`);
    return { syncs: Number.NaN, countedBy: 'nobody' };
  }
}
