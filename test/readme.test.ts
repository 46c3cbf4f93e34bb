import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';
import ts from 'typescript';
import { temporaryDirectory } from './helpers.js';

/** The programs of the README compile, strictly, and run as they are printed. */
const root = fileURLToPath(new URL('../../', import.meta.url));
const readme = fs.readFileSync(path.join(root, 'README.md'), 'utf8');
const blocks = [...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code]) => code);
/** A block that begins with a comment that names a file is that file of the program. */
const nameOf = (code: string, i: number) => /^\/\/ (\w+\.ts)/.exec(code)?.[1] ?? `block-${i}.ts`;

t.test('the code of the README compiles and runs', async (t) => {
  const directory = temporaryDirectory(t);
  fs.writeFileSync(path.join(directory, 'package.json'), '{ "type": "module" }');
  fs.mkdirSync(path.join(directory, 'node_modules'));
  fs.symlinkSync(root, path.join(directory, 'node_modules', 'ringwal'), 'junction');
  const names = blocks.map(nameOf);
  blocks.forEach((code, i) => {
    fs.writeFileSync(path.join(directory, names[i]), code);
  });
  const program = ts.createProgram(
    names.map((name) => path.join(directory, name)),
    {
      target: ts.ScriptTarget.ES2022,
      lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts'],
      module: ts.ModuleKind.NodeNext,
      moduleResolution: ts.ModuleResolutionKind.NodeNext,
      typeRoots: [path.join(root, 'node_modules', '@types')],
      types: ['node'],
      strict: true,
      skipLibCheck: true,
    },
  );
  const { diagnostics } = program.emit();
  const problems = [...ts.getPreEmitDiagnostics(program), ...diagnostics];
  t.same(
    problems.map(({ file, messageText }) => `${file?.fileName}: ${ts.flattenDiagnosticMessageText(messageText, ' ')}`),
    [],
  );
  for (const name of names.filter((file) => file !== 'worker.ts')) {
    const script = path.join(directory, name.replace('.ts', '.js'));
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [script], { cwd: directory });
    t.ok(stdout.length > 0, `${name} says something`);
    t.equal(stderr, '', `${name} has nothing to complain about`);
  }
});

t.test('every command of the README is a script of the package', async (t) => {
  const { scripts } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));
  const commands = [...readme.matchAll(/npm (?:run )?([a-z][a-z:-]+)/g)].map(([, name]) => name);
  t.same(
    commands.filter((name) => name !== 'ci' && scripts[name] === undefined),
    [],
  );
});

t.test('every file that the documents link to is there', async (t) => {
  const pages = fs.readdirSync(path.join(root, 'docs')).filter((file) => file.endsWith('.md'));
  for (const name of ['README.md', ...pages.map((file) => `docs/${file}`)]) {
    const links = fs.readFileSync(path.join(root, name), 'utf8').matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g);
    for (const [, link] of links) {
      t.ok(fs.existsSync(path.join(root, path.dirname(name), link)), `${name} links to ${link}`);
    }
  }
});

t.test('every error code is in the README and in docs/DURABILITY.md', async (t) => {
  const { WAL_ERROR_CODES } = await import('ringwal');
  const durability = fs.readFileSync(path.join(root, 'docs', 'DURABILITY.md'), 'utf8');
  for (const code of WAL_ERROR_CODES) {
    t.ok(readme.includes(`\`${code}\``) && durability.includes(`\`${code}\``), code);
  }
});
