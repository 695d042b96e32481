/** What a check is, and what it says. */
import type { Situation } from './situation.ts';

/** `skipped`: it could not be checked, and `found` says why. */
export type CheckOutcome = 'ok' | 'hint' | 'warning' | 'error' | 'skipped';

export interface Finding {
  readonly result: CheckOutcome;
  /** One line: what there is. */
  readonly found: string;
  /** One line: what to do. */
  readonly advice?: string;
}

export interface Check {
  /** One word or two, the same in every release: programs go by it. */
  readonly name: string;
  /** At least one finding. What it throws is told as `skipped`. */
  run(situation: Situation): Promise<Finding[]>;
}

export const ok = (found: string): Finding => ({ result: 'ok', found });
export const skipped = (found: string, advice?: string): Finding => finding('skipped', found, advice);
/** What a check says that depends on the config, whose own check says what is wrong with it. */
export const withoutConfig = skipped('not looked at: without a config it is not known where');
export const hint = (found: string, advice: string): Finding => finding('hint', found, advice);
export const warning = (found: string, advice: string): Finding => finding('warning', found, advice);
export const failure = (found: string, advice: string): Finding => finding('error', found, advice);

function finding(result: CheckOutcome, found: string, advice: string | undefined): Finding {
  return { result, found, ...(advice !== undefined && { advice }) };
}
