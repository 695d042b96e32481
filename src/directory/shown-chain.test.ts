import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { ManualClock } from '../lib/clock.ts';
import { newAdmission } from './admission.ts';
import { issueHost, issueIssuing, issueRoot } from './identity-issue.ts';
import { parseChain } from './pem-files.ts';
import { checkShownChain } from './shown-chain.ts';
import { caFingerprint } from './token.ts';

const DAY_MS = 24 * 60 * 60 * 1000;
const clock = new ManualClock();

async function cluster(name: string) {
  const root = await issueRoot({ cluster: name, clock });
  const issuing = await issueIssuing({ root, cluster: name, clock });
  const host = await issueHost({ authority: issuing, cluster: name, host: 'm1', admission: newAdmission(), clock });
  const [own] = parseChain('m1', host.certificate);
  const above = [new X509Certificate(issuing.certificate), new X509Certificate(root.certificate)];
  return { own, above, token: { cluster: name, caFingerprint: caFingerprint(root.certificate) }, root, issuing };
}

const lab = await cluster('lab');
const other = await cluster('lab');

test('a chain from the host to the root of the token is taken', () => checkShownChain(lab, lab.token, 'm1', clock));

test('any other is refused', () => {
  const refused = (shown: Partial<typeof lab>, message: RegExp, token = lab.token) =>
    assert.throws(() => checkShownChain({ ...lab, ...shown }, token, 'm1', clock), { code: 'denied', message });
  const [issuing, root] = lab.above;
  refused({ above: [] }, /no root certificate/);
  refused({ above: [issuing, issuing, root] }, /too many/);
  refused({ above: other.above }, /its CA is not the one of the token/);
  refused({ own: other.own }, /no chain up to the CA of cluster lab/);
  refused({ above: [root] }, /no chain up to/);
  refused({ above: [other.above[0], root] }, /no chain up to/);
  refused({ own: issuing, above: [root] }, /not of a host/);
  refused({ above: [lab.own, root] }, /no chain up to/);
  refused({}, /not of cluster x/, { ...lab.token, cluster: 'x' });
});

test('another member of the cluster is not the one that invited', () => {
  assert.throws(() => checkShownChain(lab, lab.token, 'm3', clock), { code: 'denied', message: /is of host m1, not m3/ });
});

test('dates that do not fit point at the clocks', () => {
  const at = (offsetMs: number) => ({ ...clock, wallTime: () => clock.wallTime() + offsetMs }) as ManualClock;
  assert.throws(() => checkShownChain(lab, lab.token, 'm1', at(31 * DAY_MS)), {
    message: /expired at .*Z, and it is .*Z by this host's clock: check the clocks of both hosts/,
  });
  assert.throws(() => checkShownChain(lab, lab.token, 'm1', at(-DAY_MS)), {
    message: /is valid from .*: check the clocks of both hosts/,
  });
});
