import { randomBytes } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { BroadcastChannel, type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import type { ActorData, ActorMessage, ActorRequest } from '../src/coordinator/messages.js';
import { corrupt, toPlainError } from '../src/errors.js';
import { withCheckpoint } from '../src/format/state.js';
import { inspectPointInTime } from '../src/recovery/point-in-time.js';
import { inspectLog, openError, type Recovered, unfinishedSpares } from '../src/recovery/recover.js';
import { endLastSegment } from '../src/recovery/repair-tail.js';
import { finish } from '../src/recovery/survey.js';
import { Control, Slot } from '../src/ring/control.js';
import { Ring } from '../src/ring/ring.js';
import { leftSpare } from '../src/segments/prepare.js';
import { Member } from '../src/sequencer/member.js';
import { Sequencer } from '../src/sequencer/sequencer.js';
import { NodeStorage } from '../src/storage/node-storage.js';
import { ActiveProducers } from './active-producers.js';
import { ActorLoad } from './actor-load.js';
import { ActorSyncer } from './actor-syncer.js';

/**
 * The thread around the sequencer: recovers the log, then takes work from the rings and requests from the opening
 * thread until it is told to close. It never returns to its event loop in between; it sleeps in Atomics.wait.
 */
const data = workerData as ActorData;
const port = parentPort as MessagePort;
const control = new Control(data.control);
const storage = new NodeStorage(data.directory, data.syncMethod, data.writeThrough);
const channels = new Map<number, BroadcastChannel>();
const producers = new ActiveProducers(control);
const load = new ActorLoad(control);
let closed = false;
/** Running mean of what a group's sync takes whatever is in it. */
let syncMs = 0;
/** A producer that sleeps was sent a message, and may want the processor that this thread runs on. */
let sentForSomebody = false;

/** The opening thread's own ring. */
const OPENER = 0;
/** A lost wake-up costs this long and not forever. */
const LONGEST_SLEEP_MS = 250;
/** How long the log is idle before it says so in the file, for readers in other processes, and for recovery. */
const STAMP_AFTER_MS = 1;
const PROCESSORS = availableParallelism();
/** How long to look for more work before going to sleep: about what a wake-up costs. */
const SPIN_MS = PROCESSORS > 1 ? 0.05 : 0;
const LOOKS_PER_CLOCK = 64;

function wakeUp(send: () => void): void {
  sentForSomebody = true;
  send();
}

function post(message: ActorMessage): void {
  port.postMessage(message);
}

function inspect(): Recovered {
  const tell = (progress: RecoveryProgress) => post({ op: 'recovering', progress });
  if (data.recoveryMode !== 'point-in-time') return inspectLog(storage, data.recoveryMode, tell);
  return finish(inspectPointInTime(storage), tell);
}

function recover(): Recovered {
  const startedAt = performance.now();
  const recovered = inspect();
  const { encryption } = data;
  if (encryption !== undefined && Buffer.compare(recovered.logId ?? encryption.logId, encryption.logId) !== 0) {
    throw corrupt('There are segments of more than one log here. Nothing was touched.', {});
  }
  // The opening thread made an id for a new log, or one that is begun anew: the key's check value is bound to it.
  recovered.logId ??= encryption?.logId;
  endLastSegment(storage, recovered, Date.now());
  recovered.report.durationMs = performance.now() - startedAt;
  return recovered;
}

function start(recovered: Recovered): Sequencer {
  const host = {
    now: Date.now,
    randomBytes,
    wakeOpener: () => post({ op: 'wake' }),
    wantSpare: () => post({ op: 'wantSpare' }),
    forgotten: (member: Member) => forget(member),
    rotated: (current: ActorRotated['current'], sealed: ActorRotated['sealed']) =>
      post({ op: 'rotated', current, sealed }),
    syncer: new ActorSyncer(data.sync, () => post({ op: 'wantSyncer' })),
  };
  const { segmentBytes, flushIntervalMs, encryption } = data;
  const options = { segmentBytes, flushIntervalMs, key: encryption?.key };
  const sequencer = new Sequencer(storage, control, host, options, recovered);
  addMember(sequencer, new Member(OPENER, new Ring(data.ring), () => wakeUp(() => post({ op: 'wake' }))));
  return sequencer;
}

type RecoveryProgress = Extract<ActorMessage, { op: 'recovering' }>['progress'];
type ActorRotated = Extract<ActorMessage, { op: 'rotated' }>;

function perform(sequencer: Sequencer, request: ActorRequest): unknown {
  switch (request.op) {
    case 'sync':
      return sequencer.sync();
    case 'rotate':
      sequencer.rotate(request.key);
      return sequencer.state;
    case 'checkpoint':
      return sequencer.updateState((state) => withCheckpoint(state, request.lsn));
    case 'cleanup':
      return { gone: sequencer.cleanup(), state: sequencer.state };
    case 'sealed':
      return { segments: sequencer.sealed, state: sequencer.state };
    case 'noteCompaction':
      return sequencer.noteCompaction(request.compacted, request.deletesGone);
    case 'replaceSealed':
      return sequencer.replaceSealed(request.ids, request.info);
    case 'positions':
      return sequencer.notePositions(request.positions);
    case 'transaction':
      return sequencer.noteTransaction(request.note);
    case 'truncateAfter':
      return { gone: sequencer.truncateAfter(request.lsn), state: sequencer.state };
    case 'liveIndex':
      return sequencer.liveIndex(request.segmentId);
    case 'addSpare':
      return sequencer.addSpare(request.spare);
    case 'addRing':
      return addRing(sequencer, request.id, request.ring, request.channel);
    case 'dropRing':
      return sequencer.dropMember(request.id);
    case 'close':
      closed = true;
      return sequencer.close();
  }
}

function addRing(sequencer: Sequencer, id: number, ring: SharedArrayBuffer, name: string): void {
  const channel = new BroadcastChannel(name);
  channels.set(id, channel);
  const member = new Member(id, new Ring(ring), () => wakeUp(() => channel.postMessage(0)));
  addMember(sequencer, member);
}

function addMember(sequencer: Sequencer, member: Member): void {
  sequencer.addMember(member);
  producers.add(member);
}

function forget(member: Member): void {
  channels.get(member.id)?.close();
  channels.delete(member.id);
  producers.forget(member);
  post({ op: 'ringDropped', id: member.id });
}

function answerRequests(sequencer: Sequencer): void {
  for (let got = receiveMessageOnPort(port); got !== undefined && !closed; got = receiveMessageOnPort(port)) {
    try {
      post({ op: 'reply', ok: true, value: perform(sequencer, got.message as ActorRequest) });
    } catch (error) {
      post({ op: 'reply', ok: false, error: toPlainError(error) });
    }
  }
}

/**
 * Whether a producer that was woken may be waiting for the processor that this thread looks for work on. Where there are
 * several, another one has something for it before long: two threads at `os` come to 1.3 to 1.5 times as many commits so, and beside
 * a thread at `disk` one of them is answered in half the time. With more of them than processors all are taken.
 */
function mayBeInTheWay(): boolean {
  const producers = control.activeProducers;
  return sentForSomebody && (producers <= 1 || producers > PROCESSORS);
}

/** Waits until the bell differs from `bell`: a short while awake, then asleep. */
function waitForBell(bell: number, sequencer: Sequencer): void {
  const { slots } = control;
  const until = performance.now() + (mayBeInTheWay() ? 0 : SPIN_MS);
  sentForSomebody = false;
  // Also with no time to spare: what has come by now needs no wake-up.
  do {
    for (let i = 0; i < LOOKS_PER_CLOCK; i++) if (Atomics.load(slots, Slot.doorbell) !== bell) return;
  } while (performance.now() < until);
  // A thread that sleeps between two commits has something new before long: no stamp for it, which would have to be synced.
  if (sleep(bell, STAMP_AFTER_MS, sequencer)) return;
  sequencer.idle();
  sleep(bell, LONGEST_SLEEP_MS, sequencer);
}

/** Returns whether there is something to look for: not merely that the time is over. */
function sleep(bell: number, ms: number, sequencer: Sequencer): boolean {
  const { slots } = control;
  // First say that we sleep, then look at the bell, inside Atomics.wait. Whoever rings does it the other way round.
  Atomics.store(slots, Slot.actorSleeps, 1);
  const woken = Atomics.wait(slots, Slot.doorbell, bell, Math.min(sequencer.timeToFlush() ?? ms, ms)) !== 'timed-out';
  Atomics.store(slots, Slot.actorSleeps, 0);
  return woken || sequencer.timeToFlush() === 0;
}

/** Only what makes a difference: each store takes the line from all producers' caches. */
function publishSyncMs(): void {
  if (Math.abs(syncMs - control.syncMs) * 16 < syncMs) return;
  Atomics.store(control.slots, Slot.syncMicroseconds, Math.round(syncMs * 1000));
}

/** The producers pace themselves by it. Of a sync that took much longer than most, as at a rotation, only so much counts. */
function noteGroup(startedAt: number, fixedMs: number): void {
  syncMs += (Math.min(fixedMs, 2 * (syncMs || fixedMs)) - syncMs) / 16;
  publishSyncMs();
  load.note(startedAt, performance.now());
  producers.note();
}

function run(sequencer: Sequencer): void {
  let commands = 0;
  while (!closed) {
    // Read before the rings are looked through: what is published later changes it.
    const bell = Atomics.load(control.slots, Slot.doorbell);
    const posted = Atomics.load(control.slots, Slot.commands);
    if (posted !== commands) {
      commands = posted;
      answerRequests(sequencer);
    }
    if (closed) break;
    const before = performance.now();
    if (sequencer.step()) noteGroup(before, sequencer.fixedSyncMs);
    else waitForBell(bell, sequencer);
  }
  for (const channel of channels.values()) channel.close();
  port.close();
}

/** Undefined when the log cannot be opened: the opening thread has been told why. */
function open(): Sequencer | undefined {
  try {
    const recovered = recover();
    const sequencer = start(recovered);
    const { report, obsolete } = recovered;
    const { state } = sequencer;
    // At hand before the first record: also a full disk has room for a segment then, to note a clean-up in, say.
    const spare = leftSpare(storage, recovered.spares, data.segmentBytes);
    if (spare !== undefined) sequencer.addSpare(spare);
    const spares = recovered.spares.filter((name) => name !== spare?.name);
    post({ op: 'ready', ready: { report, state, spares, obsolete, unfinished: unfinishedSpares(storage) } });
    return sequencer;
  } catch (error) {
    post({ op: 'unable', error: toPlainError(openError(error, data.directory)) });
    return undefined;
  }
}

const sequencer = open();
// What is thrown in there ends the thread, and the opening thread notices that.
if (sequencer !== undefined) run(sequencer);
