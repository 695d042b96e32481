/** `netbus prepare`: the virtual devices of a VM that comes from another host by a live migration stand ready here, all of them or none. */
import type { AttachmentEntry } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import type { Attachments } from './attachments.ts';
import type { DeviceHost } from './device-host.ts';

/** A device of a VM, as the host that it comes from or the device's host tells it. */
export interface VmDevice {
  /** Its id at the device's host. */
  readonly attachment: string;
  /** What the VM calls it. */
  readonly name: string;
  /** The device's host. */
  readonly host: string;
  readonly export: string;
}

export interface PreparationOptions {
  /** This host. */
  readonly host: string;
  readonly hosts: () => readonly string[];
  readonly deviceHost: (host: string) => DeviceHost;
  readonly attachments: Attachments;
  /** Asks the host that the VM comes from. Rejects with `unreachable` or `timeout` where that does not answer. */
  readonly askDevices: (from: string, vm: string) => Promise<readonly VmDevice[]>;
}

export class Preparation {
  readonly #options: PreparationOptions;

  constructor(options: PreparationOptions) {
    this.#options = options;
  }

  /**
   * Prepares them; again is no harm. `preparedBy`: the host that asks for it; left out for people here. `check`: only looks whether that would go well, and answers nothing. Throws why not, with everything as it was before:
   * `usage`, `not_found`, `denied`, `in_use`, `limit`, `unreachable`.
   */
  async prepare(
    vm: string,
    from: string,
    { check = false, preparedBy }: { check?: boolean; preparedBy?: string } = {},
  ): Promise<AttachmentEntry[]> {
    const { host, hosts, attachments } = this.#options;
    if (from === host) throw new NetbusError('usage', `VM ${vm} is on this very host: --from is the host that it comes from`);
    if (!hosts().includes(from))
      throw new NetbusError('not_found', `there is no host ${from}: the members are ${hosts().join(', ')}`);
    const devices = await this.#find(vm, from);
    if (devices.length === 0)
      throw new NetbusError('not_found', `VM ${vm} has no devices at host ${from}: "netbus attachments" lists all`);
    for (const device of devices) await attachments.expect(vm, from, device, { check: true });
    if (check) return [];
    const made: string[] = [];
    try {
      const entries: AttachmentEntry[] = [];
      for (const device of devices) {
        const { entry, isNew } = await attachments.expect(vm, from, device, { check: false, preparedBy });
        if (isNew) made.push(device.name);
        entries.push(entry!);
      }
      return entries;
    } catch (thrown) {
      for (const name of made) await attachments.unexpect(vm, name);
      throw thrown;
    }
  }

  /** The host that had VM's devices prepared here. */
  preparedBy(vm: string): string | undefined {
    const prepared = [...this.#options.attachments.all].find(
      ({ record }) => record.vm === vm && record.preparedBy !== undefined,
    );
    return prepared?.record.preparedBy;
  }

  /**
   * Takes back what is prepared of a VM; nothing is success. Throws `in_use` where a VMM is connected already, or where the VM has come with one that may
   * connect again.
   */
  async unprepare(vm: string): Promise<void> {
    const { attachments } = this.#options;
    const expected = [...attachments.all].filter(({ record }) => record.vm === vm && record.arriving);
    const used = expected.find(({ connected }) => connected);
    if (used !== undefined)
      throw new NetbusError('in_use', `a VMM is connected to ${vm}/${used.record.name} already: stop it first`);
    for (const attachment of expected) {
      if (await attachment.mayComeBack())
        throw new NetbusError('in_use', `VM ${vm} has come to this host, and its VMM may connect again: stop it first`);
    }
    for (const { record } of expected) await attachments.unexpect(vm, record.name);
  }

  /** The host that it comes from knows all of them. Where that is away, the hosts of the devices do. */
  async #find(vm: string, from: string): Promise<readonly VmDevice[]> {
    const { askDevices, hosts, deviceHost } = this.#options;
    try {
      return await askDevices(from, vm);
    } catch (thrown) {
      const { code } = NetbusError.from(thrown);
      if (code !== 'unreachable' && code !== 'timeout') throw thrown;
    }
    const asked = hosts()
      .filter((host) => host !== from)
      .map(async (host) => {
        const known = await deviceHost(host).expected(vm, from);
        return known.map(({ attachment, name, export: exported }) => ({ attachment, name, host, export: exported }));
      });
    // One that does not answer may have a device of the VM, and a VM that comes without one of its devices is no VM any more.
    return (await Promise.all(asked)).flat();
  }
}
