import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { decoders } from './hostile/decoders.js';

const root = new URL('../../', import.meta.url);
const read = (name: string) => fs.readFileSync(fileURLToPath(new URL(name, root)), 'utf8');
const page = read('docs/TESTING.md').replace(/<!--.*?-->/gs, '');

/** The tests that a line names: `file` "title"; "title of the same file". */
function testsIn(line: string): { file: string; title: string }[] {
  const named: { file: string; title: string }[] = [];
  let file: string | undefined;
  for (const [, name, title] of line.matchAll(/`([\w-]+\.test\.ts)`|"([^"]+)"/g)) {
    if (name !== undefined) file = name;
    else if (file !== undefined) named.push({ file, title });
  }
  return named;
}

/** What a test file calls its tests, or its properties. */
function sourceOf(file: string): string {
  const parts = file === 'hostile.test.ts' ? ['decoders', 'segments', 'directories', 'inputs'] : [];
  return [`test/${file}`, ...parts.map((part) => `test/hostile/${part}.ts`)].map(read).join('\n');
}

t.test('every test that the page names exists', async (t) => {
  const named = page.split('\n').flatMap(testsIn);
  t.ok(named.length > 50, `${named.length} tests are named`);
  for (const { file, title } of named) {
    const source = sourceOf(file);
    const quoted = ["'", '"', '`'].some((quote) => source.includes(`${quote}${title}${quote}`));
    t.ok(quoted, `${file}: ${title}`);
  }
});

t.test('every row of the matrix names a test', async (t) => {
  const [, matrix] = page.split(/^## .*matrix.*$/m);
  const rows = matrix
    .split(/^## /m)[0]
    .split('\n')
    .filter((line) => line.startsWith('|') && !/^\|[ -]+\|[ -]+\|/.test(line));
  const without = rows.filter((row) => testsIn(row).length === 0);
  t.equal(without.length, 4, `only the heads of the four tables do not: ${without.join('\n')}`);
});

t.test('every command of the page is a script of the package', async (t) => {
  const { scripts } = JSON.parse(read('package.json'));
  const commands = [...page.matchAll(/npm (?:run )?([a-z:-]+)/g)].map(([, name]) => name);
  t.ok(commands.includes('fuzz'), 'they were found');
  for (const name of commands) t.ok(name in scripts, `npm run ${name}`);
});

t.test('no two properties of a decoder have the same name', async (t) => {
  t.equal(new Set(decoders.map(({ name }) => name)).size, decoders.length);
});
