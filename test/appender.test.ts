import t from 'tap';
import { Level } from '../src/format/levels.js';
import { Appender } from '../src/producer/appender.js';
import { Control } from '../src/ring/control.js';
import { DESCRIPTORS, FrameState, Ring, RingSlot } from '../src/ring/ring.js';

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

t.test('a record larger than any is refused, and the ring is as it was', async (t) => {
  const host = { hold: () => {}, backpressure: () => {} };
  const limits = { frameBytes: 4096, maxRecordBytes: 1000, encodeBytes: 65536 };
  const ring = Ring.allocate(64 * 1024);
  const appender = new Appender(ring, new Control(), limits, host);
  const append = (bytes: number) =>
    new Promise((resolve, reject) => {
      appender.append({ kind: 0, key: undefined, value: Buffer.alloc(bytes) }, Level.Os, resolve, reject);
    });
  await t.rejects(append(1001), { code: 'ERR_WAL_RECORD_TOO_LARGE' });
  t.same([appender.ringUse, appender.queued], [0, 0]);
  append(1000).catch(() => {});
  t.ok(appender.ringUse > 1000);
});

t.test('with as many frames in flight as can be told of, the next append waits for one of them', async (t) => {
  const host = { hold: () => {}, backpressure: () => {} };
  const limits = { frameBytes: 4096, maxRecordBytes: 1000, encodeBytes: 65536 };
  const ring = Ring.allocate(16 * 1024 * 1024);
  const appender = new Appender(ring, new Control(), limits, host);
  let done = 0;
  const append = () => {
    const resolve = () => done++;
    appender.append({ kind: 0, key: undefined, value: 'x' }, Level.Os, resolve, () => t.fail());
    appender.publish();
  };
  for (let i = 0; i < DESCRIPTORS; i++) append();
  t.same([appender.inFlight, appender.queued], [DESCRIPTORS, 0]);
  const use = appender.ringUse;
  t.ok(use < ring.dataBytes / 2, 'there is room in the ring');
  append();
  t.same([appender.ringUse, appender.queued], [use, 1], 'it is not in the ring');
  ring.setLsn(ring.descriptor(0), 1);
  for (const counter of [RingSlot.sequenced, RingSlot.written, RingSlot.synced]) ring.advance(counter, 1);
  appender.wake();
  await new Promise(setImmediate);
  t.equal(done, 1);
  t.equal(ring.state(DESCRIPTORS), FrameState.Ready, 'in the place of the one that is done');
});

t.test(
  'much in flight goes out in some pieces and not in many: on a quick disk 1,000 in two, 10,000 in four',
  async (t) => {
    const host = { hold: () => {}, backpressure: () => {} };
    const limits = { frameBytes: 256 * 1024, maxRecordBytes: 1000, encodeBytes: 1024 * 1024 };
    for (const [records, pieces] of [
      [1000, 2],
      [10_000, 4],
    ]) {
      const ring = Ring.allocate(16 * 1024 * 1024);
      const appender = new Appender(ring, new Control(), limits, host);
      const payload = Buffer.alloc(100);
      let published = 0;
      // The first turn tells how long a record takes, the second how much is in flight.
      for (const expected of [undefined, undefined, pieces]) {
        const before = published;
        const all = Promise.all(Array.from({ length: records }, () => appender.appendBytes(payload, Level.Disk)));
        await new Promise(setImmediate);
        for (; ring.state(published) === FrameState.Ready; published++) {
          ring.setLsn(ring.descriptor(published), 1);
          ring.setState(published, FrameState.Taken);
        }
        const frames = published - before;
        for (const counter of [RingSlot.sequenced, RingSlot.written, RingSlot.synced]) ring.advance(counter, frames);
        appender.wake();
        await all;
        if (expected !== undefined) t.equal(frames, expected, `${records} records`);
      }
    }
  },
);
