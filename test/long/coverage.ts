import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const HELP = `Runs the suite under V8's own coverage and says which branches of src and workers it reaches.

  --only TEXT   the test files with TEXT in their name; may be given more than once
  --jobs N      how many test files at once (default 2)
  --minutes N   a test file that takes longer is ended, and counts as failed (default 10)

Writes .coverage/index.html. Exit code 1 when a test failed: what it reached counts all the same.`;

const root = fileURLToPath(new URL('../../../', import.meta.url));
const folder = path.join(root, '.coverage');
const raw = path.join(folder, 'raw');
const kept = path.join(folder, 'v8');

interface Script {
  url: string;
}

/** Of what the processes and threads of a test wrote, each a megabyte, the part that is about this package. */
function condense(test: string): number {
  const from = path.join(raw, test);
  const files = fs.existsSync(from) ? fs.readdirSync(from) : [];
  for (const file of files) {
    const { result } = parse(fs.readFileSync(path.join(from, file), 'utf8'));
    const own = result.filter(({ url }) => /\/dist\/(src|workers)\//.test(url) && url.startsWith('file:'));
    if (own.length > 0) fs.writeFileSync(path.join(kept, `${test}-${file}`), JSON.stringify({ result: own }));
  }
  fs.rmSync(from, { recursive: true, force: true });
  return files.length;
}

/** A process that was killed while it wrote leaves half a file. */
function parse(text: string): { result: Script[] } {
  try {
    return JSON.parse(text) as { result: Script[] };
  } catch {
    return { result: [] };
  }
}

function run(
  command: string,
  args: string[],
  env: NodeJS.ProcessEnv,
  mostMs: number,
  quiet: boolean,
): Promise<boolean> {
  return new Promise((resolve) => {
    // Output into a pipe that nobody reads would stop it; a group of its own, so that nothing of it is left behind.
    const child = spawn(command, args, { cwd: root, env, stdio: quiet ? 'ignore' : 'inherit', detached: quiet });
    const timer = setTimeout(() => process.kill(-child.pid!, 'SIGKILL'), mostMs);
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve(code === 0);
    });
  });
}

async function cover(file: string, mostMs: number): Promise<boolean> {
  const test = path.basename(file, '.test.js');
  const startedAt = performance.now();
  const env = { ...process.env, NODE_V8_COVERAGE: path.join(raw, test), TAP_TIMEOUT: `${mostMs / 1000}` };
  const passed = await run(process.execPath, [path.join('dist/test', file)], env, mostMs, true);
  const threads = condense(test);
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  console.log(
    `${test.padEnd(28)} ${seconds.padStart(6)} s ${`${threads}`.padStart(5)} threads${passed ? '' : '  FAILED'}`,
  );
  return passed;
}

const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true },
    jobs: { type: 'string', default: '2' },
    minutes: { type: 'string', default: '10' },
    help: { type: 'boolean', short: 'h' },
  },
});
if (values.help) {
  console.log(HELP);
  process.exit(0);
}
fs.rmSync(folder, { recursive: true, force: true });
fs.mkdirSync(kept, { recursive: true });
const { only } = values;
const waiting = fs
  .readdirSync(path.join(root, 'dist/test'))
  .filter((name) => name.endsWith('.test.js') && (only === undefined || only.some((text) => name.includes(text))));
const failed: string[] = [];
await Promise.all(
  Array.from({ length: Number(values.jobs) }, async () => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      if (!(await cover(file, Number(values.minutes) * 60_000))) failed.push(file);
    }
  }),
);
const report = ['report', '--temp-directory', kept, '--reports-dir', folder, '--exclude-after-remap'];
for (const reporter of ['text', 'html', 'json']) report.push('--reporter', reporter);
for (const pattern of ['src/**', 'workers/**']) report.push('--include', pattern);
await run(path.join(root, 'node_modules/.bin/c8'), report, process.env, 600_000, false);
fs.rmSync(raw, { recursive: true, force: true });
for (const file of failed) console.log(`FAILED: ${file}`);
if (failed.length > 0) process.exitCode = 1;
