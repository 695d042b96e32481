/** The fault campaign as it is, for as long as the tests have time. */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { faultKinds } from '../../bench/faults/kinds.ts';
import { isGood, jsonLine, table } from '../../bench/faults/report.ts';
import { planRounds } from '../../bench/faults/schedule.ts';
import { seededRandom } from '../support/random.ts';
import { PROGRAM, play, skip } from './play.ts';

/** Each kind once, on a machine that has some time to give. */
const FAULTS = faultKinds.length;
const BACK_MS_MAX = 60_000;

test('nothing is lost, stale, failed or left over, whatever fails', { skip }, async (t) => {
  assert.ok(existsSync(PROGRAM), `${PROGRAM} is missing: run "npm run build"`);
  const seed = randomInt(2 ** 32);
  t.diagnostic(`seed ${seed}: npm run bench -- faults --seed ${seed}`);
  const rounds = planRounds(faultKinds, seededRandom(seed));
  const said: string[] = [];
  const say = (text: string) => void said.push(text);
  const report = await play({ kinds: faultKinds, seed, guest: true, rounds, faults: FAULTS, backMsMax: BACK_MS_MAX, say });
  for (const line of table(report).split('\n')) t.diagnostic(line);
  assert.ok(isGood(report), `${jsonLine(report)}\n${said.join('\n')}`);
  if (report.byKind.has('disk-full')) assert.ok(report.expectedErrors > 0);
});
