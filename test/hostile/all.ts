import { decoders } from './decoders.js';
import { directoryProperties } from './directories.js';
import { inputProperties } from './inputs.js';
import { realLogs } from './logs.js';
import type { Property } from './property.js';
import { segmentProperties } from './segments.js';

/** Every property, by what it is about. A new decoder joins by adding its properties here. */
export async function allProperties(): Promise<Record<string, readonly Property[]>> {
  const logs = await realLogs();
  return {
    'decoders of the format': decoders,
    'readers of one segment': segmentProperties(logs),
    'recovery, readers and repair of a directory': directoryProperties(logs),
    'handles, rings, options and the command line': inputProperties(),
  };
}
