import t from 'tap';
import { buildFrame, FrameType } from '../src/format/frame.js';
import { Window, walkFrames } from '../src/segments/walk.js';
import { Random } from './simulation/random.js';
import { SimulatedDisk } from './simulation/simulated-disk.js';

const SALT = { low: 7, high: 9 };
const EMPTY = new Uint8Array(0);

/** How many frames hold, of stamps with these LSNs and these checksums of the one before; undefined: as it should be. */
function holding(frames: readonly { lsn: number; previousCrc?: number }[]): number {
  const disk = new SimulatedDisk(new Random(1));
  const file = disk.open('frames', 'create');
  let crc = 42;
  frames.forEach(({ lsn, previousCrc }, i) => {
    const { bytes, headerCrc } = buildFrame(FrameType.Stamp, EMPTY, lsn, 0, SALT, 1, previousCrc ?? crc);
    file.write([bytes], i * bytes.byteLength);
    crc = headerCrc;
  });
  return [...walkFrames(new Window(file), 0, { salt: SALT, lsn: 5, previousCrc: 42 })].length;
}

t.test('a frame holds only behind the very frame that it was written behind', (t) => {
  t.equal(holding([{ lsn: 5 }, { lsn: 5 }, { lsn: 5 }]), 3);
  t.equal(holding([{ lsn: 5 }, { lsn: 5, previousCrc: 1 }, { lsn: 5 }]), 1, 'by the checksum that it repeats');
  t.equal(holding([{ lsn: 5, previousCrc: 1 }]), 0);
  t.end();
});

t.test('a frame holds only at the LSN that comes next', (t) => {
  t.equal(holding([{ lsn: 5 }, { lsn: 6 }, { lsn: 5 }]), 1, 'not ahead of it');
  t.equal(holding([{ lsn: 5 }, { lsn: 4 }]), 1, 'nor behind');
  t.end();
});
