import type { QueueHandOver } from '../../device/hand-over.ts';
import type { Ring } from './ring.ts';

/** What a class of device adds to a vhost-user session: one per connection. */
export interface DeviceModel {
  /** Feature bits of the class. */
  readonly features: bigint;
  /** Configuration space from byte 0 on; what is beyond it reads as zeroes. */
  readConfig(): Uint8Array;
  /** Undefined, or why the driver may not write this. */
  writeConfig(offset: number, data: Uint8Array): string | undefined;
  /** What driver and front-end accepted; again for each negotiation. */
  featuresAccepted(features: bigint): void;
  /**
   * A ring is about to begin: what another host left of it (null: nobody knows), undefined where the guest is here. While that is `expected` the ring
   * waits, and is kicked when it is here.
   */
  handOverOf(ring: Ring): QueueHandOver | null | undefined | 'expected';
  /** The ring's guest comes from another host, and may not kick it by itself. */
  needsKick(ring: Ring): boolean;
  /** What `handOverOf` said does not fit the ring: it is out of use. */
  ringHeld(ring: Ring): void;
  /** The ring has a queue now. */
  ringStarted(ring: Ring): void;
  /** There may be work: a kick came, or a ring was enabled. */
  wake(): void;
  /**
   * The ring is stopping; it may have waited, or been broken before it began. Ends its stop when all that was taken from it is answered, or at the bound
   * of the device; then nothing more reaches guest memory for it. With the last ring the guest may leave for another host. Resolves with when the
   * last reply came, or the rest was cut off, by the clock; never rejects.
   */
  stopRing(ring: Ring): Promise<number>;
  /** The connection has gone. Resolves when nothing more reaches the rings, within a bound; never rejects. */
  end(): Promise<void>;
  /** Resolves when everything is free, after `end`: the device's last work in the kernel, too. */
  readonly closed: Promise<void>;
}
