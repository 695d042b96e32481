/** What the doctor says of a host on which one thing is changed. */
import assert from 'node:assert/strict';
import type { CheckOutcome } from '../../src/daemon/doctor/check.ts';
import { type Diagnosis, diagnose } from '../../src/daemon/doctor/doctor.ts';
import { FakeHost } from './fake-host.ts';

export const DOCTOR_OPTIONS = { configFile: '/etc/netbus/netbus.yaml' };

/** Changes a good host, and expects this of one check, with the advice; undefined where there is none. */
export async function expect(
  check: string,
  result: CheckOutcome,
  found: RegExp,
  advice: RegExp | undefined,
  change: (host: FakeHost) => void,
): Promise<Diagnosis> {
  const host = new FakeHost();
  change(host);
  const diagnosis = await diagnose(host, DOCTOR_OPTIONS);
  const all = diagnosis.checks.filter((finding) => finding.check === check);
  const match = all.find((finding) => finding.result === result && found.test(finding.found));
  assert.ok(match, `${check} says ${JSON.stringify(all)}`);
  if (advice === undefined) assert.equal(match.advice, undefined);
  else assert.match(match.advice ?? '', advice);
  for (const each of diagnosis.checks) {
    assert.doesNotMatch(`${each.found}${each.advice}`, /\n/);
    // Whoever is told that something is wrong is told what to do.
    if (each.result !== 'ok' && each.result !== 'skipped') assert.ok(each.advice, `${each.check}: ${each.found}`);
  }
  assert.equal(diagnosis.ok, diagnosis.results.error === 0);
  return diagnosis;
}
