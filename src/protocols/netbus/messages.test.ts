import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { NetbusError } from '../../device/errors.ts';
import { ERROR_TEXT_MAX } from './limits.ts';
import { commonVersion, decodeError, decodeMessage, helloSchema, plainText, statedSchema, versionText } from './messages.ts';
import { identityOfSubjectAltName, netbusUri, parseNetbusUri } from './names.ts';

const bytes = (value: unknown) => Buffer.from(JSON.stringify(value));

test('a HELLO is read, and members from the future are ignored', () => {
  const hello = { magic: 'netbus', versions: [1, 3], features: ['zstd'], purpose: 'control', colour: 'red' };
  assert.equal(decodeMessage(helloSchema, bytes(hello), 'HELLO').purpose, 'control');
});

test('what is wrong with a payload is said in one line', () => {
  const cases: [unknown, RegExp][] = [
    [{ magic: 'nbd', versions: [1, 1], features: [], purpose: 'control' }, /^HELLO: magic: /],
    [
      { magic: 'netbus', versions: [2, 1], features: [], purpose: 'control' },
      /^HELLO: versions: the lowest version comes first$/,
    ],
    [{ magic: 'netbus', versions: [1, 1], features: [], purpose: 'other' }, /^HELLO: purpose: /],
    [{ magic: 'netbus', versions: [1, 1], features: [], purpose: 'session', state: 'standby', epoch: -1 }, /^HELLO: /],
    [[], /^HELLO: /],
  ];
  for (const [value, message] of cases) {
    assert.throws(
      () => decodeMessage(helloSchema, bytes(value), 'HELLO'),
      (error: NetbusError) => error.code === 'protocol' && message.test(error.message) && !error.message.includes('\n'),
    );
  }
  assert.throws(
    () => decodeMessage(helloSchema, Buffer.from('{"magic'), 'HELLO'),
    /^NetbusError: HELLO: the payload is not JSON$/,
  );
  assert.throws(() => decodeMessage(helloSchema, Buffer.from([0xff, 0xfe]), 'HELLO'), /not JSON/);
});

test('any JSON value is read or refused with a NetbusError', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      for (const schema of [helloSchema, statedSchema]) {
        try {
          decodeMessage<unknown>(schema, bytes(value), 'X');
        } catch (thrown) {
          assert.ok(thrown instanceof NetbusError && thrown.code === 'protocol');
        }
      }
    }),
  );
});

test('versions: the highest in common', () => {
  assert.equal(commonVersion([1, 1], [1, 1]), 1);
  assert.equal(commonVersion([1, 1], [1, 2]), 1);
  assert.equal(commonVersion([1, 3], [2, 5]), 3);
  assert.equal(commonVersion([1, 1], [2, 2]), undefined);
  assert.equal(commonVersion([3, 4], [1, 2]), undefined);
  assert.equal(versionText([1, 1]), '1');
  assert.equal(versionText([1, 2]), '1 to 2');
});

test("a stranger's text is one bounded line, and an unknown code is internal", () => {
  assert.equal(plainText('a\nb\u001b[31m\u202ec'), 'a b [31m c');
  assert.equal(plainText('x'.repeat(10_000)).length, ERROR_TEXT_MAX + 1);
  assert.equal(decodeError({ code: 'from_the_future', message: 'm' }).code, 'internal');
  assert.equal(decodeError({ code: 'in_use', message: 'm' }).code, 'in_use');
});

test('identities: one URI, well formed, or none', () => {
  const identity = { cluster: 'lab', host: 'm1' };
  assert.deepEqual(parseNetbusUri(netbusUri(identity)), identity);
  assert.deepEqual(identityOfSubjectAltName('DNS:m1.example, URI:netbus://lab/m1'), identity);
  for (const text of [
    undefined,
    '',
    'DNS:m1',
    'URI:netbus://lab/m1, URI:netbus://lab/m2',
    'URI:netbus://lab/m1/x',
    'URI:netbus://lab/',
    'URI:netbus://LAB/m1',
    'URI:netbus://lab/m1.',
    'URI:https://lab/m1',
    'DNS:"x, URI:netbus://lab/m1, y"',
  ]) {
    assert.equal(identityOfSubjectAltName(text), undefined, text);
  }
});
