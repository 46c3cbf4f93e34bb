import type { Storage } from '../storage/storage.js';
import type { ReadableFiles } from './files.js';

/** Any storage as readers see a directory. Reads hold up the thread. */
export function filesOf(storage: Storage): ReadableFiles {
  return {
    list: async () => storage.list().sort(),
    open: async (name) => {
      const file = storage.open(name, 'read');
      return {
        size: async () => file.size(),
        read: async (target, position) => file.read(target, position),
        close: async () => file.close(),
      };
    },
  };
}
