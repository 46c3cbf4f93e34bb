import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { temporaryDirectory } from './helpers.js';

/** Each example says what it shows and checks it; it ends with code 1 when something does not hold. */
const EXAMPLES: [name: string, ...args: string[]][] = [
  ['commit-events'],
  ['crash-and-recover', '--rounds', '2'],
  ['ingest-pipeline'],
  ['memtable'],
  ['outbox', '--rounds', '3'],
];

for (const [name, ...args] of EXAMPLES) {
  t.test(`what examples/${name} shows holds, and it leaves nothing behind`, async (t) => {
    const directory = temporaryDirectory(t);
    const main = fileURLToPath(new URL(`../examples/${name}/main.js`, import.meta.url));
    const env = { ...process.env, TMPDIR: directory, TEMP: directory, TMP: directory };
    const child = spawn(process.execPath, [main, ...args], { env, stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      output += text;
    });
    const [code] = await once(child, 'close');
    t.equal(code, 0, output);
    t.match(output, /^ok {4}/m, 'it makes claims');
    t.notMatch(output, /^FAIL/m);
    const left = fs.readdirSync(directory).filter((file) => file.startsWith('ringwal'));
    t.same(left, [], 'its directory is gone');
  });
}
