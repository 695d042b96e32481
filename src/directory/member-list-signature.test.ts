import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { NetbusError } from '../device/errors.ts';
import { ManualClock } from '../lib/clock.ts';
import { newAdmission } from './admission.ts';
import { type IssuedIdentity, issueHost, issueIssuing, issueRoot } from './identity-issue.ts';
import { addMember, createMemberList, MEMBERS_MAX, type MemberList } from './member-list.ts';
import { isSameList, MEMBER_LIST_BYTES_MAX, signMemberList, verifyMemberList } from './member-list-signature.ts';

const clock = new ManualClock();
const now = clock.wallTime();
const DAY_MS = 24 * 60 * 60 * 1000;

const root = await issueRoot({ cluster: 'lab', clock });
const issuing = await issueIssuing({ root, cluster: 'lab', clock });
const list = addMember(createMemberList('lab', { host: 'm1', address: '10.0.0.1', admission: newAdmission(), now }), {
  host: 'm2',
  address: '10.0.0.2',
  admission: newAdmission(),
  now,
});
const signed = signMemberList(list, issuing);

function refused(bytes: Uint8Array, reason: RegExp, at: number | undefined = now): void {
  assert.throws(
    () => verifyMemberList(bytes, root.certificate, 'lab', at),
    (error: NetbusError) => {
      assert.equal(error.code, 'denied');
      assert.match(error.message, /^the member list is refused: /);
      assert.match(error.message, reason);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    },
  );
}

/** The envelope with some of it replaced. */
function forged(change: Record<string, unknown>): Uint8Array {
  return Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(signed.bytes).toString()), ...change }));
}

/** Any value, well signed. */
function signedValue(value: object, by: IssuedIdentity = issuing): Uint8Array {
  return signMemberList(value as MemberList, by).bytes;
}

test('a signed list is read back', () => {
  const read = verifyMemberList(signed.bytes, root.certificate, 'lab', now);
  assert.deepEqual(read.list, list);
  assert.deepEqual(Buffer.from(read.bytes), Buffer.from(signed.bytes));
  assert.match(Buffer.from(signed.bytes).toString('latin1'), /^[\x20-\x7e]+$/);
  // Signed once more: other bytes, the same list.
  assert.ok(isSameList(read, verifyMemberList(signedValue(list), root.certificate, 'lab', now)));
});

test('a list of the largest hosts that there may be can be handed on', () => {
  const members = Array.from({ length: MEMBERS_MAX }, (_, i) => {
    const host = `${String(i).padStart(4, '0')}${'x'.repeat(59)}`;
    const address = `${'a'.repeat(60)}.${'b'.repeat(60)}.${'c'.repeat(60)}.${'d'.repeat(60)}.${'e'.repeat(9)}:65535`;
    return { ...list.members[0], host, address, state: i === 0 ? 'member' : 'evicted' };
  });
  const { bytes } = signMemberList({ ...list, members, issuer: members[0].host } as MemberList, issuing);
  assert.ok(bytes.length < (MEMBER_LIST_BYTES_MAX * 2) / 3, `${bytes.length} bytes`);
  assert.equal(verifyMemberList(bytes, root.certificate, 'lab', now).list.members.length, MEMBERS_MAX);
});

test('a list that was tampered with is refused', () => {
  const other = Buffer.from(JSON.stringify({ ...list, serial: 99 })).toString('base64');
  refused(forged({ list: other }), /its signature does not fit: it was tampered with/);
  refused(forged({ signature: Buffer.alloc(64).toString('base64') }), /its signature does not fit/);
  refused(forged({ signature: '' }), /its signature does not fit/);
  refused(forged({ signature: 'a' }), /not base64/);
  refused(forged({ certificate: 'none' }), /no issuing certificate/);
  refused(forged({ extra: 1 }), /damaged/);
  refused(signed.bytes.subarray(0, signed.bytes.length - 10), /not JSON/);
  refused(new Uint8Array(), /not JSON/);
  refused(Buffer.from('null'), /damaged/);
  refused(Buffer.alloc(MEMBER_LIST_BYTES_MAX + 1, 0x20), /at most 983040/);
});

test('no change of any byte goes through as another list', () => {
  fc.assert(
    fc.property(fc.nat(signed.bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, mask) => {
      const bytes = Uint8Array.from(signed.bytes);
      bytes[at] ^= mask;
      try {
        assert.deepEqual(verifyMemberList(bytes, root.certificate, 'lab', now).list, list);
      } catch (thrown) {
        assert.equal((thrown as NetbusError).code, 'denied');
      }
    }),
    { numRuns: 300 },
  );
});

test("only this cluster's issuing key signs", async () => {
  const otherRoot = await issueRoot({ cluster: 'lab', clock });
  const otherIssuing = await issueIssuing({ root: otherRoot, cluster: 'lab', clock });
  refused(signedValue(list, otherIssuing), /not signed by an issuing key of the CA of cluster lab: is it of another cluster/);
  // A host's certificate is signed below the root; its own key must not sign lists.
  const host = await issueHost({ authority: issuing, cluster: 'lab', host: 'm2', clock });
  refused(signedValue(list, host), /not signed by an issuing key/);
  const direct = await issueHost({ authority: root, cluster: 'lab', host: 'm2', clock });
  refused(signedValue(list, direct), /with a certificate that is not a CA/);
  // The right certificate beside another key.
  refused(signedValue(list, { certificate: issuing.certificate, key: host.key }), /its signature does not fit/);
  refused(signedValue(list, root), /does not name cluster lab/);
  const foreign = await issueIssuing({ root, cluster: 'other', clock });
  refused(signedValue(list, foreign), /does not name cluster lab/);
});

test('a list of another cluster is refused', () => {
  refused(signedValue({ ...list, cluster: 'other' }), /it is of cluster other, not lab/);
});

test('what is signed is checked, too', () => {
  const [m1, m2] = list.members;
  refused(signedValue({ ...list, version: 2 }), /it is of version 2: install a newer release/);
  refused(forged({ version: 2 }), /it is of version 2: install a newer release/);
  for (const wrong of [
    { serial: 0 },
    { serial: 1.5 },
    { serial: 2 ** 60 },
    { cluster: 'L' },
    { issuedAt: 'today' },
    { members: [] },
    { members: [m2, m1] },
    { members: [m1, m1] },
    { members: [m2] },
    { members: [{ ...m1, state: 'evicted' }, m2] },
    { members: [{ ...m1, host: 'M1' }] },
    { members: [{ ...m1, address: '10.0.0.300:1' }] },
    { members: [{ ...m1, address: '10.0.0.1' }] },
    { members: [{ ...m1, since: '2026' }] },
    { members: [{ ...m1, admission: '00' }] },
    { members: [{ ...m1, admission: 'f'.repeat(16) }] },
    { members: [{ ...m1, more: 1 }] },
    { members: Array.from({ length: MEMBERS_MAX + 1 }, (_, i) => ({ ...m1, host: `h${10000 + i}` })) },
    { more: 1 },
  ]) {
    refused(signedValue({ ...list, ...wrong }), /it is damaged \(/);
  }
});

test('dates of the issuing certificate are checked where they are asked for', () => {
  const expired = now + 6 * 365 * DAY_MS;
  refused(signed.bytes, /the issuing certificate expired on /, expired);
  refused(signed.bytes, /valid from .*check this host's clock/, now - DAY_MS);
  assert.deepEqual(verifyMemberList(signed.bytes, root.certificate, 'lab', undefined).list, list);
});
