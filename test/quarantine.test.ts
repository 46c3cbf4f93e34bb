import t from 'tap';
import { Level } from '../src/format/levels.js';
import { Random } from './simulation/random.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';
import { during, SimulatedLog } from './simulation/simulated-log.js';

const SEEDS = 30;

/** A log whose end the power's going tore: frames behind the last one that holds. */
function torn(seed: number): SimulatedDisk {
  const disk = new SimulatedDisk(new Random(seed));
  const log = new SimulatedLog({ disk });
  log.append(Level.Disk, 2);
  log.sequencer.step();
  for (let i = 0; i < 3; i++) {
    log.append(Level.Os, 6);
    log.sequencer.step();
  }
  disk.crash();
  disk.restart('power');
  return disk;
}

function content(disk: SimulatedDisk, name: string): Buffer {
  const file = disk.open(name, 'read');
  const bytes = Buffer.alloc(file.size());
  file.read(bytes, 0);
  file.close();
  return bytes;
}

t.test('what a recovery cuts off is in quarantine or still in its place, whenever the power goes', (t) => {
  let cut = 0;
  for (let seed = 0; seed < SEEDS; seed++) {
    for (let call = 1, reached = true; reached; call++) {
      const disk = torn(seed);
      const before = content(disk, '0000000000000001.wal');
      let at: { from: number; to: number } | undefined;
      reached = during(disk, { crashAt: call }, () => {
        const { recovered } = new SimulatedLog({ disk });
        at = recovered.torn;
      });
      disk.crash();
      disk.restart('power');
      const lost = at ?? endOf(torn(seed));
      if (lost === undefined) continue;
      cut++;
      const bytes = before.subarray(lost.from, lost.to);
      const kept = disk.list('quarantine').some((name) => content(disk, `quarantine/${name}`).equals(bytes));
      const inPlace = content(disk, '0000000000000001.wal').subarray(lost.from, lost.to).equals(bytes);
      if (!kept && !inPlace) t.fail(`seed ${seed}, call ${call}: ${bytes.byteLength} bytes are gone`);
    }
  }
  t.ok(cut > SEEDS, `${cut} cuts`);
  t.end();
});

/** Where recovery finds the torn tail. */
function endOf(disk: SimulatedDisk): { from: number; to: number } | undefined {
  const { torn: tail } = new SimulatedLog({ disk }).recovered;
  return tail && tail.to > tail.from ? tail : undefined;
}

t.test('the id of a segment that is in quarantine is not used again', (t) => {
  const log = new SimulatedLog();
  const { disk } = log;
  for (let i = 0; i < 2; i++) log.appendUntilRotated(Level.Disk);
  const last = disk
    .list()
    .filter((name) => name.endsWith('.wal'))
    .at(-1)!;
  disk.makeFolder('quarantine');
  disk.rename(last, `quarantine/${last}@0`);
  disk.crash();
  const { nextSegmentId } = SimulatedLog.reopen(disk, 'process').recovered;
  t.ok(nextSegmentId > Number(last.split('.')[0]), `${nextSegmentId} after ${last}`);
  t.end();
});
