import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { HandOver } from '../device/hand-over.ts';
import { ManualClock } from '../lib/clock.ts';
import { admissionOf, newAdmission } from './admission.ts';
import { issueAuthority, issueHost, issueIssuing, issueRoot } from './identity-issue.ts';
import { parseChain } from './pem-files.ts';
import { signedHandOverSchema, signHandOver, verifyHandOver } from './signed-hand-over.ts';

const DAY_MS = 24 * 60 * 60 * 1000;
const clock = new ManualClock();
const attachment = '6f1c3a52-0000-4000-8000-000000000001';
const left: HandOver = { queues: [{ fetched: 9, usedIndex: 7, heads: [3, 1], lastBatch: [1] }] };
const stated = { attachment, epoch: 4, left };

/** Certificates that go up to a root of their own, and a member list that admits m1 under one membership. */
async function makeCluster(cluster: string) {
  const root = await issueRoot({ cluster, clock });
  const authority = await issueIssuing({ root, cluster, clock });
  const admission = newAdmission();
  const of = async (host: string, number = admission) => ({
    ...{ cluster, host },
    ...(await issueHost({ authority, cluster, host, admission: number, clock })),
  });
  const directory = {
    admits: (host: string, { serialNumber }: { serialNumber: string }) =>
      admissionOf(serialNumber) === admission && host !== 'evicted' ? undefined : `host ${host} is not a member`,
  };
  return { of, trust: { ca: root.certificate, cluster, directory, clock } };
}

const { of, trust } = await makeCluster('lab');
const m1 = await of('m1');
const signed = signHandOver(m1, stated);
const fails = (changed: object, message: RegExp, by = trust) =>
  assert.throws(() => verifyHandOver({ ...signed, ...changed }, by), { code: 'denied', message });

describe('a signed hand-over', () => {
  test('says what was signed, and who signed it', () => {
    const overTheWire = signedHandOverSchema.parse(JSON.parse(JSON.stringify(signed)));
    assert.deepEqual(verifyHandOver(overTheWire, trust), { host: 'm1', ...stated });
  });

  test('is taken where the CA signs hosts itself, too', async () => {
    const authority = await issueAuthority({ cluster: 'lab', clock });
    const own = await issueHost({ authority, cluster: 'lab', host: 'm1', clock });
    const directory = { admits: () => undefined };
    const by = { ...trust, ca: authority.certificate, directory };
    assert.equal(verifyHandOver(signHandOver({ ...m1, ...own }, stated), by).host, 'm1');
    fails({}, /no chain up to the CA of cluster lab/, by);
  });

  test('of another key, or of another host in the name of this one, is refused', async () => {
    const m2 = await of('m2');
    fails({ signature: signHandOver(m2, stated).signature }, /signature does not fit/);
    fails(signHandOver({ ...m2, host: 'm1' }, stated), /its certificate is of host m2, not m1/);
    // Its own certificate, under which it is no host at all.
    const [, issuing] = parseChain('', m1.certificate);
    fails({ certificates: issuing.toString() }, /signature does not fit/);
  });

  test('of an evicted host, or of an earlier membership, is refused', async () => {
    fails(signHandOver(await of('evicted'), stated), /host evicted is not a member/);
    fails(signHandOver(await of('m1', newAdmission()), stated), /host m1 is not a member/);
  });

  test('of another cluster is refused, also where it has the same name', async () => {
    const other = await makeCluster('lab');
    fails(signHandOver(await other.of('m1'), stated), /no chain up to the CA of cluster lab/);
    fails(signHandOver({ ...m1, cluster: 'attic' }, stated), /of cluster attic, not lab/);
  });

  test('is refused outside the dates of the certificates', () => {
    const late = { ...clock, wallTime: () => clock.wallTime() + 4000 * DAY_MS } as ManualClock;
    fails({}, /a certificate of host m1 expired/, { ...trust, clock: late });
  });

  test('that was altered anywhere is refused', () => {
    const text = Buffer.from(signed.text, 'base64');
    fc.assert(
      fc.property(fc.nat(text.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const altered = Buffer.from(text);
        altered[at] ^= flip;
        fails({ text: altered.toString('base64') }, /signature does not fit/);
      }),
    );
    fails({ signature: '' }, /signature does not fit/);
    fails({ certificates: '' }, /no certificate/);
    fails({ certificates: m1.certificate + m1.certificate }, /too many certificates/);
  });

  test('something else that the host signed is none', () => {
    const other = signHandOver(m1, { ...stated, epoch: 0 });
    fails(other, /no hand-over that this release knows/);
    assert.throws(() => signHandOver(m1, { ...stated, left: { queues: [], failure: 'x'.repeat(70_000) } }), { code: 'limit' });
  });
});
