import t from 'tap';
import { Pace } from '../src/producer/pace.js';
import { Control, Slot } from '../src/ring/control.js';
import { ActorLoad } from '../workers/actor-load.js';

t.test(
  'what is in flight is cut in two as soon as a sync takes less than answering and appending it all',
  async (t) => {
    const pace = new Pace();
    // 0.1 µs a record, after some groups.
    for (let i = 0; i < 200; i++) pace.observe(0.1, 1000);
    t.equal(pace.cuts(1000, 0.05), true, '100 µs of work hide a sync of 50 µs');
    t.equal(pace.cuts(1000, 0.2), false, 'and not one of 200 µs, of which there would be twice as many');
    t.equal(pace.cuts(64, 0.05), false);
  },
);

t.test('the actor counts as busy when groups take nearly all of its time, and no longer than that', async (t) => {
  const control = new Control();
  const load = new ActorLoad(control);
  const now = performance.now();
  t.equal(control.actorIsBusy, false);
  load.note(now, now + 100);
  t.equal(control.actorIsBusy, true, 'back to back');
  load.note(now + 190, now + 200);
  t.equal(control.actorIsBusy, false, 'one group of 10 ms in 100 ms');
  t.ok(Atomics.load(control.slots, Slot.actorLoad) < 200);
});
