/** Who is told what happens on the bus. It must not throw, and returns at once. */
import type { NetbusError } from '../device/errors.ts';

export interface BusObserver {
  /** This host's control link with `peer` is up. */
  linkUp(peer: string): void;
  /** It is down, or still down for another reason. */
  linkDown(peer: string, cause: NetbusError): void;
  /** A session of `peer` ended that had the device, and had not given it back. */
  sessionLost(peer: string, attachment: string, cause: NetbusError): void;
}
