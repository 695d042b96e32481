/**
 * One writer (invariant 1): the lease of one attachment, granted by the device's own host, which is the sole authority for it.
 * The gate in front of the backend is here, once, for local and remote sessions alike. Who may have it next is decided in succession.ts.
 */
import type { Batch } from './batch.ts';
import type { LeasePurpose } from './copy-mark.ts';
import type { Device, Guest, Quiesced } from './device.ts';
import { NetbusError } from './errors.ts';
import { HAND_OVER_BYTES_MAX, type HandOver } from './hand-over.ts';
import type { Profile } from './profile.ts';
import type { BackendSource, Grant, Session } from './source.ts';
import { fenced, granted, presented, quiesced, type Succession } from './succession.ts';

/** Where the state is kept. Others change it, too: where the VM is expected, for example. */
export interface LeaseRecord {
  /** What is on stable storage. */
  readonly value: Succession;
  /** Stores what `change` makes of the value, unless that throws; it is the old one until that is durable. */
  change(change: <State extends Succession>(state: State) => State): Promise<void>;
}

/** A session that asks for the lease. */
interface Asking {
  readonly host: string;
  readonly number: number;
  readonly purpose: LeasePurpose | undefined;
  readonly onEnded: (cause: NetbusError) => void;
}

interface Held {
  readonly host: string;
  /** Of its session. */
  readonly number: number;
  readonly epoch: number;
  readonly device: GatedDevice;
  readonly onEnded: (cause: NetbusError) => void;
}

export class Lease {
  readonly #source: BackendSource;
  readonly #bootId: string;
  readonly #record: LeaseRecord;
  #held: Held | undefined;
  /** Sessions are numbered as they are opened. */
  #opened = 0;
  /** Of each host the newest session that took or gave back the lease: what comes late by an older one has no effect. */
  readonly #newest = new Map<string, number>();
  /** Grants and releases go one after the other. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: { source: BackendSource; bootId: string; record: LeaseRecord }) {
    this.#source = options.source;
    this.#bootId = options.bootId;
    this.#record = options.record;
  }

  /** True while a session has the device open. */
  get active(): boolean {
    return this.#held !== undefined;
  }

  /** A session of `host`, in standby. */
  session(host: string, onEnded: (cause: NetbusError) => void): Session {
    const number = ++this.#opened;
    let epoch: number | undefined;
    let closed = false;
    const end = () => {
      if (epoch !== undefined && this.#held?.epoch === epoch) void this.#end();
    };
    return {
      activate: async (purpose) => {
        const grant = await this.#inTurn(() => {
          if (closed) throw closedError();
          return this.#grant({ host, number, purpose, onEnded });
        });
        epoch = grant.epoch;
        if (!closed) return grant;
        end();
        throw closedError();
      },
      quiesced: async (left) => {
        await this.#inTurn(() => this.#release(host, number, left));
      },
      close: () => {
        closed = true;
        end();
      },
    };
  }

  /** Ends whatever session holds the device and waits for its I/O; the stored holder stays. Used when the export or attachment goes. */
  async revoke(cause: NetbusError): Promise<void> {
    await this.#inTurn(() => this.#displace(cause));
  }

  /** `host` is dead, says whoever asks: ends its session, waits for its I/O, and stores that it gets nothing more. */
  async fence(host: string, cause: NetbusError): Promise<void> {
    await this.#inTurn(async () => {
      if (this.#held?.host === host) await this.#displace(cause);
      await this.#record.change((state) => fenced(state, host));
    });
  }

  /**
   * Ends the session that has the device, waits for its I/O, and stores what `change` makes of the state. Nobody's I/O is ended where that throws, or changes
   * nothing.
   */
  async stopFor(change: <State extends Succession>(state: State) => State, cause: NetbusError): Promise<void> {
    await this.#inTurn(async () => {
      const { value } = this.#record;
      const next = change(value);
      if (next === value) return;
      // A copy that was only begun has taken nothing from the guest, and its end takes nothing either.
      const takesNothing = value.copy?.state === 'copied' && next.copy === undefined;
      if (!takesNothing) await this.#displace(cause);
      await this.#record.change(change);
    });
  }

  /** See `presented` in succession.ts. All I/O of host `from` has ended when it resolves, and what its sessions say late has no effect. */
  async present(said: { from: string; to: string; epoch: number; left: HandOver }): Promise<void> {
    await this.#inTurn(async () => {
      checkSize(said.left);
      presented(this.#record.value, said);
      this.#newest.set(said.from, ++this.#opened);
      await this.#displace(new NetbusError('ended', `host ${said.to} brought what host ${said.from} handed over`));
      await this.#record.change((state) => presented(state, said));
    });
  }

  async #grant({ host, number, purpose, onEnded }: Asking): Promise<Grant> {
    this.#checkNewest(host, number);
    // Nobody's I/O is ended for what is refused anyway.
    granted(this.#record.value, host, purpose);
    this.#newest.set(host, number);
    // A new session of the same host ends the old one, which may be a connection that nobody has noticed to be dead.
    await this.#displace(new NetbusError('ended', 'a newer session of the same host took the lease'));
    await this.#record.change((state) => granted(state, host, purpose));
    const { lease, handOver } = this.#record.value;
    const { epoch } = lease;
    const device = new GatedDevice(this.#source.open(), () => this.#record.value.lease.epoch === epoch);
    this.#held = { host, number, epoch, device, onEnded };
    const { instance } = this.#source;
    return { epoch, bootId: this.#bootId, instance, device, ...(handOver !== undefined && { handOver }) };
  }

  /** Also by a session that was never granted anything: what an earlier one of this host holds is over, and a newer one's is not for it to say. */
  async #release(host: string, number: number, left: HandOver | 'unchanged'): Promise<void> {
    this.#checkNewest(host, number);
    checkSize(left);
    quiesced(this.#record.value, host, left);
    this.#newest.set(host, number);
    if (this.#held?.number === number) await this.#end();
    else if (this.#held?.host === host)
      await this.#displace(new NetbusError('ended', 'a newer session of the same host gave the lease back'));
    await this.#record.change((state) => quiesced(state, host, left));
  }

  #checkNewest(host: string, number: number): void {
    if ((this.#newest.get(host) ?? 0) > number) {
      throw new NetbusError('ended', `a newer session of host ${host} took or gave back the lease`);
    }
  }

  /** Ends the session that has the device, which is told. */
  async #displace(cause: NetbusError): Promise<void> {
    const held = this.#held;
    await this.#end();
    held?.onEnded(cause);
  }

  /** Closes the device of the session that has it; resolves when its last I/O has finished. */
  async #end(): Promise<void> {
    const held = this.#held;
    if (held === undefined) return;
    await held.device.close();
    if (this.#held === held) this.#held = undefined;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }
}

/** It has to fit a message between hosts, also where it comes from this one. */
function checkSize(left: HandOver | 'unchanged'): void {
  const bytes = Buffer.byteLength(JSON.stringify(left));
  if (bytes <= HAND_OVER_BYTES_MAX) return;
  throw new NetbusError('limit', `what the guest left takes ${bytes} bytes, of at most ${HAND_OVER_BYTES_MAX}`);
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
