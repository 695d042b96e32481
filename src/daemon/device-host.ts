/** The host that has a device, as a VM's side deals with it: far away or this very one, the code above cannot tell. */
import type { Filter } from '../device/device.ts';
import type { NetbusError } from '../device/errors.ts';
import type { Profile } from '../device/profile.ts';
import type { OpenSession } from '../device/source.ts';
import type { SignedHandOver } from '../directory/signed-hand-over.ts';
import type { CopyHost } from '../migration/swap/copy-host.ts';
import type { OutcomeRequest } from './copies.ts';
import { type ExportListing, userName } from './export-entry.ts';
import type { CreatedAttachment, Exports } from './exports.ts';
import type { AttachmentRecord } from './records.ts';

export interface AttachToExport {
  readonly export: string;
  readonly vm: string;
  readonly name: string;
  /** How long the guest waits for the device's host, in milliseconds; for ever where it is left out. */
  readonly holdMs?: number | undefined;
  /** A new start of a VM that was at another host, which is dead or has stopped it: the attachment moves here. */
  readonly takeover?: boolean | undefined;
  /** Although the device has a stale copy, which a swap has left there. */
  readonly forceStale?: boolean | undefined;
  /** This host counts as fenced when it holds the lease and has had no session for so long, in milliseconds; never where it is left out. */
  readonly fenceAfterMs?: number | undefined;
}

/** What another host has for a VM that is to come here. */
export interface ExpectedDevice {
  readonly attachment: string;
  readonly export: string;
  readonly name: string;
  readonly readOnly: boolean;
  /** This host may use the export. */
  readonly allowed: boolean;
}

export interface PrepareRequest {
  readonly attachment: string;
  readonly vm: string;
  readonly name: string;
  /** The host where the VM is. */
  readonly from: string;
  /** Only says whether it could be done. */
  readonly check?: boolean | undefined;
}

/** All that a virtual device is made of. */
export interface PreparedDevice extends CreatedAttachment {
  readonly export: string;
  readonly name: string;
  /** The driver's choice; null = it made none. */
  readonly writeCache: boolean | null;
  readonly holdMs?: number | undefined;
}

/** What the last host of a VM signed, for the attachment's device host. */
export interface PresentRequest {
  readonly attachment: string;
  readonly signed: SignedHandOver;
}

/** Where an attachment is, by its device's host. */
export interface Whereabouts {
  /** Where the VM is. */
  readonly host: string;
  readonly holder: string | null;
  readonly epoch: number;
  readonly standby?: string | undefined;
  /** Where it may go back to, as long as its guest has taken nothing at `host`. */
  readonly previous?: string | undefined;
  /** For a host that the VM has left: nothing that it keeps is needed any more, and the VM does not come back by itself. */
  readonly settled: boolean;
}

/** Every call rejects with a NetbusError: `unreachable` or `timeout` where the host does not answer. */
export interface DeviceHost {
  /** What a hot-swap needs of it. */
  readonly copies: CopyHost;
  /** What became of a swap to a device of that host, of one of this host's: see Copies. Rejects with `not_found` where it does not know. */
  copyOutcome(request: OutcomeRequest): Promise<{ decided: boolean }>;
  /** The same request again gives the same attachment. */
  attach(request: AttachToExport): Promise<CreatedAttachment>;
  /** Unknown is success. */
  detach(attachment: string): Promise<void>;
  grow(attachment: string): Promise<{ profile: Profile; grown: boolean }>;
  setWriteCache(attachment: string, enabled: boolean): Promise<void>;
  /** What host `from` has of it for its VM. */
  expected(vm: string, from: string): Promise<readonly ExpectedDevice[]>;
  /** The VM is expected here from now on: see Places. */
  prepare(request: PrepareRequest): Promise<PreparedDevice>;
  /** It is not, any more. Unknown is success. */
  unprepare(attachment: string): Promise<void>;
  whereabouts(attachment: string): Promise<Whereabouts>;
  /** The VM's last host could not say itself what its guest left: see Places. Rejects with `ended` where that is not for now (any more). */
  present(request: PresentRequest): Promise<void>;
  /** What was left at the VM's last host is good: a flush under `epoch` was answered. Rejects with `ended` where that epoch is over. */
  settled(attachment: string, epoch: number): Promise<void>;
  /** `host` is dead, says whoever calls. Resolves with the attachments that it has lost, as `host:vm/name`. */
  fence(host: string): Promise<readonly string[]>;
  /** The exports that this host may use; of its own ones all. `details`: with what `ls -o wide` shows. */
  list(options?: { details?: boolean }): Promise<ExportListing[]>;
  /** `signal` gives up sessions that are being opened. */
  openSession(attachment: string, signal: AbortSignal): OpenSession;
}

/** This host's own exports: the same gate, the same records, and no network in between. */
export class LocalDeviceHost implements DeviceHost {
  readonly copies: CopyHost;
  readonly #exports: Exports;
  readonly #host: string;
  readonly #isolate: Filter;

  /** `isolate` stands between guest memory and the kernel's I/O, so that a cut leaves nothing behind that could still write there. */
  constructor(exports: Exports, host: string, isolate: Filter) {
    this.#exports = exports;
    this.#host = host;
    this.#isolate = isolate;
    this.copies = exports.copies.for(host);
  }

  copyOutcome(request: OutcomeRequest): Promise<{ decided: boolean }> {
    return this.#exports.copies.outcome(this.#host, request);
  }

  async attach(request: AttachToExport): Promise<CreatedAttachment> {
    return { ...(await this.#exports.attach(this.#host, request)), ...this.#forgets(request.export) };
  }

  detach(attachment: string): Promise<void> {
    return this.#exports.detach(this.#host, attachment);
  }

  grow(attachment: string): Promise<{ profile: Profile; grown: boolean }> {
    return this.#exports.grow(this.#host, attachment);
  }

  setWriteCache(attachment: string, enabled: boolean): Promise<void> {
    return this.#exports.setWriteCache(this.#host, attachment, enabled);
  }

  async expected(vm: string, from: string): Promise<readonly ExpectedDevice[]> {
    return this.#exports.places.expected(this.#host, { vm, from });
  }

  async prepare(request: PrepareRequest): Promise<PreparedDevice> {
    const prepared = await this.#exports.places.prepare(this.#host, request);
    return { ...prepared, ...this.#forgets(prepared.export) };
  }

  unprepare(attachment: string): Promise<void> {
    return this.#exports.places.unprepare(this.#host, attachment);
  }

  async whereabouts(attachment: string): Promise<Whereabouts> {
    return this.#exports.places.whereabouts(this.#host, attachment);
  }

  present(request: PresentRequest): Promise<void> {
    return this.#exports.places.present(this.#host, request);
  }

  settled(attachment: string, epoch: number): Promise<void> {
    return this.#exports.places.settled(this.#host, attachment, epoch);
  }

  async fence(host: string): Promise<readonly string[]> {
    return fencedNames(await this.#exports.places.fence(this.#host, host), host);
  }

  list(options: { details?: boolean } = {}): Promise<ExportListing[]> {
    return this.#exports.list(this.#host, options);
  }

  openSession(attachment: string): OpenSession {
    return async (onEnded: (cause: NetbusError) => void) => {
      const { session } = this.#exports.openSession(this.#host, attachment, onEnded);
      return {
        activate: async (purpose) => {
          const grant = await session.activate(purpose);
          return { ...grant, device: this.#isolate(grant.device) };
        },
        quiesced: (left) => session.quiesced(left),
        close: () => session.close(),
      };
    };
  }

  #forgets(name: string): { forgets?: true } {
    return this.#exports.forgets(name) ? { forgets: true } : {};
  }
}

/** Attachments that `host` has lost, as people write them. */
export function fencedNames(records: readonly AttachmentRecord[], host: string): string[] {
  return records.map((record) => userName({ ...record, host }));
}
