import { type CompactionReport, Compactor, type CompactorHost } from '../../src/coordinator/compactor.js';
import { maintain } from '../../src/coordinator/maintain.js';
import type { ActorRequest, CompactionTask } from '../../src/coordinator/messages.js';
import { fromPlainError, toPlainError } from '../../src/errors.js';
import { withKey } from '../../src/format/state.js';
import type { Life } from './life.js';
import type { Meanwhile } from './transactions.js';

/** Runs the package's own compaction on a life's log, with the tasks of its threads on the simulated disk. */
export async function compact(life: Life, meanwhile: Meanwhile): Promise<CompactionReport> {
  life.compacting = true;
  try {
    return await new Compactor(hostOf(life, meanwhile)).compact();
  } catch (error) {
    life.unsettled = true;
    throw error;
  } finally {
    life.compacting = false;
  }
}

function hostOf(life: Life, meanwhile: Meanwhile): CompactorHost {
  return {
    directory: '',
    segmentBytes: life.segmentBytes,
    control: life.control.memory,
    encryption: async () => {
      const { ring, writing } = life.keys;
      if (writing === undefined) return undefined;
      const { logId, state } = life.sequencer;
      await ring.load(logId, state.encryption);
      const known = withKey(state, logId, writing.id, writing.checkValue).encryption!;
      return { logId, keys: ring.exported(), current: writing.id, state: known };
    },
    request: async <T>(request: ActorRequest) => {
      try {
        return perform(life, request) as T;
      } catch (error) {
        throw fromPlainError(toPlainError(error));
      }
    },
    run: async <T>(task: CompactionTask) => {
      // Only for as long as it reads and writes files of its own is the log anybody else's.
      if (task.op === 'findGarbage' || task.op === 'rewrite') await meanwhile(life);
      life.doing = `compact ${task.op}`;
      const result = maintain(life.disk, task);
      if (result.ok) return result.value as T;
      throw fromPlainError(result.error);
    },
    exclusively: (work) => work(),
    setState: () => undefined,
    done: ({ removed }) => {
      life.tally.compactions++;
      life.tally.removed += removed;
    },
    retire: async (names) => {
      life.obsolete.push(...names);
      life.retire();
    },
  };
}

function perform(life: Life, request: ActorRequest): unknown {
  const { sequencer } = life;
  switch (request.op) {
    case 'sealed':
      // As a message: what is in it stays as it is.
      return structuredClone({ segments: sequencer.sealed, state: sequencer.state });
    case 'noteCompaction': {
      const { compacted, deletesGone } = request;
      return life.noteCompaction(compacted, deletesGone);
    }
    case 'replaceSealed':
      return sequencer.replaceSealed(request.ids, request.info);
    default:
      throw new Error(`A compaction does not ask for ${request.op}.`);
  }
}
