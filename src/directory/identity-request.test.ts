import 'reflect-metadata';
import assert from 'node:assert/strict';
import { webcrypto, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { Pkcs10CertificateRequestGenerator } from '@peculiar/x509';
import fc from 'fast-check';
import type { NetbusError } from '../device/errors.ts';
import { ManualClock } from '../lib/clock.ts';
import { newAdmission } from './admission.ts';
import { issueAuthority, issueForRequest, issueIssuing, issueRoot } from './identity-issue.ts';
import { createRequest, keyOfRequest, REQUEST_CHARACTERS_MAX } from './identity-request.ts';

const clock = new ManualClock();
const root = await issueRoot({ cluster: 'lab', clock });
const authority = await issueIssuing({ root, cluster: 'lab', clock });
const admission = newAdmission();
const issue = (request: string) => issueForRequest({ authority, request, cluster: 'lab', host: 'm2', admission, clock });

test('a request becomes a certificate for its key, with the issuing CA behind it', async () => {
  const { request, key } = await createRequest();
  const certificate = await issue(request);
  assert.equal(certificate.match(/BEGIN CERTIFICATE/g)?.length, 2);
  const leaf = new X509Certificate(certificate);
  assert.ok(leaf.verify(new X509Certificate(authority.certificate).publicKey));
  assert.ok(leaf.serialNumber.toLowerCase().startsWith(admission));
  // The same key again.
  const again = await createRequest(key);
  assert.equal(again.key, key);
  assert.ok(new X509Certificate(await issue(again.request)).publicKey.equals(leaf.publicKey));
});

test('a CA that signs hosts itself puts nothing behind', async () => {
  const flat = await issueAuthority({ cluster: 'lab', clock });
  const { request } = await createRequest();
  const certificate = await issueForRequest({ authority: flat, request, cluster: 'lab', host: 'm2', admission, clock });
  assert.equal(certificate.match(/BEGIN CERTIFICATE/g)?.length, 1);
});

/** A request by somebody else's program. */
async function request(
  algorithm: webcrypto.RsaHashedKeyGenParams | webcrypto.EcKeyGenParams,
  options: object = {},
): Promise<string> {
  const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair;
  const signingAlgorithm = { hash: 'SHA-256', ...algorithm };
  const made = await Pkcs10CertificateRequestGenerator.create({ keys, signingAlgorithm, ...options }, webcrypto);
  return made.toString('pem');
}

const P256 = { name: 'ECDSA', namedCurve: 'P-256' };

test('names that a request has mean nothing', async () => {
  const wishful = await request(P256, { name: 'CN=m1, O=Netbus' });
  const leaf = new X509Certificate(await issue(wishful));
  assert.equal(leaf.subjectAltName, 'URI:netbus://lab/m2');
  assert.match(leaf.subject, /CN=m2/);
  assert.equal(leaf.ca, false);
});

test('other keys and requests without proof are refused', async () => {
  const rsa = { name: 'RSASSA-PKCS1-v1_5', modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' };
  for (const algorithm of [rsa, { name: 'ECDSA', namedCurve: 'P-384' }, { name: 'ECDSA', namedCurve: 'P-521' }]) {
    await assert.rejects(async () => issue(await request(algorithm)), {
      code: 'denied',
      message: /its key is not an EC key on P-256/,
    });
  }
  const good = await request(P256);
  const bytes = Buffer.from(good.replace(/-----[^-]+-----|\s/g, ''), 'base64');
  // The last byte is of the signature.
  bytes[bytes.length - 1] ^= 1;
  const stolen = `-----BEGIN CERTIFICATE REQUEST-----\n${bytes.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`;
  await assert.rejects(issue(stolen), { code: 'denied', message: /it was not signed with the key that it names/ });
  await assert.rejects(issue('x'.repeat(REQUEST_CHARACTERS_MAX + 1)), { code: 'denied', message: /more than 4096 characters/ });
  for (const none of ['', 'x', authority.certificate, good.slice(0, 200)]) {
    await assert.rejects(issue(none), { code: 'denied' }, none.slice(0, 40));
  }
  await assert.rejects(createRequest('x'), { code: 'config' });
});

test('no change of a request gets a certificate for another key', async () => {
  const good = await request(P256);
  const key = Buffer.from((await keyOfRequest(good)).rawData);
  const bytes = Buffer.from(good.replace(/-----[^-]+-----|\s/g, ''), 'base64');
  await fc.assert(
    fc.asyncProperty(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), async (at, mask) => {
      const changed = Buffer.from(bytes);
      changed[at] ^= mask;
      const text = `-----BEGIN CERTIFICATE REQUEST-----\n${changed.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`;
      await keyOfRequest(text).then(
        // What is around the signed part may be written in more than one way.
        (taken) => assert.deepEqual(Buffer.from(taken.rawData), key),
        (error: NetbusError) => assert.equal(error.code, 'denied'),
      );
    }),
    { numRuns: 100 },
  );
});

test('no certificate outlives the one above it', async () => {
  const { request: text } = await createRequest();
  const short = await issueIssuing({ root, cluster: 'lab', clock, validDays: 10 });
  const given = { authority: short, request: text, cluster: 'lab', host: 'm2', admission };
  const leaf = new X509Certificate(await issueForRequest({ ...given, clock }));
  assert.equal(Date.parse(leaf.validTo), Date.parse(new X509Certificate(short.certificate).validTo));
  const later = new ManualClock();
  later.advance(11 * 24 * 60 * 60 * 1000);
  await assert.rejects(issueForRequest({ ...given, clock: later }), {
    code: 'config',
    message: /the CA's certificate expired on 2026-01-11/,
  });
});
