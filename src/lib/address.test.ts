import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatAddress, parseAddress } from './address.ts';

test('addresses as people write them', () => {
  assert.deepEqual(parseAddress('10.0.0.1'), { host: '10.0.0.1', port: 7443 });
  assert.deepEqual(parseAddress('m1.example:80'), { host: 'm1.example', port: 80 });
  assert.deepEqual(parseAddress('fd00::1'), { host: 'fd00::1', port: 7443 });
  assert.deepEqual(parseAddress('[fd00::1]:80'), { host: 'fd00::1', port: 80 });
});

test('what is none', () => {
  for (const text of [
    '',
    ':80',
    'm1:',
    'm1:0',
    'm1:65536',
    'm1:x',
    '10.0.0',
    '1.2.3.256',
    '[m1]:80',
    '[::1',
    'a b',
    '-a',
    'a..b',
  ]) {
    assert.equal(parseAddress(text), undefined, text);
  }
});

test('what is formatted is read again', () => {
  const host = fc.oneof(
    fc.ipV4(),
    fc.ipV6(),
    fc.domain().filter((name) => name.length < 64),
  );
  fc.assert(
    fc.property(host, fc.integer({ min: 1, max: 65_535 }), (name, port) => {
      assert.deepEqual(parseAddress(formatAddress({ host: name, port })), { host: name, port });
    }),
  );
});
