import t from 'tap';
import { Control, Slot } from '../src/ring/control.js';
import { DESCRIPTORS, Descriptor, Ring } from '../src/ring/ring.js';

/** Of most processors; some fetch two neighbours together. */
const LINE_BYTES = 64;

/** Slots that are written at the same time, by the same thread, or next to never. */
const TOGETHER: (keyof typeof Slot)[][] = [
  ['doorbell'],
  ['actorSleeps'],
  ['phase', 'failureBytes', 'commands', 'interest'],
  ['openerWake', 'commitVersion'],
  ['syncMicroseconds', 'activeProducers', 'actorLoad'],
];

t.test('what one thread looks at all the time shares no cache line with what another one writes', async (t) => {
  t.same(TOGETHER.flat().sort(), Object.keys(Slot).sort(), 'every slot has its place here');
  for (const [i, group] of TOGETHER.entries()) {
    for (const other of TOGETHER.slice(i + 1).flat()) {
      for (const slot of group) {
        const apart = Math.abs(Slot[slot] - Slot[other]) * Int32Array.BYTES_PER_ELEMENT;
        // Memory begins anywhere: less than two lines apart, they may meet in a pair of lines.
        if (apart < 2 * LINE_BYTES - 16) t.fail(`${slot} and ${other} are ${apart} bytes apart`);
      }
    }
  }
  const { slots } = new Control();
  t.ok(slots.length > Math.max(...Object.values(Slot)), 'and all of them are there');
});

t.test('the actor takes a frame without the cache line in which the producer fills the next descriptor', async (t) => {
  const ring = Ring.allocate(1 << 16);
  t.ok((ring.descriptor(1) - ring.descriptor(0)) * Int32Array.BYTES_PER_ELEMENT >= LINE_BYTES);
  t.ok(ring.descriptor(DESCRIPTORS - 1) + Math.max(...Object.values(Descriptor)) < ring.descriptors.length);
  const behindHead = ring.descriptors.byteOffset - ring.head.byteOffset;
  t.ok(behindHead >= 2 * LINE_BYTES, 'nor that of the counters');
});
