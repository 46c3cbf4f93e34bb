import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { INSTALL, versionOf } from '../compare/peers.js';
import type { Comparison } from '../compare/results.js';
import { drawn, figuresOf } from './figures.js';
import { type Picture, pageOf } from './page.js';
import { fillIn, tablesOf } from './tables.js';

/** `npm run bench:report`: what `npm run bench:peers` found, as tables in docs/BENCHMARKS.md, pictures, and one page. */
const { values: options } = parseArgs({
  options: {
    json: { type: 'string', default: 'bench/results.json' },
    out: { type: 'string', default: 'docs' },
    help: { type: 'boolean', default: false },
  },
});

const USAGE = `npm run bench:report -- [options]

  --json FILE   what bench:peers wrote (default bench/results.json)
  --out DIR     where BENCHMARKS.md is, and benchmarks/ with the pictures and report.html (default docs)
`;

async function main(): Promise<void> {
  if (options.help) return console.log(USAGE);
  if (!fs.existsSync(options.json)) throw new Error(`there is no ${options.json}; npm run bench:peers makes one`);
  const result = JSON.parse(fs.readFileSync(options.json, 'utf8')) as Comparison;
  const folder = path.join(options.out, 'benchmarks');
  fs.mkdirSync(folder, { recursive: true });
  const pictures: Picture[] = [];
  if (versionOf('vega') === undefined) {
    console.log(`pictures: skipped, vega is not installed. To install it: ${INSTALL}`);
  } else {
    for (const figure of figuresOf(result)) {
      const svg = await drawn(figure);
      fs.writeFileSync(path.join(folder, `${figure.name}.svg`), svg);
      pictures.push({ title: figure.title, svg });
    }
  }
  fs.writeFileSync(path.join(folder, 'report.html'), pageOf(result, pictures));
  const page = path.join(options.out, 'BENCHMARKS.md');
  fs.writeFileSync(page, fillIn(fs.readFileSync(page, 'utf8'), tablesOf(result)));
  console.log(`${page}, ${folder}: ${pictures.length} pictures, report.html`);
}

try {
  await main();
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 2;
}
