/** The host that has a device, as a VM's side deals with it: far away or this very one, the code above cannot tell. */
import type { Filter } from '../device/device.ts';
import type { NetbusError } from '../device/errors.ts';
import type { Profile } from '../device/profile.ts';
import type { OpenSession } from '../device/source.ts';
import type { ExportListing } from './export-entry.ts';
import type { CreatedAttachment, Exports } from './exports.ts';

export interface AttachToExport {
  readonly export: string;
  readonly vm: string;
  readonly name: string;
  /** How long the guest waits for the device's host, in milliseconds; for ever where it is left out. */
  readonly holdMs?: number | undefined;
}

/** Every call rejects with a NetbusError: `unreachable` or `timeout` where the host does not answer. */
export interface DeviceHost {
  /** The same request again gives the same attachment. */
  attach(request: AttachToExport): Promise<CreatedAttachment>;
  /** Unknown is success. */
  detach(attachment: string): Promise<void>;
  grow(attachment: string): Promise<{ profile: Profile; grown: boolean }>;
  setWriteCache(attachment: string, enabled: boolean): Promise<void>;
  /** The exports that this host may use; of its own ones all. `details`: with what `ls -o wide` shows. */
  list(options?: { details?: boolean }): Promise<ExportListing[]>;
  /** `signal` gives up sessions that are being opened. */
  openSession(attachment: string, signal: AbortSignal): OpenSession;
}

/** This host's own exports: the same gate, the same records, and no network in between. */
export class LocalDeviceHost implements DeviceHost {
  readonly #exports: Exports;
  readonly #host: string;
  readonly #isolate: Filter;

  /** `isolate` stands between guest memory and the kernel's I/O, so that a cut leaves nothing behind that could still write there. */
  constructor(exports: Exports, host: string, isolate: Filter) {
    this.#exports = exports;
    this.#host = host;
    this.#isolate = isolate;
  }

  attach(request: AttachToExport): Promise<CreatedAttachment> {
    return this.#exports.attach(this.#host, request);
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

  list(options: { details?: boolean } = {}): Promise<ExportListing[]> {
    return this.#exports.list(this.#host, options);
  }

  openSession(attachment: string): OpenSession {
    return async (onEnded: (cause: NetbusError) => void) => {
      const { session } = this.#exports.openSession(this.#host, attachment, onEnded);
      return {
        activate: async () => {
          const grant = await session.activate();
          return { ...grant, device: this.#isolate(grant.device) };
        },
        quiesced: (left) => session.quiesced(left),
        close: () => session.close(),
      };
    };
  }
}
