/** Ratios, by the name of the work: more is better. */
export type Ratios = Record<string, number>;

export interface Baseline {
  /** How far a ratio may fall before it counts: 0.25 is a quarter. */
  tolerance: number;
  /** What every fdatasync takes at least, in microseconds. */
  syncMicros: number;
  /** Where it was recorded, for people. */
  recorded: { date: string; node: string; cores: number };
  ratios: Ratios;
}

export interface Verdict {
  name: string;
  was: number | undefined;
  is: number | undefined;
  state: 'held' | 'fell' | 'rose' | 'new' | 'not measured';
}

/** Each ratio beside its baseline, those of the baseline first. Only `fell` and `not measured` are bad. */
export function judge(measured: Ratios, { ratios, tolerance }: Pick<Baseline, 'ratios' | 'tolerance'>): Verdict[] {
  const names = [...Object.keys(ratios), ...Object.keys(measured).filter((name) => !(name in ratios))];
  return names.map((name) => {
    const was = ratios[name];
    const is = measured[name];
    return { name, was, is, state: stateOf(was, is, tolerance) };
  });
}

function stateOf(was: number | undefined, is: number | undefined, tolerance: number): Verdict['state'] {
  // A figure that is none is not one that held.
  if (is === undefined || !Number.isFinite(is)) return 'not measured';
  if (was === undefined) return 'new';
  if (is < was * (1 - tolerance)) return 'fell';
  return is > was / (1 - tolerance) ? 'rose' : 'held';
}

export function isBad({ state }: Verdict): boolean {
  return state === 'fell' || state === 'not measured';
}
