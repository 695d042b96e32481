/**
 * One writer (invariant 1): the lease of one attachment, granted by the device's own host, which is the sole authority for it.
 * The gate in front of the backend is here, once, for local and remote sessions alike.
 */
import type { Batch } from './batch.ts';
import type { Device, Guest, Quiesced } from './device.ts';
import { NetbusError } from './errors.ts';
import type { Profile } from './profile.ts';
import type { BackendSource, Grant, Session } from './source.ts';

/** What must be on stable storage before a grant is given. */
export interface LeaseState {
  readonly epoch: number;
  /** The host that holds it; null = nobody, everything it did is finished. */
  readonly holder: string | null;
}

interface Held {
  readonly epoch: number;
  readonly device: GatedDevice;
  readonly onEnded: (cause: NetbusError) => void;
}

export class Lease {
  readonly #source: BackendSource;
  readonly #bootId: string;
  readonly #store: (state: LeaseState) => Promise<void>;
  #state: LeaseState;
  #held: Held | undefined;
  /** Grants and releases go one after the other. */
  #turn: Promise<unknown> = Promise.resolve();

  /** `store` puts the state on stable storage; `state` is what was stored last. */
  constructor(options: {
    source: BackendSource;
    bootId: string;
    state: LeaseState;
    store: (state: LeaseState) => Promise<void>;
  }) {
    this.#source = options.source;
    this.#bootId = options.bootId;
    this.#state = options.state;
    this.#store = options.store;
  }

  get state(): LeaseState {
    return this.#state;
  }

  /** True while a session has the device open. */
  get active(): boolean {
    return this.#held !== undefined;
  }

  /** A session of `host`, in standby. */
  session(host: string, onEnded: (cause: NetbusError) => void): Session {
    let epoch: number | undefined;
    let closed = false;
    const end = () => {
      if (epoch !== undefined && this.#held?.epoch === epoch) void this.#end();
    };
    return {
      activate: async () => {
        const grant = await this.#inTurn(() => {
          if (closed) throw closedError();
          return this.#grant(host, onEnded);
        });
        epoch = grant.epoch;
        if (!closed) return grant;
        end();
        throw closedError();
      },
      quiesced: async () => {
        const own = epoch;
        if (own !== undefined) await this.#inTurn(() => this.#release(own));
      },
      close: () => {
        closed = true;
        end();
      },
    };
  }

  /** Ends whatever session holds the device and waits for its I/O; the stored holder stays. Used when the export or attachment goes. */
  async revoke(cause: NetbusError): Promise<void> {
    await this.#inTurn(async () => {
      const held = this.#held;
      await this.#end();
      held?.onEnded(cause);
    });
  }

  async #grant(host: string, onEnded: (cause: NetbusError) => void): Promise<Grant> {
    const { holder } = this.#state;
    if (holder !== null && holder !== host) {
      throw new NetbusError('in_use', `host ${holder} holds the lease; it is free once that host has given it back`);
    }
    // A new session of the same host ends the old one, which may be a connection that nobody has noticed to be dead.
    const old = this.#held;
    await this.#end();
    old?.onEnded(new NetbusError('ended', 'a newer session of the same host took the lease'));
    const epoch = this.#state.epoch + 1;
    await this.#keep({ epoch, holder: host });
    const device = new GatedDevice(this.#source.open(), () => this.#state.epoch === epoch);
    this.#held = { epoch, device, onEnded };
    return { epoch, bootId: this.#bootId, instance: this.#source.instance, device };
  }

  async #release(epoch: number): Promise<void> {
    if (this.#state.epoch !== epoch) return;
    await this.#end();
    await this.#keep({ epoch, holder: null });
  }

  /** Closes the device of the session that has it; resolves when its last I/O has finished. */
  async #end(): Promise<void> {
    const held = this.#held;
    if (held === undefined) return;
    await held.device.close();
    if (this.#held === held) this.#held = undefined;
  }

  async #keep(state: LeaseState): Promise<void> {
    await this.#store(state);
    this.#state = state;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }
}

function closedError(): NetbusError {
  return new NetbusError('ended', 'the session was closed while it asked for the lease');
}

/** The gate: requests pass only under the current epoch. */
class GatedDevice implements Device {
  readonly #inner: Device;
  readonly #isCurrent: () => boolean;

  constructor(inner: Device, isCurrent: () => boolean) {
    this.#inner = inner;
    this.#isCurrent = isCurrent;
  }

  get profile(): Profile {
    return this.#inner.profile;
  }

  get depth(): number {
    return this.#inner.depth;
  }

  start(guest: Guest): void {
    this.#inner.start(guest);
  }

  push(batch: Batch): number {
    return this.#isCurrent() ? this.#inner.push(batch) : 0;
  }

  ready(): void {
    this.#inner.ready();
  }

  quiesce(signal: AbortSignal): Promise<Quiesced> {
    return this.#inner.quiesce(signal);
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}
