import type { Mutation } from './mutations.js';

export interface Result {
  mutation: Mutation;
  /** What noticed it; undefined when nothing did. */
  by: string | undefined;
  seconds: number;
}

/** docs/MUTATIONS.md, as `npm run mutate -- --write` makes it. */
export function pageOf(results: readonly Result[]): string {
  const noticed = results.filter(({ by }) => by !== undefined).length;
  const rows = results.map(({ mutation: { id, breaks }, by }) => `| \`${id}\` | ${breaks} | ${by ?? '**nothing**'} |`);
  return `# Mutations

\`npm run mutate\` breaks the engine on purpose, one way at a time, in a copy of the built package, and runs the tests that
should notice, each mutation's own first and the simulation behind them. A test that never fails proves nothing; this says
which one fails. The list is \`test/long/mutations.ts\`; a test checks that each of them still fits the code, exactly once.

${noticed} of ${results.length} were noticed when they were last tried. The third column says what failed first; others would have, too.

| mutation | the broken engine | noticed by |
|---|---|---|
${rows.join('\n')}
`;
}

/** What a page says of each mutation: what noticed it. */
export function noticedIn(page: string): [id: string, by: string][] {
  const rows = page.matchAll(/^\| `(.+?)` \| .* \| (.+?) \|$/gm);
  return [...rows].map(([, id, by]): [string, string] => [id, by]).filter(([, by]) => by !== '**nothing**');
}
