import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { MutatedTree, occurrences } from './mutated-tree.js';
import { MUTATIONS, type Mutation } from './mutations.js';
import { noticedIn, pageOf, type Result } from './mutations-page.js';

const HELP = `Breaks the engine on purpose, one way at a time, and runs the tests that should notice.

  --only ID   these mutations alone; may be given more than once
  --jobs N    how many at once (default 2)
  --seeds N   seeds of the simulation, which comes behind the tests (default 120)
  --list      say what there is, and run nothing
  --write     write what came out to docs/MUTATIONS.md

Exit code 1 when one of them was not noticed.`;

const PAGE = fileURLToPath(new URL('../../../docs/MUTATIONS.md', import.meta.url));
const MOST_MS = 240_000;

interface Run {
  failed: boolean;
  /** The first thing that failed. */
  what: string;
}

function run(tree: string, test: string, seeds: number): Promise<Run> {
  const simulates = test === 'simulate';
  const file = simulates ? 'simulation/main.js' : `${test}.test.js`;
  const args = [path.join(tree, 'dist/test', file), ...(simulates ? ['--seeds', `${seeds}`, '--no-shrink'] : [])];
  return new Promise((resolve) => {
    const child = spawn(process.execPath, args, {
      cwd: tree,
      env: { ...process.env, TAP_TIMEOUT: '120', TAP_BAIL: '1' },
    });
    let output = '';
    const timer = setTimeout(() => child.kill('SIGKILL'), MOST_MS);
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        output = (output + chunk.toString()).slice(-200_000);
      });
    }
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ failed: code !== 0, what: firstFailure(output, test, code) });
    });
  });
}

function firstFailure(output: string, test: string, code: number | null): string {
  if (test === 'simulate') {
    const [, what = `exit code ${code}`] =
      /^Seed \d+ fails: (?:\w*Error: |Violation: )?([A-Za-z_]+)/m.exec(output) ?? [];
    return `the simulation (${what})`;
  }
  const failure = output.search(/^ *not ok /m);
  const name = failure < 0 ? undefined : [...output.slice(0, failure).matchAll(/^# Subtest: (.*)$/gm)].at(-1)?.[1];
  return `${test}: ${name ?? `exit code ${code}`}`;
}

async function judge(tree: MutatedTree, mutation: Mutation, seeds: number): Promise<Result> {
  const startedAt = performance.now();
  const tests = mutation.tests.includes('simulate') ? mutation.tests : [...mutation.tests, 'simulate'];
  tree.apply(mutation);
  try {
    for (const test of tests) {
      const { failed, what } = await run(tree.directory, test, seeds);
      if (failed) return { mutation, by: what, seconds: (performance.now() - startedAt) / 1000 };
    }
    return { mutation, by: undefined, seconds: (performance.now() - startedAt) / 1000 };
  } finally {
    tree.restore();
  }
}

/** Without a mutation all of these pass: otherwise they would catch anything. */
async function checkTests(tree: MutatedTree, chosen: readonly Mutation[], seeds: number): Promise<void> {
  const tests = new Set([...chosen.flatMap(({ tests }) => tests), 'simulate']);
  for (const test of tests) {
    const { failed, what } = await run(tree.directory, test, seeds);
    if (failed) throw new Error(`Without any mutation this fails: ${what}`);
  }
  console.log(`${tests.size} tests pass on the engine as it is.`);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true },
      jobs: { type: 'string', default: '2' },
      seeds: { type: 'string', default: '120' },
      list: { type: 'boolean' },
      write: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) return console.log(HELP);
  const chosen = MUTATIONS.filter(({ id }) => values.only === undefined || values.only.includes(id));
  if (values.list) return console.log(chosen.map(({ id, breaks }) => `${id.padEnd(26)} ${breaks}`).join('\n'));
  const stale = chosen.filter(({ edits }) => edits.some((edit) => occurrences(edit) !== 1));
  if (stale.length > 0) throw new Error(`Out of date: ${stale.map(({ id }) => id).join(', ')}`);
  const temporary = fs.mkdtempSync(path.join(os.tmpdir(), 'ringwal-mutate-'));
  try {
    const seeds = Number(values.seeds);
    const trees = Array.from({ length: Number(values.jobs) }, (_, i) => new MutatedTree(path.join(temporary, `${i}`)));
    await checkTests(trees[0], chosen, seeds);
    const results = await judgeAll(trees, chosen, seeds, values.write ?? false);
    const survivors = results.filter(({ by }) => by === undefined);
    console.log(`\n${results.length - survivors.length} of ${results.length} were noticed.`);
    for (const { mutation } of survivors) console.log(`NOT NOTICED: ${mutation.id}: ${mutation.breaks}`);
    if (survivors.length > 0) process.exitCode = 1;
  } finally {
    fs.rmSync(temporary, { recursive: true, force: true });
  }
}

async function judgeAll(
  trees: MutatedTree[],
  chosen: readonly Mutation[],
  seeds: number,
  write: boolean,
): Promise<Result[]> {
  const waiting = [...chosen];
  const results: Result[] = [];
  await Promise.all(
    trees.map(async (tree) => {
      for (let mutation = waiting.shift(); mutation !== undefined; mutation = waiting.shift()) {
        const result = await judge(tree, mutation, seeds);
        results.push(result);
        if (write) fs.writeFileSync(PAGE, pageOf(merged(results)));
        const { by, seconds } = result;
        console.log(`${mutation.id.padEnd(26)} ${seconds.toFixed(1).padStart(6)} s  ${by ?? 'NOT NOTICED'}`);
      }
    }),
  );
  return results.sort((a, b) => chosen.indexOf(a.mutation) - chosen.indexOf(b.mutation));
}

/** What came out for all mutations: of those that were not run now, what the page says already. */
function merged(results: readonly Result[]): Result[] {
  const page = fs.existsSync(PAGE) ? fs.readFileSync(PAGE, 'utf8') : '';
  const known = new Map(noticedIn(page));
  return MUTATIONS.flatMap((mutation) => {
    const result = results.find((one) => one.mutation === mutation);
    const by = known.get(mutation.id);
    return result !== undefined ? [result] : by !== undefined ? [{ mutation, by, seconds: 0 }] : [];
  });
}

await main();
