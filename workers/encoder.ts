import { encodeFrame } from '../src/coordinator/encode-frame.js';
import type { EncodeTask, TaskResult } from '../src/coordinator/messages.js';
import { toPlainError } from '../src/errors.js';
import { Control } from '../src/ring/control.js';
import { Ring } from '../src/ring/ring.js';

/** The pool's task: encodes one frame in the ring itself. Nothing but its name travels between the threads. */
export default function encode({ ring, control, frame, encoding }: EncodeTask): TaskResult<undefined> {
  try {
    encodeFrame(new Ring(ring), new Control(control), frame, encoding);
    return { ok: true, value: undefined };
  } catch (error) {
    return { ok: false, error: toPlainError(error) };
  }
}
