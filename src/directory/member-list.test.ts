import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newAdmission } from './admission.ts';
import { addMember, createMemberList, evictMember, MEMBERS_MAX, type MemberList, moveMember } from './member-list.ts';

const NOW = Date.UTC(2026, 0, 1);
const first = createMemberList('lab', { host: 'm1', address: '10.0.0.1', admission: newAdmission(), now: NOW });
const joining = (host: string, address: string, now = NOW) => ({ host, address, admission: newAdmission(), now });

function entry(list: MemberList, host: string) {
  return list.members.find((other) => other.host === host);
}

test('a host comes in, is put out and comes in again, each time in a list of its own', () => {
  const joined = addMember(first, joining('a2', '10.0.0.2:7000', NOW + 1000));
  assert.deepEqual(
    joined.members.map(({ host, address, state }) => [host, address, state]),
    [
      ['a2', '10.0.0.2:7000', 'member'],
      ['m1', '10.0.0.1:7443', 'member'],
    ],
  );
  assert.deepEqual([first.serial, joined.serial], [1, 2]);
  assert.equal(joined.issuedAt, '2026-01-01T00:00:01.000Z');
  assert.equal(first.members.length, 1);

  const evicted = evictMember(joined, { host: 'a2', now: NOW + 2000 });
  assert.equal(evicted.serial, 3);
  assert.equal(entry(evicted, 'a2')?.state, 'evicted');
  assert.equal(entry(evicted, 'a2')?.since, '2026-01-01T00:00:02.000Z');

  const again = addMember(evicted, joining('a2', '10.0.0.9', NOW + 3000));
  assert.equal(again.members.length, 2);
  assert.equal(entry(again, 'a2')?.state, 'member');
  assert.notEqual(entry(again, 'a2')?.admission, entry(joined, 'a2')?.admission);
});

test("a member's name and address are its own; an evicted host's are free", () => {
  const joined = addMember(first, joining('m2', '10.0.0.2'));
  assert.throws(() => addMember(joined, joining('m2', '10.0.0.3')), {
    code: 'in_use',
    message: 'host m2 is a member of lab since 2026-01-01: choose another name, or evict that one first: netbus evict m2',
  });
  assert.throws(() => addMember(joined, joining('m3', '10.0.0.2:7443')), {
    code: 'in_use',
    message: /host m2 has the address/,
  });
  const evicted = evictMember(joined, { host: 'm2', now: NOW });
  assert.equal(addMember(evicted, joining('m3', '10.0.0.2')).members.length, 3);
});

test('a member moves', () => {
  const joined = addMember(first, joining('m2', '10.0.0.2'));
  assert.equal(moveMember(joined, { host: 'm2', address: '10.0.0.2:7443', now: NOW }), joined);
  const moved = moveMember(joined, { host: 'm2', address: '[fd00::1]', now: NOW });
  assert.equal(entry(moved, 'm2')?.address, '[fd00::1]:7443');
  assert.equal(entry(moved, 'm2')?.admission, entry(joined, 'm2')?.admission);
  assert.equal(moved.serial, 3);
  assert.throws(() => moveMember(joined, { host: 'm2', address: '10.0.0.1', now: NOW }), { code: 'in_use' });
  assert.throws(() => moveMember(joined, { host: 'm3', address: '10.0.0.3', now: NOW }), { code: 'not_found' });
});

test('what cannot be done is told', () => {
  assert.throws(() => evictMember(first, { host: 'm2', now: NOW }), {
    code: 'not_found',
    message: /is not a member of cluster lab/,
  });
  assert.throws(() => evictMember(first, { host: 'm1', now: NOW }), { code: 'usage', message: /has the issuing key/ });
  const evicted = evictMember(addMember(first, joining('m2', '10.0.0.2')), { host: 'm2', now: NOW });
  assert.throws(() => evictMember(evicted, { host: 'm2', now: NOW }), {
    code: 'not_found',
    message: /was evicted on 2026-01-01/,
  });
  for (const name of ['', 'M2', 'a/b', '-a', 'x'.repeat(64)]) {
    assert.throws(() => addMember(first, joining(name, '10.0.0.2')), { code: 'usage', message: /cannot name a host/ });
  }
  for (const address of ['', '10.0.0.300', 'a b', '10.0.0.2:0', '10.0.0.2:70000', 'x'.repeat(300)]) {
    assert.throws(() => addMember(first, joining('m2', address)), { code: 'usage', message: /is not an address/ });
  }
});

test('a full list takes a host where one was evicted, the one that was evicted first', () => {
  let list = first;
  for (let i = 1; i < MEMBERS_MAX; i++) list = addMember(list, joining(`h${i}`, `h${i}.example`));
  assert.equal(list.members.length, MEMBERS_MAX);
  assert.throws(() => addMember(list, joining('one-more', '10.0.0.2')), { code: 'limit' });
  list = evictMember(list, { host: 'h7', now: NOW + 1 });
  list = evictMember(list, { host: 'h3', now: NOW + 2 });
  list = addMember(list, joining('one-more', '10.0.0.2'));
  assert.equal(list.members.length, MEMBERS_MAX);
  assert.deepEqual([entry(list, 'h7'), entry(list, 'h3')?.state], [undefined, 'evicted']);
});
