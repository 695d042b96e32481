/** The hosts that may have devices for this one: those of the directory, as it is at the moment, and this host itself, in any case. */
import type { Bus } from '../bus/bus.ts';
import type { Target } from '../bus/dial.ts';
import type { Directory } from '../directory/directory.ts';
import type { DeviceHost } from './device-host.ts';
import { RemoteDeviceHost } from './remote-host.ts';

export interface DeviceHostsOptions {
  readonly host: string;
  readonly local: DeviceHost;
  readonly directory: Directory;
  readonly bus: Bus;
}

export class DeviceHosts {
  readonly #options: DeviceHostsOptions;

  constructor(options: DeviceHostsOptions) {
    this.#options = options;
  }

  /** By name, all that are in at this moment, and this one. */
  get all(): ReadonlyMap<string, DeviceHost> {
    return new Map(this.names.map((name) => [name, this.get(name)]));
  }

  get names(): string[] {
    const { host, directory } = this.#options;
    const names = [...directory.members().keys()];
    // Its own devices need nobody's list.
    return names.includes(host) ? names : [host, ...names];
  }

  /** Good for as long as anybody needs it, whether the host is in at the moment or not: each call looks again. */
  get(name: string): DeviceHost {
    const { host, local, bus, directory } = this.#options;
    return name === host ? local : new RemoteDeviceHost(bus, name, (asked) => targetIn(directory, asked));
  }
}

/** Where a host is, by the directory; undefined for one that is not in. */
export function targetIn(directory: Directory, host: string): Target | undefined {
  const address = directory.members().get(host)?.address;
  return address && { host, address: address.host, port: address.port };
}
