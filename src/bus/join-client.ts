/**
 * The joining side: docs/protocol.md, 8.2. Nothing is sent to the other side before it has shown that it belongs to the cluster of the
 * token; the address alone proves nothing.
 */
import { X509Certificate } from 'node:crypto';
import { type ErrorCode, NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import { JOIN_MS_MAX } from '../protocols/netbus/limits.ts';
import { redeemValue } from '../protocols/netbus/member-messages.ts';
import { checkMessage } from '../protocols/netbus/messages.ts';
import { ControlLink } from './control-link.ts';
import { dial, type Target } from './dial.ts';
import type { Endpoint } from './endpoint.ts';

/** What the other side has shown: the certificate of its TLS connection, and those above it, the root last. */
export interface ShownCertificates {
  readonly own: X509Certificate;
  readonly above: readonly X509Certificate[];
}

export interface JoinOptions {
  /** Without a certificate. */
  readonly endpoint: Endpoint;
  readonly target: Target;
  /** Throws `denied` where that is not the cluster that the token is of. Nothing was sent before it returns. */
  readonly check: (shown: ShownCertificates) => void;
  /** Base64url. */
  readonly secret: string;
  readonly host: string;
  /** Certificate request, PEM. */
  readonly request: string;
  readonly address?: string;
  readonly signal?: AbortSignal;
  /** The answer did not come, and the same is asked again. */
  readonly onLost?: (cause: NetbusError) => void;
  /** The signal was aborted when it had been asked: the answer is waited for, because this host may be a member by now. */
  readonly onWait?: () => void;
}

/** Where the answer may have been lost, the same is asked again after each of these: the issuing host answers the same key as before. */
export const ASK_AGAIN_MS: readonly number[] = [1_000, 2_000, 4_000, 8_000];

/**
 * Resolves with what the issuing host answered, checked for its form alone. Rejects with a NetbusError that says what is wrong: at once, unless the
 * invitation may have been used up already.
 */
export async function requestToJoin(options: JoinOptions): Promise<{ certificate: string; list: string }> {
  const { endpoint, host, signal, onLost } = options;
  const course = { asked: false };
  for (let tries = 0; ; tries++) {
    try {
      return await ask(options, course);
    } catch (thrown) {
      const error = NetbusError.from(thrown);
      if (!course.asked || !LOST.has(error.code)) throw thrown;
      if (tries === ASK_AGAIN_MS.length || signal?.aborted) {
        const advice = `where "netbus members" there lists ${host}, evict it and invite it again`;
        throw new NetbusError(error.code, `${error.message}; the invitation may be used up: ${advice}`, { cause: thrown });
      }
      onLost?.(error);
      await pause(endpoint.clock, ASK_AGAIN_MS[tries], signal);
    }
  }
}

/** What says nothing about whether this host was let in. */
const LOST: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['unreachable', 'timeout', 'ended', 'limit']);

function pause(clock: Clock, delayMs: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const over = () => {
      cancel();
      signal?.removeEventListener('abort', over);
      resolve();
    };
    const cancel = clock.after(delayMs, over);
    signal?.addEventListener('abort', over);
  });
}

async function ask(options: JoinOptions, course: { asked: boolean }): Promise<{ certificate: string; list: string }> {
  const { endpoint, target, secret, host, request, address, signal, onWait } = options;
  const wait = () => onWait?.();
  const refused: { cause?: NetbusError } = {};
  const link = await dial(
    endpoint,
    target,
    { purpose: 'join' },
    (connection, welcome) => {
      const made = new ControlLink(connection, {}, () => {});
      try {
        options.check({ own: connection.certificate!, above: parse(welcome.join!.certificates) });
      } catch (thrown) {
        refused.cause = NetbusError.from(thrown);
        made.close(new NetbusError('denied', `${host} refuses this host: ${refused.cause.message}`));
      }
      return made;
    },
    signal,
  );
  if (refused.cause !== undefined) throw refused.cause;
  try {
    const params = { secret, host, request, ...(address !== undefined && { address }) };
    course.asked = true;
    signal?.addEventListener('abort', wait);
    return checkMessage(redeemValue, await link.call('join.redeem', params, { timeoutMs: JOIN_MS_MAX }), 'join.redeem');
  } finally {
    signal?.removeEventListener('abort', wait);
    link.close(new NetbusError('ended', `${host} has its answer`));
  }
}

function parse(texts: readonly string[]): X509Certificate[] {
  try {
    return texts.map((text) => new X509Certificate(text));
  } catch (thrown) {
    throw new NetbusError('protocol', 'WELCOME: join.certificates: it has something else than certificates', { cause: thrown });
  }
}
