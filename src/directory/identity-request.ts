/** Certificate requests (PKCS #10): a host makes its key itself, and nobody else ever has it. */
import 'reflect-metadata';
import { createHash, createPublicKey, webcrypto } from 'node:crypto';
import { PemConverter, Pkcs10CertificateRequest, Pkcs10CertificateRequestGenerator, type PublicKey } from '@peculiar/x509';
import { NetbusError } from '../device/errors.ts';
import { exportKey, generateKeys, KEY_ALGORITHM } from './pem-keys.ts';

/** One of ours has about 400. */
export const REQUEST_CHARACTERS_MAX = 4096;

export interface CertificateRequest {
  /** PEM. It has no names: the issuer decides what the certificate says. */
  readonly request: string;
  /** The private key that it is for: PEM, PKCS #8. */
  readonly key: string;
}

/** A request for a new key, or, to renew a certificate, for `key` (PEM). Throws `config` where that is no key on P-256. */
export async function createRequest(key?: string): Promise<CertificateRequest> {
  const keys = key === undefined ? await generateKeys() : await keyPair(key);
  const request = await Pkcs10CertificateRequestGenerator.create({ keys, signingAlgorithm: KEY_ALGORITHM }, webcrypto);
  return { request: `${request.toString('pem')}\n`, key: key ?? (await exportKey(keys.privateKey)) };
}

/** The key that a request asks a certificate for. Throws `denied` unless it is on P-256 and the request was signed with it. */
export async function keyOfRequest(text: string): Promise<PublicKey> {
  if (text.length > REQUEST_CHARACTERS_MAX) throw refused(`it has more than ${REQUEST_CHARACTERS_MAX} characters`);
  const { request, publicKey } = parse(text);
  // Before anything is computed with it: other keys may be of any size.
  if (!isP256(publicKey)) throw refused('its key is not an EC key on P-256');
  if (!(await isProven(request))) throw refused('it was not signed with the key that it names');
  return publicKey;
}

/** Names the key of a request: SHA-256 of it, hexadecimal. Throws as `keyOfRequest`. */
export async function keyFingerprint(request: string): Promise<string> {
  const { rawData } = await keyOfRequest(request);
  return createHash('sha256').update(new Uint8Array(rawData)).digest('hex');
}

/** An algorithm that the library does not know is thrown, from here or there. */
async function isProven(request: Pkcs10CertificateRequest): Promise<boolean> {
  try {
    return await request.verify(webcrypto);
  } catch {
    return false;
  }
}

/** The library reads parts of it when they are asked for first. */
function parse(text: string): { request: Pkcs10CertificateRequest; publicKey: PublicKey } {
  try {
    const request = new Pkcs10CertificateRequest(text);
    return { request, publicKey: request.publicKey };
  } catch (thrown) {
    throw refused('it is not a request in PEM form', thrown);
  }
}

function isP256(key: PublicKey): boolean {
  try {
    const { asymmetricKeyType, asymmetricKeyDetails } = createPublicKey({
      key: Buffer.from(key.rawData),
      format: 'der',
      type: 'spki',
    });
    return asymmetricKeyType === 'ec' && asymmetricKeyDetails?.namedCurve === 'prime256v1';
  } catch {
    return false;
  }
}

async function keyPair(pem: string): Promise<webcrypto.CryptoKeyPair> {
  try {
    const { subtle } = webcrypto;
    const [bytes] = PemConverter.decode(pem);
    const privateKey = await subtle.importKey('pkcs8', bytes, KEY_ALGORITHM, true, ['sign']);
    const { d: _secret, key_ops: _uses, ...shared } = await subtle.exportKey('jwk', privateKey);
    return { privateKey, publicKey: await subtle.importKey('jwk', shared, KEY_ALGORITHM, true, ['verify']) };
  } catch (thrown) {
    throw new NetbusError('config', 'the private key is not an EC key on P-256 in PEM form', { cause: thrown });
  }
}

function refused(reason: string, cause?: unknown): NetbusError {
  return new NetbusError('denied', `the certificate request is refused: ${reason}`, { cause });
}
