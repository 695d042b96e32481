/**
 * The token of an invitation, as `netbus invite` prints it and `netbus join` takes it: everything that the new host needs to find the cluster and to know
 * that it is the right one.
 */

export const TOKEN_PREFIX = 'netbus-';
export const SECRET_BYTES = 32;

export interface Token {
  readonly cluster: string;
  /** The host that is invited. */
  readonly host: string;
  /** Of the issuer: HOST:PORT. */
  readonly address: string;
  /** SHA-256 of the root's certificate (DER), 32 bytes. */
  readonly caFingerprint: Uint8Array;
  /** 32 random bytes. */
  readonly secret: Uint8Array;
  /** Milliseconds since 1970, to the second. */
  readonly expiresAt: number;
}

export function encodeToken(token: Token): string {
  throw new Error(`not yet ${token}`);
}

/** White space around it is ignored. Throws `usage`: not a token, cut short or mistyped, of another version. Whether it has expired is the caller's and the issuer's to say. */
export function decodeToken(text: string): Token {
  throw new Error(`not yet ${text}`);
}

/** As a token has it. `ca` is PEM. */
export function caFingerprint(ca: string): Uint8Array {
  throw new Error(`not yet ${ca}`);
}
