/**
 * The token of an invitation, as `netbus invite` prints it and `netbus join` takes it: everything that the new host needs to find the cluster and to know
 * that it is the right one. "netbus-", then in base64url:
 *
 *   u8 version (1) | u32 expiry, seconds since 1970 | 32 bytes fingerprint | 32 bytes secret | cluster | host | issuer | address | 4 bytes checksum
 *
 * The texts are a u16 length and ASCII each, integers are big-endian. The checksum is the beginning of the SHA-256 of all before it, in all versions: it tells a
 * token that was cut short or mistyped from one of another release, and protects nothing. A forged token has a secret that the issuer does not know.
 */
import { createHash, X509Certificate } from 'node:crypto';
import { NetbusError } from '../device/errors.ts';
import { isNetbusName } from '../protocols/netbus/names.ts';
import { isCanonicalAddress } from './names.ts';

export const TOKEN_PREFIX = 'netbus-';
export const SECRET_BYTES = 32;
const VERSION = 1;
const FINGERPRINT_BYTES = 32;
const CHECKSUM_BYTES = 4;
/** The longest names and address make about 710. */
const TOKEN_CHARACTERS_MAX = 1000;

export interface Token {
  readonly cluster: string;
  /** The host that is invited. */
  readonly host: string;
  /** The host that invites: another member that has its address is not taken for it. */
  readonly issuer: string;
  /** Of the issuer: HOST:PORT. */
  readonly address: string;
  /** SHA-256 of the root's certificate (DER), 32 bytes. */
  readonly caFingerprint: Uint8Array;
  /** 32 random bytes. */
  readonly secret: Uint8Array;
  /** Milliseconds since 1970, to the second. For people: only the issuer's clock decides. */
  readonly expiresAt: number;
}

export function encodeToken(token: Token): string {
  const head = Buffer.alloc(5);
  head.writeUInt8(VERSION, 0);
  head.writeUInt32BE(Math.floor(token.expiresAt / 1000), 1);
  const texts = [token.cluster, token.host, token.issuer, token.address].flatMap((text) => [
    Buffer.of(text.length >> 8, text.length),
    Buffer.from(text),
  ]);
  const record = Buffer.concat([head, token.caFingerprint, token.secret, ...texts]);
  return TOKEN_PREFIX + Buffer.concat([record, checksum(record)]).toString('base64url');
}

/** White space is ignored: terminals break long lines. Throws `usage`: not a token, cut short or mistyped, of another version. Expiry is not checked. */
export function decodeToken(text: string): Token {
  const compact = text.slice(0, 2 * TOKEN_CHARACTERS_MAX).replace(/\s+/g, '');
  const digits = compact.slice(TOKEN_PREFIX.length);
  if (!compact.startsWith(TOKEN_PREFIX) || !/^[\w-]+$/.test(digits) || compact.length > TOKEN_CHARACTERS_MAX) {
    throw wrong('this is not a token', `a token begins with ${TOKEN_PREFIX}: copy what "netbus invite" printed`);
  }
  const bytes = Buffer.from(digits, 'base64url');
  const record = bytes.subarray(0, -CHECKSUM_BYTES);
  if (record.length === 0 || !checksum(record).equals(bytes.subarray(-CHECKSUM_BYTES))) {
    throw wrong('the token is cut short or mistyped', 'copy all of what "netbus invite" printed');
  }
  if (record[0] !== VERSION) {
    throw wrong(
      `the token is of version ${record[0]}, and this release knows version ${VERSION}`,
      'install the same release on both hosts',
    );
  }
  return decodeRecord(record);
}

/** As a token has it. `ca` is PEM. */
export function caFingerprint(ca: string): Uint8Array {
  return createHash('sha256').update(new X509Certificate(ca).raw).digest();
}

function decodeRecord(record: Buffer): Token {
  let at = 1 + 4;
  const take = (length: number) => {
    at += length;
    return record.subarray(at - length, at);
  };
  const takeText = () => {
    const [high = 0, low = 0] = take(2);
    return take(high * 256 + low).toString('latin1');
  };
  const expiresAt = record.length < at ? 0 : record.readUInt32BE(1) * 1000;
  const token: Token = {
    caFingerprint: Uint8Array.from(take(FINGERPRINT_BYTES)),
    secret: Uint8Array.from(take(SECRET_BYTES)),
    cluster: takeText(),
    host: takeText(),
    issuer: takeText(),
    address: takeText(),
    expiresAt,
  };
  const valid =
    at === record.length && [token.cluster, token.host, token.issuer].every(isNetbusName) && isCanonicalAddress(token.address);
  if (!valid) throw wrong('the token says nothing that makes sense', 'it was not made by "netbus invite"');
  return token;
}

function checksum(record: Uint8Array): Buffer {
  return createHash('sha256').update(record).digest().subarray(0, CHECKSUM_BYTES);
}

function wrong(problem: string, advice: string): NetbusError {
  return new NetbusError('usage', `${problem}: ${advice}`);
}
