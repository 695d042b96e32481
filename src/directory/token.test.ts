import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import type { NetbusError } from '../device/errors.ts';
import { decodeToken, encodeToken, TOKEN_PREFIX, type Token } from './token.ts';

const token: Token = {
  cluster: 'lab',
  host: 'm2',
  issuer: 'm1',
  address: '10.0.0.1:7443',
  caFingerprint: new Uint8Array(32).fill(1),
  secret: new Uint8Array(32).fill(2),
  expiresAt: Date.UTC(2026, 0, 1, 0, 15),
};
const text = encodeToken(token);

function refused(wrong: string, reason: RegExp): void {
  assert.throws(
    () => decodeToken(wrong),
    (error: NetbusError) => {
      assert.equal(error.code, 'usage');
      assert.match(error.message, reason);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    },
  );
}

/** With a checksum that fits. */
function withChecksum(record: Buffer): string {
  const checksum = createHash('sha256').update(record).digest().subarray(0, 4);
  return TOKEN_PREFIX + Buffer.concat([record, checksum]).toString('base64url');
}

const record = Buffer.from(text.slice(TOKEN_PREFIX.length), 'base64url').subarray(0, -4);

test('a token is read back, also where a terminal broke it into lines', () => {
  assert.deepEqual(decodeToken(text), token);
  assert.deepEqual(decodeToken(`  ${text.slice(0, 50)}\n${text.slice(50)}\r\n`), token);
  assert.ok(text.length < 160, `${text.length} characters`);
});

const label = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/);
const bytes = fc.uint8Array({ minLength: 32, maxLength: 32 });

test('any token is read back', () => {
  const domain = fc
    .array(fc.constantFrom('a', 'bc', 'x'.repeat(60)), { minLength: 1, maxLength: 4 })
    .map((labels) => labels.join('.'));
  const any = fc.record(
    {
      cluster: label,
      host: label,
      issuer: label,
      address: fc.tuple(domain, fc.integer({ min: 1, max: 65535 })).map(([host, port]) => `${host}:${port}`),
      caFingerprint: bytes,
      secret: bytes,
      expiresAt: fc.integer({ min: 0, max: 2 ** 32 - 1 }).map((seconds) => seconds * 1000),
    },
    { noNullPrototype: true },
  );
  fc.assert(fc.property(any, (each) => assert.deepEqual(decodeToken(encodeToken(each)), each)));
});

test('a token that was cut short or mistyped is told from what is none', () => {
  for (let length = TOKEN_PREFIX.length + 1; length < text.length; length++)
    refused(text.slice(0, length), /cut short or mistyped/);
  refused(text.replace('A', 'B'), /cut short or mistyped/);
  refused(`${text}AAAA`, /cut short or mistyped/);
  for (const none of [
    '',
    'netbus',
    TOKEN_PREFIX,
    'lab',
    text.slice(3),
    `${text}!`,
    `${TOKEN_PREFIX}ä`,
    TOKEN_PREFIX + 'A'.repeat(1e6),
  ]) {
    refused(none, /this is not a token: a token begins with netbus-/);
  }
});

test('a token of another version says so', () => {
  const other = Buffer.from(record);
  other[0] = 2;
  refused(withChecksum(other), /of version 2, and this release knows version 1/);
});

test('whatever is in a token, it is a token or a line', () => {
  const invalid = Buffer.from(record);
  invalid.write('LAB', record.indexOf('lab'));
  refused(withChecksum(invalid), /makes sense/);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (random) => {
      const made = withChecksum(Buffer.from([1, ...random]));
      try {
        assert.equal(encodeToken(decodeToken(made)), made);
      } catch (thrown) {
        assert.equal((thrown as NetbusError).code, 'usage');
      }
    }),
  );
});
