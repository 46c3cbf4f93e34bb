import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import ts from 'typescript';

/**
 * Imports point one way, floor by floor (docs/ARCHITECTURE.md): a folder may use the floors below its own, and not its
 * neighbours. `errors.ts` and `types.ts` may be used by all.
 */
const FLOORS = [
  ['format', 'ring', 'storage'],
  ['segments'],
  ['sequencer', 'recovery', 'producer', 'reader', 'compaction'],
  ['coordinator', 'subscriptions', 'kv'],
  ['wal', 'upkeep'],
  ['index'],
  ['cli'],
];
const FOR_ALL = ['errors', 'types'];
/** Uses that the floors alone would allow. */
const FORBIDDEN = [
  // Segments stand on format and storage; what lies in shared memory is not their business.
  ['segments', 'ring'],
  // The sequencer's inside is the actor's own: the rest of the engine talks to it through rings and messages.
  ['coordinator', 'sequencer'],
  ['subscriptions', 'sequencer'],
  ['kv', 'sequencer'],
  ['wal', 'sequencer'],
  // It rewrites files; who appends meanwhile it only sees by a counter.
  ['wal', 'compaction'],
];
/** A use between neighbours: what `open` and `verify` say of the end of a segment comes from one and the same table. */
const ALLOWED = [{ from: 'reader', target: path.join('src', 'recovery', 'verdict.js') }];
/** Threads around the engine: they know everything but the class that starts them. */
const NOT_FOR_WORKERS = ['wal', 'index', 'cli'];

const root = fileURLToPath(new URL('../../', import.meta.url));
const floorOf = new Map(FLOORS.flatMap((floor, height) => floor.map((name) => [name, height] as const)));

interface Use {
  file: string;
  from: string;
  to: string;
  /** The file that is used. */
  target: string;
}

/** `src/ring/ring.ts` is part of `ring`, `src/wal.ts` of `wal`, `workers/encoder.ts` of `workers`. */
function partOf(file: string): string {
  const [top, second] = file.split(path.sep);
  return top === 'src' ? second.replace(/\.[jt]s$/, '') : top;
}

function usesOf(folder: string): Use[] {
  const files = fs.readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' });
  const sources = files.filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'));
  return sources.flatMap((name) => {
    const file = path.join(folder, name);
    const { importedFiles } = ts.preProcessFile(fs.readFileSync(path.join(root, file), 'utf8'), true, true);
    return importedFiles
      .filter(({ fileName }) => fileName.startsWith('.'))
      .map(({ fileName }) => path.normalize(path.join(path.dirname(file), fileName)))
      .map((target) => ({ file, from: partOf(file), to: partOf(target), target }))
      .filter(({ from, to }) => from !== to);
  });
}

function isAllowed({ from, to, target }: Use): boolean {
  if (FOR_ALL.includes(to)) return true;
  if (ALLOWED.some((use) => use.from === from && use.target === target)) return true;
  if (FORBIDDEN.some(([user, used]) => user === from && used === to)) return false;
  return floorOf.get(to)! < floorOf.get(from)!;
}

const show = ({ file, from, to }: Use) => `${file}: ${from} uses ${to}`;

t.test('every folder of src has its floor', async (t) => {
  const parts = new Set(fs.readdirSync(path.join(root, 'src')).map((name) => name.replace(/(\.d)?\.ts$/, '')));
  parts.delete('fs-native-extensions');
  t.same(
    [...parts].filter((part) => !floorOf.has(part) && !FOR_ALL.includes(part)),
    [],
  );
});

t.test('imports point one way, floor by floor', async (t) => {
  const uses = usesOf('src').filter(({ from }) => !FOR_ALL.includes(from));
  t.ok(uses.length > 50, 'the imports were found');
  t.same(uses.filter((use) => !isAllowed(use)).map(show), []);
});

t.test('what everybody may use needs nobody when it runs', async (t) => {
  for (const name of FOR_ALL) {
    const source = fs.readFileSync(path.join(root, 'src', `${name}.ts`), 'utf8');
    const { outputText } = ts.transpileModule(source, {
      compilerOptions: { verbatimModuleSyntax: true, module: ts.ModuleKind.NodeNext },
    });
    t.same(ts.preProcessFile(outputText, true, true).importedFiles, [], `${name}.ts imports types alone`);
  }
});

t.test('the threads around the engine know nothing of the class that starts them', async (t) => {
  const uses = usesOf('workers');
  t.ok(uses.length > 10, 'the imports were found');
  t.same(uses.filter(({ to }) => NOT_FOR_WORKERS.includes(to)).map(show), []);
});
