import type { Comparison } from '../compare/results.js';
import { sizeOf } from './sizes.js';
import { tablesOf } from './tables.js';

export interface Picture {
  title: string;
  svg: string;
}

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; color: #24292f; }
figure { margin: 2em 0; }
svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; margin: .5em 0 1.5em; font-size: 13px; }
th, td { border: 1px solid #d0d7de; padding: .25em .6em; }
th { background: #f6f8fa; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
`;

const SECTIONS: [name: string, title: string][] = [
  ['goals', 'What was aimed at'],
  ['bounds', 'How near the least that it can cost'],
  ['losses', 'Where somebody was quicker'],
  ['appends', 'Durable appends'],
  ['threads', 'Producer threads'],
  ['levels', 'Levels os, and mixed'],
  ['isolation', 'os beside disk'],
  ['reading', 'Reading'],
  ['opening', 'Opening'],
];

/** One page with everything in it: no scripts, no files beside it. */
export function pageOf(result: Comparison, pictures: Picture[]): string {
  const tables = tablesOf(result);
  const drawn = pictures.map(({ title, svg }) => `<figure role="img" aria-label="${escaped(title)}">\n${svg}</figure>`);
  const told = SECTIONS.map(([name, title]) => `<h2>${escaped(title)}</h2>\n${toHtml(tables[name])}`);
  const largest = Math.max(0, ...result.opening.map(({ bytes }) => bytes));
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>ringwal beside its peers</title><style>${STYLE}</style></head>
<body>
<h1>ringwal beside its peers</h1>
${toHtml(tables.machine)}
<p>All on the same disk in one run, in turn, medians of the rounds. The method is told in docs/BENCHMARKS.md.
ᵃ counted by strace in a run of its own; ᵇ from RocksDB's statistics. Logs of up to ${sizeOf(largest)} were opened.</p>
${[...drawn, ...told].join('\n')}
</body>
</html>
`;
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function inline(text: string): string {
  return escaped(text)
    .replace(/\*\*(.+?)\*\*/g, '<strong>$1</strong>')
    .replace(/`(.+?)`/g, '<code>$1</code>');
}

/** Of Markdown, what the tables use: tables, lists and paragraphs. */
function toHtml(markdown: string): string {
  return markdown
    .split('\n\n')
    .map((block) => {
      const lines = block.split('\n');
      if (lines[0].startsWith('| ')) return tableToHtml(lines);
      if (lines[0].startsWith('- '))
        return `<ul>${lines.map((line) => `<li>${inline(line.slice(2))}</li>`).join('\n')}</ul>`;
      return `<p>${inline(block)}</p>`;
    })
    .join('\n');
}

function tableToHtml([head, rule, ...rows]: string[]): string {
  const cells = (line: string) => line.slice(2, -2).split(' | ');
  const right = cells(rule).map((cell) => cell.endsWith(':'));
  const th = cells(head).map((cell) => `<th>${inline(cell)}</th>`);
  const trs = rows.map((row) => {
    const tds = cells(row).map((cell, i) => `<td${right[i] ? ' class="number"' : ''}>${inline(cell)}</td>`);
    return `<tr>${tds.join('')}</tr>`;
  });
  return `<table><tr>${th.join('')}</tr>\n${trs.join('\n')}</table>`;
}
