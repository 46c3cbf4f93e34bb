/** Durability levels as numbers, for shared memory. Their order is their strength. */
export const Level = { Memory: 0, Os: 1, Disk: 2, Replicated: 3 } as const;
export const LEVEL_NAMES = ['memory', 'os', 'disk', 'replicated'] as const;
export type LevelName = (typeof LEVEL_NAMES)[number];

export function levelNumber(name: unknown): number {
  return (LEVEL_NAMES as readonly unknown[]).indexOf(name);
}
