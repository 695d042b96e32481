import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TestAuthority } from '../../test/support/bus-host.ts';
import type { VersionRange } from '../protocols/netbus/limits.ts';
import { makeHello, makeWelcome, type Purpose, readHello, readWelcome } from './handshake.ts';

const authority = new TestAuthority();
const identity = await authority.identity('m1');
const speaking = (versions: VersionRange, features: string[] = []) =>
  authority.endpoint('m1', { identity, versions, features });
const bytes = (value: object) => Buffer.from(JSON.stringify(value));
const control: Purpose = { purpose: 'control' };

test('the highest version in common and the features in common are chosen', async () => {
  const ours = await speaking([1, 3], ['a', 'b']);
  const theirs = await speaking([2, 5], ['b', 'c']);
  const { version, features } = readHello(ours, bytes(makeHello(theirs, control)));
  assert.equal(version, 3);
  assert.deepEqual(features, ['b']);
  const welcome = readWelcome(theirs, 'control', bytes(makeWelcome(ours, version, features, undefined)));
  assert.deepEqual([welcome.version, welcome.features, welcome.host], [3, ['b'], 'm1']);
});

test('no version in common: both ranges are named, even if that HELLO has another form', async () => {
  const ours = await speaking([1, 1]);
  const future = { magic: 'netbus', versions: [2, 3], entirely: 'different' };
  assert.throws(() => readHello(ours, bytes(future)), {
    code: 'protocol',
    message: 'no version of the Netbus protocol in common: m1 speaks 1, the opener speaks 2 to 3; upgrade the older one',
  });
});

test('a WELCOME that was not asked for is refused', async () => {
  const endpoint = await speaking([1, 1]);
  const good = makeWelcome(endpoint, 1, [], undefined);
  readWelcome(endpoint, 'control', bytes(good));
  const refused = (changes: object, purpose: Purpose['purpose'], message: RegExp) =>
    assert.throws(() => readWelcome(endpoint, purpose, bytes({ ...good, ...changes })), { code: 'protocol', message });
  refused({ version: 2 }, 'control', /version 2 was not offered \(1\)/);
  refused({ features: ['x'] }, 'control', /a feature that was not offered/);
  refused({}, 'session', /does not belong to a HELLO for a session/);
  refused({ session: { instance: 'i', depth: 0 } }, 'session', /session\./);
});
