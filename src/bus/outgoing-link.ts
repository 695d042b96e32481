/** A control link that this host opens, and opens again: a call tries at once, and what was up is brought back in the background. */
import { NetbusError } from '../device/errors.ts';
import { type ControlHandlers, ControlLink } from './control-link.ts';
import { dial, type Target } from './dial.ts';
import type { Endpoint } from './endpoint.ts';

/** Pauses between attempts to reach a host that a link was lost to, doubled from the first to the last. */
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 15_000;

/** A link as `status` shows it. */
export interface LinkStatus {
  readonly peer: string;
  /** `idle`: nothing was to be said yet. */
  readonly state: 'idle' | 'connecting' | 'up' | 'down';
  /** Milliseconds since 1970; trying again is no change. */
  readonly since: number;
  readonly rttMs?: number;
  /** The peer's program, as its last WELCOME said. */
  readonly release?: string;
  /** When the host was last there, by this link or by its own one, in milliseconds since 1970; left out where it never was, since this daemon was started. */
  readonly lastSeen?: number;
  /** Why it is down, in one line. */
  readonly error?: string;
}

/** What a host's WELCOME said of it. */
export interface LinkWelcome {
  readonly release: string;
  /** Those that both ends have. */
  readonly features: readonly string[];
}

export interface OutgoingLinkOptions {
  readonly endpoint: Endpoint;
  readonly handlers: ControlHandlers;
  readonly host: string;
  /** Where a member is; undefined for a host that is none. */
  readonly targetOf: (host: string) => Target | undefined;
  /** Told each time that it is up. */
  readonly up: () => void;
  /** Told once a reason. */
  readonly down: (cause: NetbusError, wasUp: boolean) => void;
}

type LinkState =
  | {
      readonly name: 'connecting';
      readonly since: number;
      readonly link: Promise<ControlLink>;
      readonly giveUp: AbortController;
    }
  | { readonly name: 'up'; readonly since: number; readonly link: ControlLink }
  | { readonly name: 'down'; readonly since: number; readonly error: NetbusError; readonly cancelRetry: () => void }
  | { readonly name: 'closed'; readonly since: number };

export class OutgoingLink {
  readonly #options: OutgoingLinkOptions;
  readonly #endpoint: Endpoint;
  readonly #host: string;
  /** Since when it has not been up; undefined while it is. */
  #awaySince: number | undefined;
  #state: LinkState;
  #welcome: LinkWelcome | undefined;
  #retryMs = RETRY_FIRST_MS;
  /** What was logged last: one line a reason, not one an attempt. */
  #logged = '';

  constructor(options: OutgoingLinkOptions) {
    this.#options = options;
    this.#endpoint = options.endpoint;
    this.#host = options.host;
    this.#state = this.#connect();
  }

  status(): LinkStatus {
    const state = this.#state;
    const base = {
      ...{ peer: this.#host, since: this.#awaySince ?? state.since },
      ...(this.#welcome !== undefined && { release: this.#welcome.release }),
    };
    switch (state.name) {
      case 'up': {
        const { rttMs } = state.link;
        return { ...base, state: 'up', ...(rttMs !== undefined && { rttMs }) };
      }
      case 'down':
        return { ...base, state: 'down', error: state.error.message };
      case 'connecting':
        return { ...base, state: 'connecting' };
      case 'closed':
        return { ...base, state: 'down', error: 'closed' };
    }
  }

  /** The link once it is up. Rejects where this attempt failed, or after `timeoutMs`. */
  async get(timeoutMs: number): Promise<ControlLink> {
    const state = this.#state;
    switch (state.name) {
      case 'up':
        return state.link;
      case 'connecting':
        return await this.#within(timeoutMs, state.link);
      case 'down': {
        state.cancelRetry();
        const next = this.#connect();
        this.#state = next;
        return await this.#within(timeoutMs, next.link);
      }
      case 'closed':
        throw new NetbusError('ended', `the link with ${this.#host} is closed`);
    }
  }

  /** What the host said of itself when the link was up last; undefined before. */
  get welcome(): LinkWelcome | undefined {
    return this.#welcome;
  }

  /** Undefined unless it is up at this moment. */
  get up(): ControlLink | undefined {
    return this.#state.name === 'up' ? this.#state.link : undefined;
  }

  /** Tries at once where it waits for its next try. */
  retry(): void {
    if (this.#state.name !== 'down') return;
    this.#state.cancelRetry();
    this.#state = this.#connect();
  }

  close(cause: NetbusError): void {
    const state = this.#state;
    this.#state = { name: 'closed', since: this.#endpoint.clock.wallTime() };
    if (state.name === 'up') state.link.close(cause);
    if (state.name === 'down') state.cancelRetry();
    if (state.name === 'connecting') state.giveUp.abort();
  }

  #connect(): Extract<LinkState, { name: 'connecting' }> {
    const giveUp = new AbortController();
    const link = this.#dial(giveUp.signal);
    // Nobody may be waiting for it.
    link.catch(() => undefined);
    return { name: 'connecting', since: this.#endpoint.clock.wallTime(), link, giveUp };
  }

  async #dial(signal: AbortSignal): Promise<ControlLink> {
    // Nothing may fail before the state says that it is connecting.
    await Promise.resolve();
    try {
      const { targetOf, handlers } = this.#options;
      const target = targetOf(this.#host);
      if (target === undefined) throw new NetbusError('not_found', `host ${this.#host} is not a member any more`);
      const link = await dial(
        this.#endpoint,
        target,
        { purpose: 'control' },
        (connection, { release, features }) => {
          this.#welcome = { release, features };
          return new ControlLink(connection, handlers, (_link, cause) => this.#down(cause));
        },
        signal,
      );
      if (this.#state.name !== 'connecting') {
        const cause = new NetbusError('ended', 'the link is not needed any more');
        link.close(cause);
        throw cause;
      }
      this.#retryMs = RETRY_FIRST_MS;
      this.#logged = '';
      this.#state = { name: 'up', since: this.#endpoint.clock.wallTime(), link };
      this.#awaySince = undefined;
      this.#options.up();
      this.#endpoint.log.info({ peer: this.#host }, `control link with ${this.#host} is up`);
      link.ping();
      return link;
    } catch (thrown) {
      const error = NetbusError.from(thrown);
      this.#down(error);
      throw error;
    }
  }

  #down(error: NetbusError): void {
    const state = this.#state;
    if (state.name === 'closed' || state.name === 'down') return;
    const { clock, log } = this.#endpoint;
    const { code } = error;
    if (error.message !== this.#logged) {
      log.warn({ peer: this.#host, code }, `control link with ${this.#host} is down: ${error.message}`);
      this.#options.down(error, state.name === 'up');
    }
    this.#awaySince ??= clock.wallTime();
    this.#logged = error.message;
    const cancelRetry = clock.after(this.#retryMs, () => {
      this.#state = this.#connect();
    });
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MAX_MS);
    this.#state = { name: 'down', since: clock.wallTime(), error, cancelRetry };
  }

  #within(timeoutMs: number, link: Promise<ControlLink>): Promise<ControlLink> {
    return new Promise((resolve, reject) => {
      const text = `${this.#host} could not be reached within ${timeoutMs / 1000} s`;
      const cancel = this.#endpoint.clock.after(timeoutMs, () => reject(new NetbusError('timeout', text)));
      link.then(resolve, reject).finally(cancel);
    });
  }
}
