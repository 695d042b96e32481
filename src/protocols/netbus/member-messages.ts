/** Parameters and values of the calls about members: docs/protocol.md, 7 and 8. Unknown members are let through and ignored. */
import { z } from 'zod';
import { CERTIFICATE_CHAIN_BYTES_MAX, CERTIFICATE_REQUEST_BYTES_MAX, MEMBER_LIST_BYTES_MAX } from './limits.ts';
import { isNetbusName } from './names.ts';

const serial = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
/** The signed list, which is ASCII text. What it says is looked at when its signature was. */
const list = z.string().min(1).max(MEMBER_LIST_BYTES_MAX);
const request = z.string().min(1).max(CERTIFICATE_REQUEST_BYTES_MAX);
const certificate = z.string().min(1).max(CERTIFICATE_CHAIN_BYTES_MAX);

export const offerParams = z.looseObject({ serial });
export const offerValue = z.looseObject({ serial, list: list.optional() });
export const putParams = z.looseObject({ list });
export const putValue = z.looseObject({ serial });

export const renewParams = z.looseObject({ request });
export const renewValue = z.looseObject({ certificate });

export const redeemParams = z.looseObject({
  /** Base64url. */
  secret: z.string().regex(/^[A-Za-z0-9_-]{1,256}$/, 'it is no Base64url'),
  host: z.string().refine(isNetbusName, 'it is no name of a host'),
  request,
  /** HOST or HOST:PORT. */
  address: z.string().min(1).max(300).optional(),
});
export const redeemValue = z.looseObject({ certificate, list });

/** A signed list as it stands in a CALL, and back. */
export function listText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

export function listBytes(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'utf8'));
}
