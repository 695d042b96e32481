/** `netbus doctor`: runs the checks on this host. */
import type { Check, CheckOutcome, Finding } from './check.ts';
import { checks } from './checks.ts';
import { errorText, type HostFacts } from './facts.ts';
import { Machine } from './machine.ts';
import { type DoctorOptions, examine } from './situation.ts';

export interface Diagnosis {
  /** True where no check found an error. */
  readonly ok: boolean;
  readonly checks: readonly ({ readonly check: string } & Finding)[];
  /** How many of each result. */
  readonly results: Readonly<Record<CheckOutcome, number>>;
}

/** Examines this machine. */
export function diagnoseMachine(options: DoctorOptions): Promise<Diagnosis> {
  return diagnose(new Machine(), options);
}

/** A check that fails itself is told as skipped; the others go on. */
export async function diagnose(facts: HostFacts, options: DoctorOptions): Promise<Diagnosis> {
  const situation = await examine(facts, options);
  const told = await Promise.all(
    checks.map(async (check: Check) => {
      try {
        return (await check.run(situation)).map((finding) => ({ check: check.name, ...finding }));
      } catch (thrown) {
        return [{ check: check.name, result: 'skipped' as const, found: `could not be checked: ${errorText(thrown)}` }];
      }
    }),
  );
  const all = told.flat();
  const results = { ok: 0, hint: 0, warning: 0, error: 0, skipped: 0 };
  for (const { result } of all) results[result]++;
  return { ok: results.error === 0, checks: all, results };
}
