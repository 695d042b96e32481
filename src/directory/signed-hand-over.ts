/**
 * What a guest left at its last host, signed by that host: for whoever takes it to the device's host where that host itself cannot
 * (docs/protocol.md, 7.2). It speaks of one attachment under one epoch, so it is good once.
 */
import { createPrivateKey, sign, verify, X509Certificate } from 'node:crypto';
import { z } from 'zod';
import { NetbusError } from '../device/errors.ts';
import { HAND_OVER_BYTES_MAX, type HandOver, handOverSchema } from '../device/hand-over.ts';
import type { Clock } from '../lib/clock.ts';
import type { Directory } from './directory.ts';
import type { Identity } from './identity.ts';
import { parseChain } from './pem-files.ts';
import { checkChain } from './shown-chain.ts';

/** The text that is signed: a hand-over, and what says whose it is. */
const TEXT_BYTES_MAX = HAND_OVER_BYTES_MAX + 1024;
/** Two certificates have less than three thousand. */
const CERTIFICATES_CHARACTERS_MAX = 16 * 1024;
/** Those below the root. */
const CERTIFICATES_MAX = 2;

const base64 = (bytesMax: number) => z.string().max(4 * Math.ceil(bytesMax / 3));

export const signedHandOverSchema = z.strictObject({
  /** What was signed, in base64, so that the bytes come through every JSON unchanged. */
  text: base64(TEXT_BYTES_MAX),
  /** ECDSA with SHA-256, r and s of 32 bytes each. */
  signature: base64(64),
  /** PEM: the host's, and the issuing CA's behind it where there is one. */
  certificates: z.string().max(CERTIFICATES_CHARACTERS_MAX),
});
export type SignedHandOver = Readonly<z.infer<typeof signedHandOverSchema>>;

/**
 * A signature of another kind by the same key cannot be taken for one of these: what TLS signs begins with the byte 0x20, requests for certificates with
 * 0x30, and this with 0x7b.
 */
const textSchema = z.strictObject({
  format: z.literal('netbus-hand-over'),
  version: z.literal(1),
  cluster: z.string().max(64),
  /** Whose guest it was. */
  host: z.string().max(64),
  attachment: z.uuid(),
  /** Under which that host holds the lease. */
  epoch: z.number().int().min(1),
  left: handOverSchema,
});

/** What a host says of itself. */
export interface StatedHandOver {
  readonly host: string;
  readonly attachment: string;
  readonly epoch: number;
  readonly left: HandOver;
}

/** Throws `limit` where what was left would not fit a message between hosts. */
export function signHandOver(
  { cluster, host, key, certificate }: Pick<Identity, 'cluster' | 'host' | 'key' | 'certificate'>,
  { attachment, epoch, left }: Omit<StatedHandOver, 'host'>,
): SignedHandOver {
  const stated: z.infer<typeof textSchema> = {
    ...{ format: 'netbus-hand-over', version: 1, cluster, host, attachment, epoch },
    left: { ...left, queues: [...left.queues] },
  };
  const text = Buffer.from(JSON.stringify(stated));
  if (text.length > TEXT_BYTES_MAX)
    throw new NetbusError('limit', `what the guest left takes ${text.length} bytes, of at most ${TEXT_BYTES_MAX}`);
  const signature = sign('sha256', text, { key: createPrivateKey(key), dsaEncoding: 'ieee-p1363' });
  return { text: text.toString('base64'), signature: signature.toString('base64'), certificates: certificate };
}

/** Who is believed: hosts whose certificates go up to `ca` (PEM), of a membership that the directory admits. */
export interface Trust {
  readonly ca: string;
  readonly cluster: string;
  readonly directory: Pick<Directory, 'admits'>;
  readonly clock: Clock;
}

/** Throws `denied` with what is wrong. */
export function verifyHandOver({ text, signature, certificates }: SignedHandOver, trust: Trust): StatedHandOver {
  const { cluster, directory, clock } = trust;
  const [own, ...above] = parseCertificates(certificates);
  const bytes = Buffer.from(text, 'base64');
  // Nothing is looked at before it is known that the owner of the certificate wrote it.
  if (!verify('sha256', bytes, { key: own.publicKey, dsaEncoding: 'ieee-p1363' }, Buffer.from(signature, 'base64')))
    throw refused('its signature does not fit: it was tampered with');
  const stated = parse(bytes);
  if (stated.cluster !== cluster) throw refused(`it is of cluster ${stated.cluster}, not ${cluster}`);
  const { host, attachment, epoch, left } = stated;
  const chain = [own, ...above, new X509Certificate(trust.ca)];
  checkChain(chain, { cluster, host, whose: `host ${host}` }, clock, refused);
  const reason = directory.admits(host, own);
  if (reason !== undefined) throw refused(reason);
  return { host, attachment, epoch, left };
}

function parseCertificates(pem: string): [X509Certificate, ...X509Certificate[]] {
  try {
    const chain = parseChain('', pem);
    if (chain.length <= CERTIFICATES_MAX) return chain;
  } catch (thrown) {
    throw refused('it has no certificate', thrown);
  }
  throw refused('it has too many certificates');
}

function parse(bytes: Uint8Array): z.output<typeof textSchema> {
  try {
    return textSchema.parse(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)));
  } catch (thrown) {
    throw refused('it is no hand-over that this release knows', thrown);
  }
}

function refused(reason: string, cause?: unknown): NetbusError {
  return new NetbusError('denied', `what the last host of the guest signed is refused: ${reason}`, { cause });
}
