/**
 * Certificates for the programs that Netbus is compared with, in the file names that they look for: nbdkit for its server,
 * QEMU for its client. One authority, mutual authentication, as between two hosts of Netbus.
 */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';

const KEY = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const VALIDITY_MS = 24 * 60 * 60 * 1000;

/** Both directories have ca-cert.pem beside the files of their role. */
export interface PeerCertificates {
  /** server-cert.pem, server-key.pem */
  readonly serverDirectory: string;
  /** client-cert.pem, client-key.pem */
  readonly clientDirectory: string;
}

/** Makes an authority, a server's certificate for `address` (an IPv4 address) and a client's one, below `directory`. */
export async function makePeerCertificates(directory: string, address: string): Promise<PeerCertificates> {
  const authorityKeys = await generateKeys();
  const authority = await X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: '01',
      name: 'CN=peer authority',
      ...validity(),
      keys: authorityKeys,
      signingAlgorithm: KEY,
      extensions: [
        new BasicConstraintsExtension(true, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      ],
    },
    webcrypto,
  );

  const issue = async (role: 'server' | 'client', serialNumber: string): Promise<string> => {
    const keys = await generateKeys();
    const usage = role === 'server' ? ExtendedKeyUsage.serverAuth : ExtendedKeyUsage.clientAuth;
    const certificate = await X509CertificateGenerator.create(
      {
        serialNumber,
        subject: `CN=peer ${role}`,
        issuer: authority.subject,
        ...validity(),
        publicKey: keys.publicKey,
        signingKey: authorityKeys.privateKey,
        signingAlgorithm: KEY,
        extensions: [
          new BasicConstraintsExtension(false, undefined, true),
          new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
          new ExtendedKeyUsageExtension([usage]),
          new SubjectAlternativeNameExtension([{ type: 'ip', value: address }]),
        ],
      },
      webcrypto,
    );
    const target = join(directory, role);
    mkdirSync(target, { recursive: true });
    writeFileSync(join(target, 'ca-cert.pem'), authority.toString('pem'));
    writeFileSync(join(target, `${role}-cert.pem`), certificate.toString('pem'));
    writeFileSync(join(target, `${role}-key.pem`), await privateKeyPem(keys.privateKey), { mode: 0o600 });
    return target;
  };
  return { serverDirectory: await issue('server', '02'), clientDirectory: await issue('client', '03') };
}

function validity(): { notBefore: Date; notAfter: Date } {
  const now = Date.now();
  return { notBefore: new Date(now - VALIDITY_MS), notAfter: new Date(now + VALIDITY_MS) };
}

function generateKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(KEY, true, ['sign', 'verify']);
}

async function privateKeyPem(key: webcrypto.CryptoKey): Promise<string> {
  return `${PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')}\n`;
}
