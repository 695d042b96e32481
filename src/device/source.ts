import type { LeasePurpose } from './copy-mark.ts';
import type { Device } from './device.ts';
import type { NetbusError } from './errors.ts';
import type { HandOver, QueueHandOver } from './hand-over.ts';
import type { Profile } from './profile.ts';

/**
 * Where devices come from: something that is there for long (a disk image that is open and locked, a virtual device of a VM) and that
 * gives a Device for each time it is used. A frontend plugs into one, a lease opens one: they cannot tell what stands behind.
 */
export interface Source {
  /** As it is now; the capacity of a disk may have grown since the last look. */
  readonly profile: Profile;
  /** A Device for one use. The caller closes it, before it opens the next one unless the source is shared. */
  open(): Device;
  /** How the guest comes from another host and goes to one; left out where it does not. */
  readonly passage?: Passage;
}

/** For a frontend whose guest may move between hosts. */
export interface Passage {
  /**
   * While the guest is expected from another host: resolves once this host has the lease, with what was left of each queue there, or null where nobody
   * knows. It stays pending while that cannot be known, and never rejects. The device must be open: that is what asks for the lease. Undefined where
   * the guest is here.
   */
  arrival(): Promise<readonly QueueHandOver[] | null> | undefined;
  /**
   * What was resolved does not fit the guest's queues: its last host may not have been heard yet. Resolves when something else is known, which may be never.
   */
  arrivalAgain(): Promise<readonly QueueHandOver[] | null> | undefined;
  /** Whatever the guest left unfinished elsewhere is noted by the frontend now, and outlives this process. Twice is once. */
  arrived(): void;
  /** The VMM copies the guest's memory, as it does before the guest leaves, or does so no more. */
  mayLeave(expected: boolean): void;
  /** All queues have stopped, and the device was quiesced. Resolves when the device's host has stored it, or at `signal`. Before `Device.close`. */
  leave(queues: readonly QueueHandOver[], signal: AbortSignal): Promise<void>;
}

/** Ranges of one answer. */
export const DATA_EXTENTS_MAX = 1000;

/** A piece of a device's map of data: whatever lies between `from` and `next` and in no range reads as zeroes. */
export interface DataExtents {
  /** Byte position and length, in order. */
  readonly ranges: readonly (readonly [position: number, length: number])[];
  /** Where to ask next; left out at the device's end. */
  readonly next?: number | undefined;
}

/** A source that a backend opened on this host. */
export interface BackendSource extends Source {
  /** Names this opening. A new one means that what was acknowledged and not flushed may be gone (invariant 2). */
  readonly instance: string;
  /** How it is driven, for `status` and the log: path, engine, direct or buffered … */
  describe(): Readonly<Record<string, string | number | boolean>>;
  /**
   * Where data is, from byte `from` on, as it was at some moment during the call: bounded, so it may take several. Left out where that cannot be known:
   * everything is data then. Rejects with `device`.
   */
  extents?(from: number): Promise<DataExtents>;
  /** Reads as zeroes everywhere, as far as that can be known by reading a few extents. Left out: it counts as not blank. Rejects with `device`. */
  isBlank?(): Promise<boolean>;
  /** Looks at the real thing again (its size may have changed) and returns the profile. Throws `device` where it is gone. */
  refresh(): Promise<Profile>;
  /** Frees it, once every Device that it gave is closed. */
  close(): Promise<void>;
}

/** The right to use a device, and the device: what `Session.activate` gives. */
export interface Grant {
  /** Grows with every grant of the attachment; requests of a lower one are refused. */
  readonly epoch: number;
  /** Boot id of the device's host and instance of the export: if one changed, unflushed writes may be lost. */
  readonly bootId: string;
  readonly instance: string;
  readonly device: Device;
  /**
   * What becomes of writes that were acknowledged and not flushed, where the device's host forgot them: `kept` = the device sends them again
   * by itself, or has them on stable storage; an error: they may be lost. Left out: whoever takes the grant judges by the ids.
   */
  readonly unflushed?: 'kept' | NetbusError;
  /** Resolves when the device takes requests; until then it sends again what its host forgot. Left out: it takes them at once. */
  readonly ready?: Promise<void>;
  /** What the guest left behind at its last host, as long as no flush has made it good here. */
  readonly handOver?: HandOver;
}

/**
 * One attachment's connection with the device's host, which may be this one: both kinds look the same. It begins in standby, where
 * it may read the profile and nothing else.
 */
export interface Session {
  /** What a grant would be of, where that is known already (see Grant); it may be another one by then. */
  readonly ids?: Pick<Grant, 'bootId' | 'instance'>;
  /**
   * Asks for the lease. Resolves once the old session and all its I/O have ended; rejects with a NetbusError, also where the
   * session ends or is closed meanwhile. At most once at a time. `purpose`: see LeasePurpose.
   */
  activate(purpose?: LeasePurpose): Promise<Grant>;
  /**
   * Gives the lease back, durably, with what is left: every request is answered, or in it. Also of what this host was granted by an earlier session. All
   * I/O has ended when it resolves. `unchanged`: the guest took nothing here, so what its last host left stands, and that host may go on.
   */
  quiesced(left: HandOver | 'unchanged'): Promise<void>;
  /** Ends it; twice is once. */
  close(): void;
}

/** Opens a session; `onEnded` is told once when it ends other than by `close`. */
export type OpenSession = (onEnded: (cause: NetbusError) => void) => Promise<Session>;
