/**
 * The bytes of a member list. It is signed by the cluster's issuing key, so that any host may hand it on and none can change it: docs/protocol.md, 9.2.
 */
import { createPrivateKey, sign, verify, X509Certificate } from 'node:crypto';
import { z } from 'zod';
import { NetbusError } from '../device/errors.ts';
import type { IssuedIdentity } from './identity-issue.ts';
import { type MemberList, memberListSchema } from './member-list.ts';
import { clusterUri } from './names.ts';

/** A full list has less than two thirds of it. It goes through one CALL of 1 MiB, as a text in JSON. */
export const MEMBER_LIST_BYTES_MAX = 960 * 1024;

/** A list that was verified (or just signed), with the bytes to hand on: ASCII text. */
export interface SignedList {
  readonly list: MemberList;
  readonly bytes: Uint8Array;
}

/**
 * What is handed on. The list itself is in base64, so that the bytes that were signed come through every JSON unchanged. A signature of another kind by the same
 * key cannot be taken for one of these: what it signs otherwise, certificates, begins with the byte 0x30, and a list with 0x7b.
 */
const envelopeSchema = z.strictObject({
  format: z.literal('netbus-member-list'),
  version: z.literal(1),
  list: z.string(),
  /** ECDSA with SHA-256, r and s of 32 bytes each. */
  signature: z.string(),
  /** Of the issuing CA, PEM. */
  certificate: z.string(),
});

/** `issuing`: certificate and key of the issuing CA. Throws `limit`, which only names and addresses of extreme lengths could bring about. */
export function signMemberList(list: MemberList, issuing: IssuedIdentity): SignedList {
  const text = Buffer.from(JSON.stringify(list));
  const signature = sign('sha256', text, { key: createPrivateKey(issuing.key), dsaEncoding: 'ieee-p1363' });
  const envelope: z.infer<typeof envelopeSchema> = {
    format: 'netbus-member-list',
    version: 1,
    list: text.toString('base64'),
    signature: signature.toString('base64'),
    certificate: issuing.certificate,
  };
  const bytes = Buffer.from(JSON.stringify(envelope));
  if (bytes.length > MEMBER_LIST_BYTES_MAX) {
    throw new NetbusError(
      'limit',
      `the member list has ${bytes.length} bytes, and at most ${MEMBER_LIST_BYTES_MAX} can be handed on`,
    );
  }
  return { list, bytes };
}

/**
 * The list in `bytes`. `ca` is the root's certificate (PEM); `now` in milliseconds since 1970, undefined to leave dates unchecked (a list that was
 * checked once is good for as long as no newer one is known). Throws `denied` with what is wrong.
 */
export function verifyMemberList(bytes: Uint8Array, ca: string, cluster: string, now: number | undefined): SignedList {
  if (bytes.length > MEMBER_LIST_BYTES_MAX) throw refused(`it has ${bytes.length} bytes; at most ${MEMBER_LIST_BYTES_MAX}`);
  const envelope = parse(envelopeSchema, bytes);
  const issuing = parseCertificate(envelope.certificate);
  checkIssuing(issuing, new X509Certificate(ca), cluster, now);
  const text = decodeBase64(envelope.list);
  const signature = decodeBase64(envelope.signature);
  if (!verify('sha256', text, { key: issuing.publicKey, dsaEncoding: 'ieee-p1363' }, signature)) {
    throw refused('its signature does not fit: it was tampered with');
  }
  const list = parse(memberListSchema, text);
  if (list.cluster !== cluster) throw refused(`it is of cluster ${list.cluster}, not ${cluster}`);
  return { list, bytes: Uint8Array.from(bytes) };
}

/** Whether two verified lists say the same; their signatures may differ. */
export function isSameList(a: SignedList, b: SignedList): boolean {
  return JSON.stringify(a.list) === JSON.stringify(b.list);
}

function checkIssuing(issuing: X509Certificate, root: X509Certificate, cluster: string, now: number | undefined): void {
  if (!issuing.checkIssued(root) || !issuing.verify(root.publicKey)) {
    throw refused(`it was not signed by an issuing key of the CA of cluster ${cluster}: is it of another cluster?`);
  }
  // A host's certificate, too, is signed below the root.
  if (!issuing.ca) throw refused('it was signed with a certificate that is not a CA');
  if (issuing.subjectAltName !== `URI:${clusterUri(cluster)}`) {
    throw refused(`it was signed with a certificate that does not name cluster ${cluster}`);
  }
  if (issuing.publicKey.asymmetricKeyType !== 'ec') throw refused('it was signed with another kind of key');
  if (now === undefined) return;
  if (now > Date.parse(issuing.validTo))
    throw refused(`the issuing certificate expired on ${issuing.validTo}: renew it with the root`);
  if (now < Date.parse(issuing.validFrom)) {
    throw refused(`the issuing certificate is valid from ${issuing.validFrom} on: check this host's clock`);
  }
}

function parse<Schema extends z.ZodType>(schema: Schema, bytes: Uint8Array): z.output<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (thrown) {
    throw refused('it is damaged (not JSON)', thrown);
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const { version } = (value ?? {}) as { version?: unknown };
  if (Number.isInteger(version) && version !== 1) throw refused(`it is of version ${version}: install a newer release here`);
  const [issue] = result.error.issues;
  throw refused(`it is damaged (${[issue.path.map(String).join('.'), issue.message].filter(Boolean).join(': ')})`);
}

function parseCertificate(pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (thrown) {
    throw refused('it is damaged (no issuing certificate)', thrown);
  }
}

function decodeBase64(text: string): Buffer {
  const bytes = Buffer.from(text, 'base64');
  if (bytes.toString('base64') !== text) throw refused('it is damaged (not base64)');
  return bytes;
}

function refused(reason: string, cause?: unknown): NetbusError {
  return new NetbusError('denied', `the member list is refused: ${reason}`, { cause });
}
