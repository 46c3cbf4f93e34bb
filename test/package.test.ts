import { execFile } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import * as ringwal from 'ringwal';
import t from 'tap';

const root = fileURLToPath(new URL('../../', import.meta.url));

interface Packed {
  files: { path: string }[];
}

t.test('the package holds what it needs to run, and nothing else', async (t) => {
  const args = ['pack', '--dry-run', '--json', '--ignore-scripts'];
  const { stdout } = await promisify(execFile)('npm', args, { cwd: root, shell: process.platform === 'win32' });
  const [{ files }] = JSON.parse(stdout) as Packed[];
  const paths = files.map((file) => file.path);
  for (const needed of [
    'package.json',
    'README.md',
    'LICENSE',
    'dist/src/index.js',
    'dist/src/index.d.ts',
    'dist/src/wal.js',
    'dist/src/wal.d.ts',
    'dist/workers/io-actor.js',
    'dist/workers/encoder.js',
    'dist/workers/maintenance.js',
  ]) {
    t.ok(paths.includes(needed), needed);
  }
  const allowed = /^(dist\/src\/|dist\/workers\/|docs\/|package\.json$|README\.md$|LICENSE$|CHANGELOG\.md$)/;
  t.same(
    paths.filter((path) => !allowed.test(path)),
    [],
    'no tests, no benchmarks, no configuration',
  );
});

t.test('every name that the source exports can be imported from the package', async (t) => {
  const source = fs.readFileSync(new URL('../../src/index.ts', import.meta.url), 'utf8');
  const names = [...source.matchAll(/^export \{([^}]*)\}/gms)].flatMap(([, list]) =>
    list
      .split(',')
      .map((name) => name.trim())
      .filter((name) => name !== '' && !name.startsWith('type ')),
  );
  t.ok(names.includes('WriteAheadLog') && names.includes('connect'));
  t.same(Object.keys(ringwal).sort(), [...names].sort());
  const types = fs.readFileSync(new URL('../src/index.d.ts', import.meta.url), 'utf8');
  for (const name of names) t.ok(types.includes(name), `${name} has a type`);
});

t.test('the package has one way in', async (t) => {
  const inside = 'ringwal/dist/src/wal.js';
  const { resolve } = createRequire(import.meta.url);
  t.throws(() => resolve(inside), { code: 'ERR_PACKAGE_PATH_NOT_EXPORTED' });
  const manifest = JSON.parse(fs.readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  t.equal(manifest.type, 'module');
  t.ok(fs.existsSync(new URL(`../../${manifest.types}`, import.meta.url)), 'types');
});
