import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Edit, Mutation } from './mutations.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));

/** How often the place that an edit changes stands in the compiled file: once, or the edit is out of date. */
export function occurrences({ file, find }: Edit): number {
  const target = path.join(root, 'dist', file);
  return fs.existsSync(target) ? fs.readFileSync(target, 'utf8').split(find).length - 1 : 0;
}

/** A copy of the built package, to be broken. */
export class MutatedTree {
  readonly directory: string;
  readonly #originals = new Map<string, string>();

  constructor(directory: string) {
    this.directory = directory;
    fs.mkdirSync(directory);
    fs.cpSync(path.join(root, 'dist'), path.join(directory, 'dist'), { recursive: true });
    fs.copyFileSync(path.join(root, 'package.json'), path.join(directory, 'package.json'));
    fs.symlinkSync(path.join(root, 'node_modules'), path.join(directory, 'node_modules'));
  }

  apply({ edits }: Mutation): void {
    for (const { file, find, replace } of edits) {
      const target = this.#path(file);
      const text = fs.readFileSync(target, 'utf8');
      if (!this.#originals.has(target)) this.#originals.set(target, text);
      // A function, because a string would have `$` in it mean something.
      fs.writeFileSync(
        target,
        text.replace(find, () => replace),
      );
    }
  }

  restore(): void {
    for (const [target, text] of this.#originals) fs.writeFileSync(target, text);
    this.#originals.clear();
  }

  #path(file: string): string {
    return path.join(this.directory, 'dist', file);
  }
}
