import fc from 'fast-check';
import type { SegmentHeader } from '../../src/format/segment-header.js';
import { verdictOf } from '../../src/recovery/verdict.js';
import { chainOf } from '../../src/segments/chain.js';
import { hasLeftOver, readContent, readHeader } from '../../src/segments/read-segment.js';
import { searchRemains, Window, walkFrames } from '../../src/segments/walk.js';
import { largestAllocation } from './allocations.js';
import { forge, forgery, segmentsOf } from './forge.js';
import type { RealLog } from './logs.js';
import { MemoryDisk } from './memory-disk.js';
import { mutate, mutation } from './mutations.js';
import { outcomeNow, outcomeOf } from './outcome.js';
import { must, type Property, property } from './property.js';

/** What a reader holds at once: a window of 1 MiB. */
const WINDOW_BYTES = 1024 * 1024;
const NAME = '0000000000000001.wal';

/** Reads one file by everything that reads one file, and checks that it stays within its bounds. */
async function readSegment(bytes: Uint8Array, trusted: SegmentHeader | undefined): Promise<void> {
  const disk = new MemoryDisk(new Map([[NAME, bytes]]));
  const file = disk.open(NAME, 'read');
  const { largest } = await largestAllocation(async () => {
    const found = await outcomeOf(() => readHeader(file));
    const header = found.ok ? found.value : trusted;
    if (header === undefined) return;
    const window = new Window(file);
    const { headerBytes, salt, firstLsn: lsn, headerCrc: previousCrc } = header;
    let end = headerBytes;
    const walked = outcomeNow(() => {
      for (const { offset, payload, header: frame } of walkFrames(window, end, { salt, lsn, previousCrc })) {
        must(offset === end && payload.byteLength === frame.storedBytes, 'a frame that lies elsewhere');
        end = offset + 64 + Math.ceil(frame.storedBytes / 8) * 8;
        must(end <= bytes.byteLength, 'a frame that reaches behind the file');
      }
    });
    // The type may be what was forged.
    must(walked.ok || walked.error.code === 'ERR_WAL_VERSION', 'another error');
    const remains = searchRemains(window, end, header.salt);
    must(remains.end >= end && remains.end <= Math.max(end, bytes.byteLength), 'remains behind the file');
    const content = await outcomeOf(() => readContent(file, header));
    if (!content.ok) return;
    const { lastLsn, endOffset, unprovenFrom, sealed, fileBytes } = content.value;
    must(lastLsn >= header.firstLsn - 1 && Number.isSafeInteger(lastLsn), `ends at LSN ${lastLsn}`);
    must(
      endOffset <= Math.max(bytes.byteLength, header.headerBytes) && unprovenFrom <= endOffset,
      'ends behind its end',
    );
    const laterFrame = content.value.remains.laterFrame;
    const leftOver = hasLeftOver(file, header, content.value);
    verdictOf({
      isLast: true,
      sealed,
      fullSize: fileBytes >= header.segmentBytes,
      expectedLsn: lastLsn + 1,
      laterFrame,
      leftOver,
    });
  });
  must(disk.changes === 0, 'reading changed something');
  must(largest <= Math.max(WINDOW_BYTES, bytes.byteLength), `asked for ${largest} bytes, of ${bytes.byteLength}`);
  // Each byte is looked at a few times over: by the walk, by the search behind its end, and by both again.
  must(disk.asked <= 12 * (WINDOW_BYTES + bytes.byteLength), `${disk.asked} bytes were read`);
}

/** Properties of everything that reads one segment. */
export function segmentProperties(logs: readonly RealLog[]): Property[] {
  const files = logs.flatMap(({ image }) => segmentsOf(image).map((name) => image.get(name)!));
  const headerOf = (bytes: Uint8Array) => {
    const id = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(40, true);
    const name = `${String(id).padStart(16, '0')}.wal`;
    return readHeader(new MemoryDisk(new Map([[name, bytes]])).open(name, 'read'));
  };
  // By number: what fast-check prints is to be read by people.
  const real = fc.nat(files.length - 1);
  return [
    property(
      'a segment of random bytes is read to nothing, or to a WalError',
      120,
      fc.tuple(fc.uint8Array({ maxLength: 12_000 }), fc.nat(files.length - 1), fc.boolean()),
      async ([noise, i, behindHeader]) => {
        // Behind a header that holds, or by itself.
        const bytes = behindHeader ? Buffer.concat([files[i].subarray(0, 4096), noise]) : noise;
        await readSegment(bytes, headerOf(files[i]));
      },
    ),

    property(
      'a mutated segment is read as far as it holds, with bounded work',
      300,
      fc.tuple(real, fc.array(mutation, { minLength: 1, maxLength: 3 }), real),
      async ([i, changes, j]) => {
        const [bytes, stranger] = [files[i], files[j]];
        let image = new Map([[NAME, bytes]]);
        for (const change of changes) image = mutate(image, change, new Map([[NAME, stranger]])) as typeof image;
        for (const content of image.values()) await readSegment(content, headerOf(bytes));
      },
    ),

    property(
      'a forged segment, its checksums right, is read with bounded work and memory',
      400,
      fc.tuple(real, fc.array(forgery, { minLength: 1, maxLength: 3 })),
      async ([i, forgeries]) => {
        const bytes = files[i];
        let image: Map<string, Uint8Array> = new Map([[NAME, bytes]]);
        for (const one of forgeries) image = forge(image, one);
        await readSegment(image.get(NAME)!, headerOf(bytes));
      },
    ),

    property(
      'the chain of any headers is a part of them, in order, each once',
      200,
      fc.array(
        fc.record({
          segmentId: fc.maxSafeNat(),
          flags: fc.nat(7),
          previous: fc.maxSafeNat(),
          firstLsn: fc.maxSafeNat(),
        }),
        { maxLength: 12 },
      ),
      (given) => {
        const headers = given.map(
          ({ previous, ...rest }) =>
            ({ ...rest, previous: { segmentId: previous, lastLsn: 0 } }) as never as SegmentHeader,
        );
        const chain = chainOf(headers);
        const places = chain.map(({ header }) => headers.indexOf(header));
        must(
          places.every((place, i) => place >= 0 && (i === 0 || place > places[i - 1])),
          'not in order',
        );
        must(
          chain.every(({ next }, i) => next === chain[i + 1]?.header),
          'a link to elsewhere',
        );
        must(headers.length === 0 || places.at(-1) === headers.length - 1, 'the newest is not in it');
      },
    ),
  ];
}
