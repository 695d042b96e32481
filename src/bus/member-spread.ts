/**
 * Carries the signed member list from host to host: docs/protocol.md, 8.1. Whether a list is good is the directory's business; here it is a serial and
 * some bytes, and whoever has the higher serial gives its bytes.
 */
import { NetbusError } from '../device/errors.ts';
import type { Log } from '../lib/log.ts';
import { listBytes, listText, offerParams, offerValue, putParams, putValue } from '../protocols/netbus/member-messages.ts';
import { checkMessage } from '../protocols/netbus/messages.ts';
import type { ControlHandlers, JsonObject } from './control-link.ts';

/** Lists of this host that peers gave and that are being verified and stored; the next one is refused. */
const ACCEPTING_MAX = 4;

export interface MemberSpreadOptions {
  /** The list that this host has; undefined where it has none yet. */
  readonly current: () => { readonly serial: number; readonly bytes: Uint8Array } | undefined;
  /** Who is given the list: a host that is not in it may give a newer one, and gets none. */
  readonly isMember: (host: string) => boolean;
  /** Verifies a list that `peer` gave, and takes it where it is newer. Throws `denied` for one that is not good, or older. */
  readonly accept: (bytes: Uint8Array, peer: string) => Promise<unknown>;
  /** Asks a host over its control link. */
  readonly call: (host: string, method: string, params: object) => Promise<JsonObject>;
  readonly log: Log;
}

/** With one host: one exchange at a time, and one more where the list changed meanwhile. */
interface Exchange {
  again: boolean;
  readonly done: Promise<boolean>;
}

export class MemberSpread {
  readonly #options: MemberSpreadOptions;
  readonly #exchanges = new Map<string, Exchange>();
  #accepting = 0;

  constructor(options: MemberSpreadOptions) {
    this.#options = options;
  }

  /** For the links: what peers call. */
  readonly handlers: ControlHandlers = {
    'members.offer': async (peer, params) => {
      const { serial } = checkMessage(offerParams, params, 'members.offer');
      const current = this.#options.current();
      if (current === undefined) return { serial: 0 };
      const given = current.serial > serial && this.#options.isMember(peer);
      return { serial: current.serial, ...(given && { list: listText(current.bytes) }) };
    },
    'members.put': async (peer, params) => {
      const { list } = checkMessage(putParams, params, 'members.put');
      await this.#accept(peer, list);
      return { serial: this.#serial };
    },
  };

  /** The link with `host` is up, or the list changed: whoever has the newer one gives it. Resolves with whether both have the same now. */
  exchange(host: string): Promise<boolean> {
    const running = this.#exchanges.get(host);
    if (running !== undefined) {
      running.again = true;
      return running.done;
    }
    const started: Exchange = { again: false, done: Promise.resolve().then(() => this.#run(host, started)) };
    this.#exchanges.set(host, started);
    return started.done;
  }

  async #run(host: string, exchange: Exchange): Promise<boolean> {
    let same: boolean;
    do {
      exchange.again = false;
      same = await this.#exchangeOnce(host);
    } while (exchange.again);
    this.#exchanges.delete(host);
    return same;
  }

  get #serial(): number {
    return this.#options.current()?.serial ?? 0;
  }

  async #exchangeOnce(host: string): Promise<boolean> {
    const { call, current, log } = this.#options;
    try {
      const answer = checkMessage(offerValue, await call(host, 'members.offer', { serial: this.#serial }), 'members.offer');
      if (answer.list !== undefined && answer.serial > this.#serial) {
        await this.#accept(host, answer.list);
        return this.#serial >= answer.serial;
      }
      const own = current();
      if (own === undefined || answer.serial >= own.serial) return true;
      const { serial } = checkMessage(putValue, await call(host, 'members.put', { list: listText(own.bytes) }), 'members.put');
      log.debug({ peer: host, serial }, 'the member list was given to a host');
      return serial >= own.serial;
    } catch (thrown) {
      const { code, message } = NetbusError.from(thrown);
      // Its members are those of its config; and a link that is down is told by itself, and brings the next exchange.
      if (code === 'not_found' || code === 'unreachable' || code === 'ended' || code === 'timeout') return false;
      log.warn({ peer: host, code }, `the member list was not exchanged with host ${host}: ${message}`);
      return false;
    }
  }

  async #accept(peer: string, list: string): Promise<void> {
    const { log, accept } = this.#options;
    const before = this.#serial;
    if (this.#accepting >= ACCEPTING_MAX) throw new NetbusError('limit', 'other member lists are being looked at: try again');
    this.#accepting++;
    try {
      await accept(listBytes(list), peer);
    } catch (thrown) {
      const { code, message } = NetbusError.from(thrown);
      log.warn({ peer, code }, `the member list that host ${peer} gave was refused: ${message}`);
      throw thrown;
    } finally {
      this.#accepting--;
    }
    if (this.#serial > before) log.info({ peer, serial: this.#serial }, `a newer member list came from host ${peer}`);
  }
}
