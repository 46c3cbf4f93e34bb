import type { PayloadKeys } from '../format/frame-payload.js';
import type { Storage } from '../storage/storage.js';
import { inSteps } from './in-steps.js';
import { PatchedStorage } from './patched-storage.js';
import { inspectLog, type Recovered } from './recover.js';
import { planRepair } from './repair-plan.js';
import type { SurveyProgress } from './survey.js';

/**
 * A log as it would be after a repair, for reading alone: the gaps are put over the damage in memory, and nothing on
 * disk is changed.
 */
export async function salvageLog(
  storage: Storage,
  onProgress?: (progress: SurveyProgress) => void,
  signal?: AbortSignal,
  keys?: PayloadKeys,
): Promise<{ recovered: Recovered; view: Storage }> {
  const plan = await inSteps(planRepair(storage, { keys }), onProgress, signal);
  const view = new PatchedStorage(storage, plan);
  const recovered = inspectLog(view, 'tolerate-torn-tail');
  const { report } = recovered;
  if (plan.segments.length + plan.setAside.length > 0) report.verdict = 'salvaged';
  if (report.verdict === 'salvaged' || plan.lost.length > 0) {
    report.records = plan.kept;
    report.lost = plan.lost;
  }
  return { recovered, view };
}
