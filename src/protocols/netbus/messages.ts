/** The JSON payloads: docs/protocol.md, 3, 4.2 and 7. Unknown members are let through and ignored. */
import { z } from 'zod';
import { type ErrorCode, isErrorCode, NetbusError } from '../../device/errors.ts';
import { handOverSchema } from '../../device/hand-over.ts';
import { profileSchema } from '../../device/profile.ts';
import {
  CREDIT_BYTES_MAX,
  CREDIT_BYTES_MIN,
  DEPTH_MAX,
  ERROR_TEXT_MAX,
  JOIN_CERTIFICATES_MAX,
  type VersionRange,
} from './limits.ts';

const epoch = z.number().int().min(0);
const text = z.string().min(1).max(256);
const features = z.array(z.string().max(64)).max(64);
/** Longest PEM text of one certificate, in characters: ours have about a thousand. */
const CERTIFICATE_TEXT_MAX = 8 * 1024;
const version = z.number().int().min(1).max(65535);

/** What all versions of HELLO have in common, so that two releases with no version in common can still say so. */
export const preambleSchema = z.looseObject({
  magic: z.literal('netbus'),
  versions: z.tuple([version, version]).refine(([lowest, highest]) => lowest <= highest, 'the lowest version comes first'),
});

export const sessionStates = ['active', 'quiesced', 'standby'] as const;
export type SessionState = (typeof sessionStates)[number];

const controlHello = z.looseObject({ ...preambleSchema.shape, features, purpose: z.literal('control') });
const sessionHello = z.looseObject({
  ...preambleSchema.shape,
  features,
  purpose: z.literal('session'),
  attachment: text,
  state: z.enum(sessionStates),
  epoch,
});
const joinHello = z.looseObject({ ...preambleSchema.shape, features, purpose: z.literal('join') });
export const helloSchema = z.discriminatedUnion('purpose', [controlHello, sessionHello, joinHello]);
export type Hello = z.infer<typeof helloSchema>;
export type SessionHello = z.infer<typeof sessionHello>;

export const welcomeSchema = z.looseObject({
  version,
  features,
  host: text,
  bootId: text,
  release: z.string().max(64),
  session: z
    .looseObject({
      instance: text,
      profile: profileSchema,
      depth: z.number().int().min(1).max(DEPTH_MAX),
      bytes: z.number().int().min(CREDIT_BYTES_MIN).max(CREDIT_BYTES_MAX),
    })
    .optional(),
  join: z
    .looseObject({ certificates: z.array(z.string().max(CERTIFICATE_TEXT_MAX)).min(1).max(JOIN_CERTIFICATES_MAX) })
    .optional(),
});
export type Welcome = z.infer<typeof welcomeSchema>;

/** An error as it travels. A code that this release does not know becomes `internal`. */
export const wireErrorSchema = z.looseObject({ code: z.string().max(64), message: z.string() });
export type WireError = z.infer<typeof wireErrorSchema>;

/** STATE quiesced, with the feature hand-over. What is left is known to its last member, or refused: nothing of it may be lost. */
export const quiescedSchema = z.looseObject({ left: z.union([z.literal('unchanged'), handOverSchema]) });

const generation = z.number().int().min(1);
/** STATE active, with the feature swap. A purpose that is not known is refused: it is what the lease may be used for. */
export const activeSchema = z.looseObject({
  purpose: z.union([z.strictObject({ fills: generation }), z.strictObject({ decides: generation })]),
});

export const statedSchema = z.union([
  z.looseObject({ error: wireErrorSchema }),
  z.looseObject({ epoch, instance: text.optional(), handOver: handOverSchema.optional() }),
]);

export const callSchema = z.looseObject({
  method: text,
  params: z.record(z.string(), z.unknown()).default({}),
});

export const resultSchema = z.union([
  z.looseObject({ error: wireErrorSchema }),
  z.looseObject({ value: z.record(z.string(), z.unknown()) }),
]);

/** Reads a JSON payload. Throws `protocol` with the first thing that is wrong; `what` names the frame. */
export function decodeMessage<T>(schema: z.ZodType<T>, bytes: Uint8Array, what: string): T {
  return checkMessage(schema, parseMessage(bytes, what), what);
}

/** The first half of `decodeMessage`: any JSON value. */
export function parseMessage(bytes: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (thrown) {
    throw new NetbusError('protocol', `${what}: the payload is not JSON`, { cause: thrown });
  }
}

/** The second half of `decodeMessage`. */
export function checkMessage<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const place = issue.path.length === 0 ? '' : `${issue.path.map(String).join('.')}: `;
  throw new NetbusError('protocol', plainText(`${what}: ${place}${issue.message}`));
}

/**
 * Decodes what a guest that moves waits for, once: the first time of a kind takes milliseconds, in which zod makes its checks, and every later one
 * a fraction of one.
 */
export function warmDecoders(): void {
  const queue = { fetched: 0, usedIndex: 0, heads: [0], lastBatch: [0] };
  const unflushed = { bootId: '-', instance: '-', log: { host: '-', bytes: 0 } };
  const left = { queues: [queue], unflushed, writeCache: true };
  decodeMessage(quiescedSchema, encodeMessage({ left }), 'STATE quiesced');
  decodeMessage(statedSchema, encodeMessage({ epoch: 1, instance: '-', handOver: left }), 'STATED');
}

export function encodeMessage(value: object): Uint8Array {
  return Buffer.from(JSON.stringify(value));
}

export function encodeError(error: NetbusError): WireError {
  return { code: error.code, message: error.message };
}

/** The error that a peer sent, made safe to show: its text is a stranger's. */
export function decodeError(error: WireError): NetbusError {
  const code: ErrorCode = isErrorCode(error.code) ? error.code : 'internal';
  return new NetbusError(code, plainText(error.message));
}

/** One line of at most ERROR_TEXT_MAX characters, without control characters. */
export function plainText(text: string): string {
  const line = text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, ' ').trim();
  return line.length > ERROR_TEXT_MAX ? `${line.slice(0, ERROR_TEXT_MAX)}…` : line;
}

/** docs/protocol.md, 3.2: the highest in common, or undefined. */
export function commonVersion(ours: VersionRange, theirs: VersionRange): number | undefined {
  const highest = Math.min(ours[1], theirs[1]);
  return highest >= Math.max(ours[0], theirs[0]) ? highest : undefined;
}

/** "1" or "1 to 3". */
export function versionText(range: VersionRange): string {
  return range[0] === range[1] ? `${range[0]}` : `${range[0]} to ${range[1]}`;
}
