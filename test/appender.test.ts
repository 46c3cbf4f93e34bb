import t from 'tap';
import { Level } from '../src/format/levels.js';
import { Appender } from '../src/producer/appender.js';
import { Control } from '../src/ring/control.js';
import { FrameState, Ring, RingSlot } from '../src/ring/ring.js';

/** A ring in which the actor can be made to act between two looks at its counters. */
class WatchedRing extends Ring {
  beforeLook: () => void = () => {};

  override ahead(counter: number, mine: number): number {
    this.beforeLook();
    return super.ahead(counter, mine);
  }
}

for (const [name, level] of Object.entries({ memory: Level.Memory, os: Level.Os, disk: Level.Disk })) {
  t.test(
    `an append at '${name}' gets its own LSN, whenever the actor moves between two looks at its counters`,
    async (t) => {
      // The actor carries the frame through before the n-th look at any counter.
      for (let look = 0; look < 6; look++) {
        const ring = new WatchedRing(Ring.allocate(64 * 1024).memory);
        const host = { hold: () => {}, backpressure: () => {} };
        const limits = { frameBytes: 4096, maxRecordBytes: 4096, encodeBytes: 65536 };
        const appender = new Appender(ring, new Control(), limits, host);
        const lsn = new Promise((resolve, reject) => {
          appender.append({ kind: 0, key: undefined, value: 'record' }, level, resolve, reject);
        });
        appender.publish();
        let looks = 0;
        ring.beforeLook = () => {
          if (looks++ !== look) return;
          t.equal(ring.state(0), FrameState.Ready);
          ring.setLsn(ring.descriptor(0), 41);
          for (const counter of [RingSlot.sequenced, RingSlot.written, RingSlot.synced]) ring.advance(counter, 1);
        };
        appender.wake();
        t.equal(await lsn, 41, `before look ${look}`);
      }
    },
  );
}
