/**
 * Writes all of `views`, one behind the other, with as many calls as it takes. A disk that fills up, a quota or a
 * file-size limit answers a write with a smaller count and no error; only the next call throws. So every count is
 * checked, and the rest tried again.
 *
 * @param writeSome Writes as much of the views as it can, and returns how many bytes that were.
 */
export function writeFully(
  views: readonly Uint8Array[],
  position: number,
  writeSome: (views: readonly Uint8Array[], position: number) => number,
): void {
  let rest = views;
  while (rest.length > 0) {
    const count = writeSome(rest, position);
    position += count;
    rest = withoutWritten(rest, count);
  }
}

/**
 * Fills `target` with as many calls as it takes, and returns how many bytes there were: fewer only at the end of the file.
 *
 * @param readSome Reads into a target, and returns how many bytes that were; 0 at the end of the file alone.
 */
export function readFully(
  target: Uint8Array,
  position: number,
  readSome: (target: Uint8Array, position: number) => number,
): number {
  let done = 0;
  while (done < target.byteLength) {
    const count = readSome(target.subarray(done), position + done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

function withoutWritten(views: readonly Uint8Array[], count: number): readonly Uint8Array[] {
  let i = 0;
  while (i < views.length && count >= views[i].byteLength) count -= views[i++].byteLength;
  if (i === 0 && count === 0) throw new Error('The disk accepted none of the bytes of a write.');
  if (i === views.length) return [];
  return [views[i].subarray(count), ...views.slice(i + 1)];
}
