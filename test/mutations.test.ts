import fs from 'node:fs';
import t from 'tap';
import { occurrences } from './long/mutated-tree.js';
import { MUTATIONS } from './long/mutations.js';

t.test('every mutation of the engine still fits the code, in exactly one place', (t) => {
  for (const { id, edits } of MUTATIONS) {
    for (const edit of edits) t.equal(occurrences(edit), 1, `${id} in ${edit.file}`);
  }
  t.ok(MUTATIONS.length >= 20);
  t.equal(new Set(MUTATIONS.map(({ id }) => id)).size, MUTATIONS.length, 'no two have the same name');
  t.end();
});

t.test('the page about mutations says of each of them what noticed it', (t) => {
  const page = fs.readFileSync(new URL('../../docs/MUTATIONS.md', import.meta.url), 'utf8');
  for (const { id } of MUTATIONS) t.match(page, `| \`${id}\` |`);
  t.notMatch(page, /\*\*nothing\*\*/);
  t.end();
});
