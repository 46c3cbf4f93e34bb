import fc from 'fast-check';
import { runCommand, UsageError, oneOf as wanted, wholeNumber } from '../../src/cli/command.js';
import { eachLine, type LineBlock, LineSplitter } from '../../src/cli/line-blocks.js';
import { resolveOptions } from '../../src/coordinator/options.js';
import { WalError } from '../../src/errors.js';
import { checkLevel, checkLsn, checkOperations, checkOptions } from '../../src/producer/arguments.js';
import { connect, makeHandle, type ProducerHandle } from '../../src/producer/connect.js';
import { inspectLog } from '../../src/recovery/recover.js';
import { Control, LogPhase } from '../../src/ring/control.js';
import { Ring } from '../../src/ring/ring.js';
import { Member } from '../../src/sequencer/member.js';
import { Sequencer } from '../../src/sequencer/sequencer.js';
import { checkName } from '../../src/subscriptions/names.js';
import { Random } from '../simulation/random.js';
import { MemoryDisk } from './memory-disk.js';
import { outcomeNow, outcomeOf } from './outcome.js';
import { must, type Property, property } from './property.js';

const RING_BYTES = 64 * 1024;
const SEGMENT_BYTES = 64 * 1024;

const aHandle = () =>
  makeHandle(Ring.allocate(RING_BYTES), new Control(), 2, {
    frameBytes: 16384,
    maxRecordBytes: 16384,
    encodeBytes: 131072,
  });

const memory = fc
  .constantFrom(0, 1, 4, 63, 64, 4096, 4351, 32831, 32832, 32840, 65536, 100_000)
  .map((n) => new SharedArrayBuffer(n));
const hostileValue = fc.oneof(
  fc.anything(),
  memory,
  fc.constantFrom(undefined, null, Number.NaN, -1, 0, 1.5, 2 ** 53, Symbol.iterator, 'x', () => 1, new ArrayBuffer(8)),
);

const FIELDS = ['ringwal', 'control', 'ring', 'channel', 'opener', 'defaultLevel', 'options'] as const;
const OPTIONS = ['frameBytes', 'maxRecordBytes', 'encodeBytes'] as const;

const hostileHandle = fc.oneof(
  { weight: 1, arbitrary: fc.anything() },
  {
    weight: 4,
    arbitrary: fc
      .tuple(fc.constantFrom(...FIELDS), hostileValue)
      .map(([field, value]) => ({ ...aHandle(), [field]: value })),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.constantFrom(...OPTIONS), hostileValue)
      .map(([name, value]) => ({ ...aHandle(), options: { ...aHandle().options, [name]: value } })),
  },
  { weight: 1, arbitrary: fc.constantFrom(...FIELDS).map((field) => ({ ...aHandle(), [field]: undefined })) },
);

/** An empty log in memory, with one ring of which the caller may do what it likes. */
function ringInLog() {
  const disk = new MemoryDisk();
  const random = new Random(1);
  const control = new Control();
  const ring = Ring.allocate(RING_BYTES);
  const nothing = () => undefined;
  const host = {
    now: () => 1_700_000_000_000,
    randomBytes: (count: number) => random.bytes(count),
    wakeOpener: nothing,
    wantSpare: nothing,
    forgotten: nothing,
    rotated: nothing,
  };
  const options = { segmentBytes: SEGMENT_BYTES, flushIntervalMs: 0, growAbove: 0 };
  const sequencer = new Sequencer(disk, control, host, options, inspectLog(disk, 'strict'));
  sequencer.addMember(new Member(1, ring, nothing));
  return { disk, ring, sequencer, control };
}

const words = fc.array(fc.oneof(fc.nat(3), fc.integer(), fc.constantFrom(-1, 2, 64, 128, 0x7fffffff)), {
  minLength: 1,
  maxLength: 40,
});

const someText = fc.oneof(
  fc.string(),
  fc.maxSafeNat().map(String),
  fc.constantFrom(
    '',
    '-1',
    '+1',
    '1e3',
    '0x10',
    ' 1',
    '1 ',
    '1.0',
    '٣',
    '9007199254740992',
    '99999999999999999999',
    'NaN',
    'Infinity',
    '1n',
  ),
);

export function inputProperties(): Property[] {
  return [
    property(
      'a handle that is none is ERR_WAL_INVALID_ARGUMENT, and one that is connects once',
      150,
      hostileHandle,
      async (handle) => {
        const connected = await outcomeOf(() => connect(handle as ProducerHandle));
        if (!connected.ok) return must(connected.error.code === 'ERR_WAL_INVALID_ARGUMENT', connected.error.code);
        const again = await outcomeOf(() => connect(handle as ProducerHandle));
        must(!again.ok && again.error.code === 'ERR_WAL_INVALID_ARGUMENT', 'connected twice');
        await connected.value.close();
      },
    ),

    property(
      'a ring of random descriptors fails the log or is written, and never ends the thread or asks for what the ring cannot hold',
      150,
      fc.tuple(words, words, fc.uint8Array({ maxLength: 400 }), fc.boolean()),
      ([head, descriptors, data, ready]) => {
        const { disk, ring, sequencer, control } = ringInLog();
        ring.descriptors.set(descriptors);
        // State Ready, so that the actor looks at them.
        if (ready) for (let at = 0; at < descriptors.length; at += 8) ring.descriptors[at] = 2;
        ring.head.set(head.slice(3, 6), 3);
        ring.data.set(data);
        for (let step = 0; step < 10 && sequencer.step(); step++);
        outcomeNow(() => sequencer.close());
        must(disk.bytes <= 16 * SEGMENT_BYTES, `${disk.bytes} bytes on disk`);
        must(control.phase !== LogPhase.Failed || control.failure().length > 0, 'failed without saying why');
        const found = outcomeNow(() => inspectLog(disk, 'tolerate-torn-tail'));
        must(found.ok || found.error.code === 'ERR_WAL_CORRUPT', 'another error');
      },
    ),

    property(
      'options of open: what cannot be is ERR_WAL_INVALID_ARGUMENT',
      300,
      fc.oneof(
        fc.anything(),
        fc.dictionary(
          fc.constantFrom(
            'durability',
            'segmentBytes',
            'ringBytes',
            'maxRecordBytes',
            'frameBytes',
            'encoders',
            'compression',
            'encryptionKey',
            'syncMethod',
            'flushIntervalMs',
            'recoveryMode',
            'createIfMissing',
            'readOnly',
            'autoCleanup',
            'signal',
            'onProgress',
            'replica',
            'nonsense',
          ),
          fc.oneof(hostileValue, fc.nat()),
          { maxKeys: 4 },
        ),
      ),
      (given) => {
        const done = outcomeNow(() => resolveOptions(given as never));
        if (!done.ok) return must(done.error.code === 'ERR_WAL_INVALID_ARGUMENT', done.error.code);
        const { ringBytes, segmentBytes, maxRecordBytes, frameBytes, encoders, flushIntervalMs } = done.value;
        for (const value of [ringBytes, segmentBytes, maxRecordBytes, frameBytes, encoders, flushIntervalMs])
          must(Number.isSafeInteger(value) && value >= 0, `${value} gets through`);
        must(maxRecordBytes <= ringBytes / 4 && frameBytes <= ringBytes / 4, 'a record that no ring can hold');
      },
    ),

    property(
      'arguments: what cannot be is ERR_WAL_INVALID_ARGUMENT',
      300,
      fc.oneof(
        hostileValue,
        fc.array(
          fc.oneof(
            hostileValue,
            fc.record({
              type: fc.oneof(fc.constantFrom('put', 'del'), hostileValue),
              key: hostileValue,
              value: hostileValue,
            }),
          ),
          { maxLength: 3 },
        ),
      ),
      (value) => {
        for (const check of [checkLsn, checkLevel, checkName, checkOperations, checkOptions]) {
          const done = outcomeNow(() => (check as (value: unknown) => unknown)(value));
          must(done.ok || done.error.code === 'ERR_WAL_INVALID_ARGUMENT', 'another error');
        }
        must(
          !outcomeNow(() => checkLsn(value)).ok || (Number.isSafeInteger(value) && (value as number) >= 1),
          'no LSN',
        );
      },
    ),

    property(
      'the command line: a number is what it looks like, or wrong usage',
      300,
      fc.tuple(someText, fc.nat(5), fc.nat()),
      ([text, least, most]) => {
        const bounds = [least, least + most] as const;
        const parsed = usage(() => wholeNumber({ n: text }, 'n', ...bounds));
        must(
          parsed === undefined ||
            (String(parsed) === text.replace(/^0+(?=\d)/, '') && parsed >= bounds[0] && parsed <= bounds[1]),
          `${text} is taken for ${parsed}`,
        );
        const named = usage(() => wanted({ n: text }, 'n', ['utf8', 'hex'], 'utf8'));
        must(named === undefined || named === text, `${text} is taken for ${named}`);
      },
    ),

    property(
      'the command line: any arguments are taken, or wrong usage in one line',
      200,
      fc.array(
        fc.oneof(
          fc.string(),
          fc.constantFrom(
            '--',
            '-',
            '--from',
            '--from=1',
            '--json',
            '--help',
            '-h',
            '--json=1',
            '--no-json',
            '-x',
            'DIR',
          ),
        ),
        { maxLength: 6 },
      ),
      async (args) => {
        let text = '';
        const out = {
          write: async (more: string) => {
            text += more;
          },
        };
        const command = {
          name: 'dump',
          synopsis: 'DIR',
          summary: 'Prints.',
          details: 'More.',
          options: { from: { type: 'string' as const, value: 'LSN', help: 'where' } },
          positionals: { least: 1, most: 1 },
          run: async ({ positionals }: { positionals: string[] }) => positionals.length,
        };
        try {
          const code = await runCommand(command, args, out as never);
          must(code === 1 || text.startsWith('Usage:'), 'neither ran nor helped');
        } catch (error) {
          must(error instanceof UsageError && error.message.length > 0, `${error}`);
        }
      },
    ),

    property(
      'lines: cut into blocks and again into lines, they are what came in, however it came',
      150,
      fc.array(
        fc.uint8Array({ maxLength: 40 }).map((bytes) => bytes.map((byte) => (byte < 60 ? 10 : byte))),
        { maxLength: 12 },
      ),
      async (chunks) => {
        const splitter = new LineSplitter('-');
        const blocks: LineBlock[] = [];
        for (const chunk of chunks) blocks.push(...[splitter.push(chunk)].filter((block) => block !== undefined));
        blocks.push(...[splitter.end()].filter((block) => block !== undefined));
        const all = Buffer.concat(chunks);
        must(Buffer.concat(blocks.map(({ bytes }) => bytes)).equals(all), 'bytes were lost');
        must(
          blocks.every(
            ({ offset }, i) => offset === blocks.slice(0, i).reduce((sum, { bytes }) => sum + bytes.byteLength, 0),
          ),
          'another offset',
        );
        const lines: string[] = [];
        for (const { bytes } of blocks)
          await eachLine(Buffer.from(bytes), (line) => void lines.push(line.toString('latin1')));
        const expected = all.toString('latin1').split('\n');
        if (expected.at(-1) === '') expected.pop();
        must(JSON.stringify(lines) === JSON.stringify(expected), 'other lines');
      },
    ),
  ];
}

/** The result; undefined when it is wrong usage, said in one line. */
function usage<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    must(error instanceof UsageError && !(error instanceof WalError), `${error}`);
    return undefined;
  }
}
