/**
 * The inviting side of joining: docs/protocol.md, 8.2. Whoever comes here has shown no certificate, so there are few of them at a time, each for a
 * short while, and an address that failed too often is sent away unheard: it must not keep the few places for itself. A failure is a token that is no
 * good, or silence; what a host with a good token may meet (its name or address is taken, the disk is full) is none.
 */
import { isIPv6 } from 'node:net';
import { type ErrorCode, NetbusError } from '../device/errors.ts';
import { JOIN_MS_MAX, JOINERS_MAX } from '../protocols/netbus/limits.ts';
import { redeemParams } from '../protocols/netbus/member-messages.ts';
import { checkMessage } from '../protocols/netbus/messages.ts';
import { ControlLink, type JsonObject } from './control-link.ts';
import type { Endpoint } from './endpoint.ts';
import { FailureCounter } from './failure-counter.ts';
import type { Incoming } from './listener.ts';

/** What a host that joins asks for. */
export interface RedeemRequest {
  readonly secret: Uint8Array;
  /** The name that it was invited as. */
  readonly host: string;
  /** Certificate request, PEM. */
  readonly request: string;
  /** Where others reach it: HOST or HOST:PORT. What it said itself, or the IP address that it connects from. */
  readonly address: string;
}

/** What the daemon of the issuing host does for those who join. */
export interface JoinHost {
  /**
   * The certificates above this host's own, the cluster's root last: PEM texts. Throws `denied` where nobody may join here now: this host issues no
   * certificates, or no invitation is open.
   */
  certificates(): readonly string[];
  /** Lets a host in. Throws `denied` (what it says is told to a stranger), `in_use`, `usage`. */
  redeem(request: RedeemRequest): Promise<{ certificate: string; list: string }>;
}

export class JoinDesk {
  readonly #endpoint: Endpoint;
  readonly #host: JoinHost;
  readonly #failures: FailureCounter;
  readonly #joining = new Set<ControlLink>();

  constructor(endpoint: Endpoint, host: JoinHost) {
    this.#endpoint = endpoint;
    this.#host = host;
    this.#failures = new FailureCounter(endpoint.clock);
  }

  /** Takes a connection whose purpose is `join`. */
  accept(incoming: Incoming): void {
    const { clock, log, host } = this.#endpoint;
    const { connection, address } = incoming;
    let certificates: readonly string[];
    try {
      if (this.#failures.blocked(addressKey(address)))
        throw new NetbusError('limit', 'too many attempts failed: try again in a minute');
      if (this.#joining.size >= JOINERS_MAX) {
        throw new NetbusError('limit', `${JOINERS_MAX} hosts are joining at this moment: try again in ${JOIN_MS_MAX / 1000} s`);
      }
      certificates = this.#host.certificates();
    } catch (thrown) {
      this.#refuse(incoming, NetbusError.from(thrown));
      return;
    }
    const over = () => {
      cancelDeadline();
      this.#joining.delete(link);
    };
    let asked = false;
    const redeem = async (_peer: string, params: JsonObject): Promise<object> => {
      if (asked) throw new NetbusError('protocol', 'one connection joins one host');
      asked = true;
      return await this.#redeem(incoming, params);
    };
    const link = new ControlLink(connection, { 'join.redeem': redeem }, (_link, cause) => {
      over();
      log.debug({ address }, `the connection of a host that joins ended: ${cause.message}`);
    });
    const cancelDeadline = clock.after(JOIN_MS_MAX, () => {
      over();
      this.#failures.count(addressKey(address));
      log.warn({ address }, `a host at ${address} did not join within ${JOIN_MS_MAX / 1000} s`);
      link.close(new NetbusError('timeout', `${host} waited ${JOIN_MS_MAX / 1000} s for this host to join`));
    });
    this.#joining.add(link);
    if (!incoming.welcome(link, { join: { certificates: [...certificates] } })) over();
  }

  /** The bus closes. */
  close(cause: NetbusError): void {
    for (const link of [...this.#joining]) link.close(cause);
  }

  async #redeem({ address }: Incoming, params: JsonObject): Promise<object> {
    const { log } = this.#endpoint;
    try {
      const { secret, host, request, address: said = hostOf(address) } = checkMessage(redeemParams, params, 'join.redeem');
      const answer = await this.#host.redeem({
        secret: new Uint8Array(Buffer.from(secret, 'base64url')),
        host,
        request,
        address: said,
      });
      log.info({ member: host, address: said }, `host ${host} joined the cluster`);
      return answer;
    } catch (thrown) {
      const { code, message } = NetbusError.from(thrown);
      if (isFailure(code)) this.#failures.count(addressKey(address));
      log.warn({ address, code }, `the host at ${address} could not join: ${message}`);
      throw thrown;
    }
  }

  #refuse({ connection, address }: Incoming, error: NetbusError): void {
    // An address that is blocked gets no line for each try: it had one for each of those that failed.
    if (!this.#failures.blocked(addressKey(address))) {
      this.#endpoint.log.warn({ address, code: error.code }, `the host at ${address} may not join: ${error.message}`);
    }
    if (isFailure(error.code)) this.#failures.count(addressKey(address));
    connection.close(error);
  }
}

/** It had no good token, or said something that is no request at all. */
function isFailure(code: ErrorCode): boolean {
  return code === 'denied' || code === 'protocol';
}

/** "192.0.2.1:7443" and "[2001:db8::1]:7443" without the port. */
function hostOf(address: string): string {
  return address.replace(/:\d+$/, '');
}

/** Whoever has one address of an IPv6 network has all of it: the first 64 bits count (RFC 4291, 2.5.4). */
function addressKey(address: string): string {
  const host = hostOf(address).replace(/^\[|\]$/g, '');
  if (!isIPv6(host)) return host;
  const [head, tail] = host.split('::');
  const front = head === '' ? [] : head.split(':');
  const back = tail === undefined || tail === '' ? [] : tail.split(':');
  const middle = tail === undefined ? [] : new Array<string>(Math.max(0, 8 - front.length - back.length)).fill('0');
  return [...front, ...middle, ...back].slice(0, 4).join(':');
}
