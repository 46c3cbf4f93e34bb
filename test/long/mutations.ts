/** One place in a compiled file that is changed. `find` must stand there exactly once. */
export interface Edit {
  /** Below `dist/`. */
  file: string;
  find: string;
  replace: string;
}

/** One way to break the engine. */
export interface Mutation {
  id: string;
  /** What the broken engine does. */
  breaks: string;
  edits: readonly Edit[];
  /** Tests that should notice, the quickest first; the simulation comes behind them. `simulate`: the simulation itself. */
  tests: readonly string[];
}

const SEQUENCER = 'src/sequencer/sequencer.js';
const WRITER = 'src/segments/segment-writer.js';
const TAIL = 'src/recovery/repair-tail.js';
const READ = 'src/segments/read-segment.js';
const FRAME = 'src/format/frame.js';
const WALK = 'src/segments/walk.js';
const VERDICT = 'src/recovery/verdict.js';
const COORDINATOR = 'src/coordinator/coordinator.js';

function one(id: string, breaks: string, file: string, find: string, replace: string, ...tests: string[]): Mutation {
  return { id, breaks, edits: [{ file, find, replace }], tests };
}

/** The ways in which `npm run mutate` breaks the engine. Every one of them must be noticed by a test. */
export const MUTATIONS: readonly Mutation[] = [
  // What makes an acknowledgement true.
  one('no-sync', 'No fdatasync before `disk` is acknowledged', SEQUENCER, 'this.#current?.sync();', '', 'invariants'),
  one(
    'os-before-write',
    'Records are acknowledged at `os` before they are written',
    SEQUENCER,
    'this.#commitMemory();\n            current.write(views, bytes);',
    'this.#commitMemory();\n            this.#commitOs();\n            current.write(views, bytes);',
    'sequencer',
  ),
  one(
    'sync-retried',
    'A failed fdatasync is tried again, and what it says then is believed',
    SEQUENCER,
    'this.#current?.sync();',
    'try { this.#current?.sync(); } catch { this.#current?.sync(); }',
    'invariants',
  ),
  one(
    'not-poisoned',
    'A failed write or sync does not stop the log',
    SEQUENCER,
    'catch (error) {\n            this.#poison(error);\n            return true;',
    'catch (error) {\n            this.#group.clear();\n            return true;',
    'invariants',
  ),
  one(
    'enospc-is-success',
    'A write that a full disk refused counts as written',
    WRITER,
    'this.#file.truncate(this.info.endOffset);\n            this.#file.sync();\n            throw noSpace(error);',
    '',
    'crash-points',
  ),
  one(
    'refused-not-cut',
    'What a full disk refused is cut off, but the power going brings it back',
    WRITER,
    'this.#file.sync();\n            throw noSpace(error);',
    'throw noSpace(error);',
    'crash-points',
  ),
  one(
    'taken-back-lsns',
    'Records that a full disk refused keep their LSNs',
    SEQUENCER,
    'this.#nextLsn = firstLsn;',
    '',
    'crash-points',
    'simulate',
  ),
  one(
    'short-write',
    'A write that took a part of the bytes counts as whole',
    'src/storage/fully.js',
    'rest = withoutWritten(rest, count);',
    'rest = [];',
    'storage',
  ),
  one(
    'short-read',
    'A read that brought a part of the bytes counts as the end of the file',
    'src/storage/fully.js',
    'if (count === 0)\n            break;\n        done += count;',
    'done += count;\n        break;',
    'storage',
  ),
  one(
    'ring-skipped',
    'The last ring is passed over when `disk` is acknowledged',
    SEQUENCER,
    'for (const member of this.#members) {\n            const frames = framesOf(member);',
    'for (const member of this.#members.slice(0, this.#members.length > 1 ? -1 : 1)) {\n            const frames = framesOf(member);',
    'threads',
    'sequencer',
  ),
  one(
    'watermark-ahead',
    'The watermark of `disk` moves with that of `os`',
    SEQUENCER,
    'this.#publish(Level.Os);\n        for',
    'this.#publish(Level.Os);\n        this.#publish(Level.Disk);\n        for',
    'sequencer',
  ),
  one(
    'never-by-time',
    '`flushIntervalMs` is forgotten while records keep coming',
    SEQUENCER,
    '(group.flags & FrameFlag.WantsDisk) !== 0 || this.timeToFlush() === 0',
    '(group.flags & FrameFlag.WantsDisk) !== 0',
    'sequencer',
  ),
  // Directories.
  one(
    'no-sync-of-created-name',
    'The name of a new segment is not made durable',
    WRITER,
    'storage.rename(spare.name, name);\n            storage.syncFolder();',
    'storage.rename(spare.name, name);',
    'invariants',
  ),
  one(
    'header-after-name',
    'A segment takes its name before its header is on disk',
    WRITER,
    'prepared.sync();\n            storage.rename(spare.name, name);',
    'storage.rename(spare.name, name);',
    'crash-points',
    'simulate',
  ),
  one(
    'no-sync-of-removal',
    'Removals and recycled names are not made durable',
    'src/segments/retire.js',
    'storage.syncFolder();',
    '',
    'crash-points',
    'simulate',
  ),
  one(
    'no-sync-at-open',
    'Names that a killed process left are not made durable when the log is opened',
    TAIL,
    'storage.syncFolder(QUARANTINE_FOLDER);\n    storage.syncFolder();\n    if (recovered.mended',
    'storage.syncFolder(QUARANTINE_FOLDER);\n    if (recovered.mended',
    'crash-points',
    'simulate',
  ),
  one(
    'no-sync-of-quarantine',
    'The copy of what is cut off is not durable when it is cut off',
    'src/recovery/quarantine.js',
    'storage.syncFolder(QUARANTINE_FOLDER);\n    storage.syncFolder();\n    return name;',
    'return name;',
    'quarantine',
  ),
  // Checksums, salts and stamps.
  one(
    'header-crc',
    'The checksum of a frame header is not checked',
    FRAME,
    'crc32(bytes.subarray(at, at + Field.headerCrc)) !== headerCrc',
    'false',
    'invariants',
    'format',
  ),
  one(
    'payload-crc',
    'The checksum of a payload is not checked',
    WALK,
    'if (crc32(payload) !== header.payloadCrc)',
    'if (false)',
    'invariants',
  ),
  one(
    'chain-crc',
    'That a frame repeats the checksum of the one before is not checked',
    WALK,
    'expected.previousCrc !== undefined && header.previousCrc !== expected.previousCrc',
    'false',
    'frame-chain',
  ),
  one(
    'expected-lsn',
    'That a frame starts at the next LSN is not checked',
    WALK,
    'header.firstLsn !== expected.lsn',
    'false',
    'frame-chain',
  ),
  one(
    'segment-header-crc',
    'The checksum of a segment header is not checked',
    'src/format/segment-header.js',
    'crc32(block.subarray(0, 124)) !== headerCrc',
    'false',
    'format',
    'simulate',
  ),
  one(
    'state-crc',
    'The checksum of the state in a segment header is not checked',
    'src/format/segment-header.js',
    'crc32(state) !== stateCrc',
    'false',
    'format',
    'simulate',
  ),
  one(
    'no-salt',
    'All segments have the same salt',
    SEQUENCER,
    'return { low: view.getUint32(0, true), high: view.getUint32(4, true) };',
    'return { low: 1, high: 1 };',
    'crash-points',
    'salt',
  ),
  one(
    'not-resalted',
    'A recycled segment keeps the salt that its file had',
    WRITER,
    'const { now: createdAt, ...fields } = start;',
    `if (spare.recycled) {
            const old = storage.open(spare.name, 'read');
            const block = new DataView(new ArrayBuffer(8));
            old.read(new Uint8Array(block.buffer), 48);
            old.close();
            start = { ...start, salt: { low: block.getUint32(0, true), high: block.getUint32(4, true) } };
        }
        const { now: createdAt, ...fields } = start;`,
    'crash-points',
    'salt',
  ),
  {
    id: 'salt-unchecked',
    breaks: 'The salt of a frame is not checked',
    edits: [
      { file: FRAME, find: 'view.getUint32(at + Field.salt, true) !== salt.low', replace: 'false' },
      { file: FRAME, find: 'view.getUint32(at + Field.salt + 4, true) !== salt.high', replace: 'false' },
    ],
    tests: ['crash-points', 'salt'],
  },
  one(
    'no-stamp',
    'The durable stamp of frames never advances',
    SEQUENCER,
    'const durable = this.#durableLsn;',
    'const durable = 0;',
    'verdict',
  ),
  one(
    'stamp-ahead',
    'Frames are stamped with LSNs that are not on disk yet',
    SEQUENCER,
    'const durable = this.#durableLsn;',
    'const durable = this.#nextLsn - 1;',
    'verdict',
  ),
  one(
    'prefix-ahead',
    'Every frame says that all before it was on disk',
    SEQUENCER,
    'first ? HeaderFlag.PrefixDurable : 0',
    'HeaderFlag.PrefixDurable',
    'crash-points',
    'simulate',
  ),
  one(
    'no-idle-stamp',
    'A log that falls idle does not say how far it is durable',
    SEQUENCER,
    'this.#current.writeStamp(this.#durableLsn, this.#clean, this.#now());',
    '',
    'verdict',
    'idle-stamp',
  ),
  // Recovery.
  one(
    'row-c',
    'Damage to what a later stamp vouches for counts as a torn tail',
    VERDICT,
    "row: 'C', verdict: 'corrupt'",
    "row: 'C', verdict: 'torn-tail'",
    'verdict',
  ),
  one(
    'row-h',
    'A lost state frame that a later frame vouches for counts as a torn tail',
    VERDICT,
    "row: 'H', verdict: 'corrupt'",
    "row: 'H', verdict: 'torn-tail'",
    'verdict',
  ),
  one(
    'row-g',
    'A file that was cut to its seal and has none counts as open',
    VERDICT,
    '!end.fullSize',
    'false',
    'verdict',
  ),
  one(
    'tail-not-durable',
    'What recovery reports as durable is not made so',
    TAIL,
    'putOnDisk(file, recovered.unprovenFrom, last.endOffset);',
    '',
    'crash-points',
    'simulate',
  ),
  one(
    'tail-only-synced',
    'What recovery reports as durable is synced and not written again, after a failed sync too',
    TAIL,
    'file.write([chunk.subarray(0, file.read(chunk, at))], at);',
    '',
    'crash-points',
  ),
  one(
    'tail-goes-on',
    'The last segment is not ended: what stands behind its frames may come back',
    TAIL,
    'endFrames(storage, recovered, now);\n    if',
    'if',
    'invariants',
    'crash-points',
  ),
  one(
    'no-quarantine',
    'What is cut off is thrown away',
    TAIL,
    'quarantine(storage, file, recovered);',
    '',
    'quarantine',
  ),
  one(
    'unproven',
    'Frames that nothing vouches for count as durable',
    READ,
    'content.unprovenFrom = unproven.first ?? content.endOffset;',
    'content.unprovenFrom = content.endOffset;',
    'crash-points',
    'simulate',
  ),
  one(
    'lsn-again',
    'The first record after a reopening gets the last LSN once more',
    SEQUENCER,
    'this.#nextLsn = recovered.end.lastLsn + 1;',
    'this.#nextLsn = Math.max(1, recovered.end.lastLsn);',
    'invariants',
  ),
  one(
    'id-again',
    'Ids of segments that are in quarantine are used again',
    'src/recovery/recover.js',
    'note(quarantinedIdOf(name));',
    'note(0);',
    'quarantine',
  ),
  one(
    'state-not-carried',
    'What point-in-time keeps of the state is in memory alone',
    TAIL,
    'beginAnew(storage, recovered, now);',
    ';',
    'damage-edges',
  ),
  // Segments and state.
  one(
    'seal-before-frames',
    'A segment is sealed before its frames are on disk',
    WRITER,
    'this.#file.sync();\n        const payload = encodeSeal',
    'const payload = encodeSeal',
    'seal-order',
  ),
  one(
    'seal-not-synced',
    'A seal is not on disk when the next segment begins',
    WRITER,
    'this.#writeOwn(FrameType.Seal, [payload], this.info.lastLsn, true, now);\n        this.#file.sync();',
    'this.#writeOwn(FrameType.Seal, [payload], this.info.lastLsn, true, now);',
    'seal-order',
  ),
  one(
    'cut-forgotten',
    'That a segment cuts off what was before it is ignored',
    'src/segments/chain.js',
    'next === undefined || (next.flags & (SegmentFlag.Truncates | SegmentFlag.Compacted)) === 0',
    'true',
    'truncate',
    'simulate',
  ),
  one(
    'cut-not-said',
    '`truncateAfter` does not say on disk that it cuts',
    SEQUENCER,
    'this.#createSegment(spare, SegmentFlag.Truncates);',
    'this.#createSegment(spare);',
    'truncate',
    'simulate',
  ),
  one(
    'mark-not-durable',
    'Files go before the clean-up mark is on disk',
    SEQUENCER,
    'this.#updateForGood((state) => ({ ...state, low }));',
    'this.#state = { ...this.#state, low };',
    'crash-points',
  ),
  one(
    'checkpoint-not-synced',
    'A checkpoint is acknowledged before it is on disk',
    SEQUENCER,
    'this.#dirtySince ??= this.#host.now();\n        this.#sync();\n        return state;',
    'this.#dirtySince ??= this.#host.now();\n        return state;',
    'crash-points',
    'simulate',
  ),
  one(
    'held-by-nobody',
    'Clean-up does not wait for subscriptions',
    'src/format/state.js',
    '...acknowledged.map((lsn) => lsn + 1), ',
    '',
    'subscriptions',
  ),
  one(
    'positions-at-rotation',
    'Positions of subscriptions are lost when a segment is full',
    SEQUENCER,
    'state: this.#state,\n            flags',
    'state: { ...this.#state, subscriptions: {} },\n            flags',
    'subscriptions',
    'simulate',
  ),
  one(
    'refused-state',
    'A change of state that was refused comes into force later',
    SEQUENCER,
    'const state = withPositions(this.#state, positions);',
    'const state = withPositions(this.#state, positions);\n            this.#state = state;',
    'crash-points',
  ),
  one(
    'spare-not-known-as-used',
    'A recycled file counts as one full of zeros',
    WRITER,
    'if (spare.recycled)',
    'if (false)',
    'crash-points',
  ),
  // Producers.
  one(
    'sync-covers-all',
    'A sync made by another thread is taken to cover what was written after it began',
    SEQUENCER,
    'this.#durableUpTo(lsn, recordBytes, (member) => member.syncing);',
    'this.#durableUpTo(this.#nextLsn - 1, this.#recordBytes, (member) => member.unsynced);',
    'syncer',
  ),
  one(
    'prepared-not-held',
    'Clean-up does not wait for prepared transactions',
    'src/format/state.js',
    ', heldFrom(transactions, checkpoint)',
    '',
    'transactions',
    'transactions-crash',
  ),
  one(
    'undecided-replayed',
    'A replay shows the operations of transactions that were not committed',
    'src/reader/decode-frame.js',
    'record.undecided = true;',
    ';',
    'transactions',
  ),
  // Faults that the simulation, hostile bytes and kills had found, put back.
  one(
    'cut-no-room',
    'A cut that finds no room leaves the log where it would have been cut',
    SEQUENCER,
    'this.#end = before.end;\n                this.#state = before.state;\n                this.#nextLsn = before.nextLsn;',
    '',
    'truncate',
  ),
  one(
    'closed-not-synced',
    'The end of a closed log is not synced when it is opened',
    TAIL,
    'an older seal would stand at its end.\n            file.sync();',
    'an older seal would stand at its end.',
    'cut-faults',
  ),
  one(
    'recovered-end',
    'A cut through a segment that recovery ended repeats the checksum of its old end',
    TAIL,
    'last.endCrc = end.headerCrc;',
    '',
    'crash-points',
  ),
  one(
    'outdated-begin',
    'A read takes a cut that the last look at the directory missed for one that was made under it',
    'src/reader/read-log.js',
    'if (source.catalog.outdated)\n        await source.catalog.refresh();',
    '',
    'cut-faults',
  ),
  one(
    'cut-look-fails',
    'A cut that was made rejects when the directory cannot be read afterwards',
    COORDINATOR,
    'refresh().catch(ignore)',
    'refresh()',
    'cut-faults',
  ),
  one(
    'unsure-cut',
    'What a failed cut may have cut off is called damage',
    COORDINATOR,
    'this.#unsureAbove = lsn;',
    '',
    'cut-faults',
  ),
  one(
    'rest-of-frame',
    'A reader whose end lies inside of a frame skips the rest of the frame',
    'src/reader/log-cursor.js',
    'if (unfinished)\n            await this.#leave();',
    '',
    'log-cursor',
  ),
  one(
    'subscribed-in-cut',
    'Who subscribes while the log is being cut begins above the cut',
    'src/subscriptions/subscriptions.js',
    'await this.#cutsOver();\n            const starting',
    'const starting',
    'subscriptions',
  ),
  one(
    'dsync-unsynced',
    'A file opened with O_DSYNC counts as synced from the beginning',
    'src/storage/node-storage.js',
    '#unsynced = true;\n    constructor',
    '#unsynced = false;\n    constructor',
    'storage',
  ),
  one(
    'later-version',
    'Records of a kind that a later version knows are stepped over',
    FRAME,
    'return records > 0 && !KNOWN_TYPES.has(type);',
    'return false;',
    'later-version',
  ),
  one(
    'quota-poisons',
    'A quota that is told by its number alone is no full disk',
    'src/segments/prepare.js',
    ' || errno === -122',
    '',
    'quota',
  ),
  one(
    'not-read-back',
    'What compaction wrote takes its place without being read once more',
    'src/compaction/rewrite.js',
    'check(storage, target, info, encryption?.keys);',
    '',
    'compactor',
  ),
  one(
    'swap-unsynced',
    'A compacted segment whose name is not durable counts as one that is',
    'src/coordinator/compactor.js',
    'if (swapped.unsynced !== undefined)',
    'if (false)',
    'compactor',
  ),
  one(
    'moved-seal',
    'A compacted segment that a repair mended does not open',
    READ,
    'if (content !== undefined || !isCompacted(header))',
    'if (true)',
    'compaction-damage',
  ),
  one(
    'circles',
    'What is due while a sync is under way keeps the actor busy until it is over',
    SEQUENCER,
    'if (this.#syncing !== undefined)\n            return undefined;\n        return Math.max',
    'return Math.max',
    'syncer',
  ),
  one(
    'cleaned-looked-at',
    'What lies below the clean-up mark is looked at when a log is opened, and refused',
    'src/recovery/recover.js',
    'describeSegments(storage, keptLinks, content)',
    'describeSegments(storage, links, content).slice(-keptLinks.length)',
    'compaction-crash',
  ),
  one(
    'compacted-end',
    'A compacted segment that an interrupted cut ended too soon counts as sound',
    'src/recovery/point-in-time.js',
    'const reachesNext = isLast || nextLsn > lastLsnOf(survey);',
    'const reachesNext = true;',
    'compaction-damage',
  ),
  {
    id: 'batch-split',
    breaks: 'An atomic batch lies in two frames',
    edits: [
      {
        file: 'src/producer/records.js',
        find: 'copied() {\n        return new PayloadBatch(',
        replace: `halves() {
        const middle = this.#payloads.length >> 1;
        return [this.#payloads.slice(0, middle), this.#payloads.slice(middle)].map((half) => new PayloadBatch(half));
    }
    copied() {\n        return new PayloadBatch(`,
      },
      {
        file: 'src/producer/appender.js',
        find: 'batch.write(this.#stage);\n        this.#records += batch.count;',
        replace: `for (const half of batch.count > 1 && batch.halves !== undefined ? batch.halves() : [batch]) {
            if (half !== batch) { this.publish(); this.#ensureFrame(half.bytes); }
            half.write(this.#stage);
            this.#records += half.count;
        }`,
      },
    ],
    tests: ['atomic-batch'],
  },
];
