/** What the exporter asks of the device's host: who may use what, and the lease. The daemon implements it on its records. */
import type { NetbusError } from '../device/errors.ts';
import type { Profile } from '../device/profile.ts';
import type { Session } from '../device/source.ts';
import type { SessionHello } from '../protocols/netbus/messages.ts';

/** A session that was allowed, in standby. */
export interface OpenedSession {
  /** The frozen profile. Read again for each batch of requests, so that a getter lets `grow` count at once. */
  readonly profile: Profile;
  /** Requests that the VM's side may have without reply: 1 to 4096, and no more than the device holds. */
  readonly depth: number;
  /** Payload bytes of those requests and their replies together, at least CREDIT_BYTES_MIN; CREDIT_BYTES_DEFAULT where it is left out. */
  readonly bytes?: number;
  /** The export's present instance. */
  readonly instance: string;
  /** `Lease.session(…)`. The exporter closes each granted device before it calls `quiesced`, and calls `close` at the end. */
  readonly session: Session;
}

export interface SessionHost {
  /**
   * Authorises and opens a session of `peer` (the name in its certificate) for `hello.attachment`. `onEnded` goes to the lease: it ends the
   * connection. Throws a NetbusError that the peer is told: `not_found`, `denied`, `in_use`, `limit`.
   */
  open(peer: string, hello: SessionHello, onEnded: (cause: NetbusError) => void): Promise<OpenedSession>;
}
