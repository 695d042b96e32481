/** Where a running QEMU has room for one more PCI device. */
import { NetbusError } from '../device/errors.ts';
import { machineType } from './machine.ts';
import type { QmpConnection } from './qmp-connection.ts';
import { childType, getProperty, listProperties, type QomDevice, userDevices } from './qom.ts';

/** Ports with one slot behind them, which a guest can be told about while it runs. */
const PORT_TYPES = new Set(['pcie-root-port', 'ioh3420', 'xio3130-downstream']);
/** Conventional buses: the machine "pc" has this one, and bridges that users add. */
const CONVENTIONAL_ROOT = '/machine/i440fx/pci.0';
const BRIDGE_TYPES = new Set(['pci-bridge']);
/** Slots of a conventional bus; behind a bridge the first one is its own hot-plug controller. */
const ROOT_SLOTS = 32;
const BRIDGE_SLOTS = 31;

/**
 * The name of a bus that takes a device now, for device_add's `bus`: an empty hot-pluggable PCIe port, or a slot of a conventional bus. Throws
 * `limit` with the argument that gives the machine a place. `bus` is the user's own choice, which is only checked.
 *
 * The object model is asked, and not query-pci, which does not see behind a port before firmware or guest have numbered its bus.
 */
export async function findFreeBus(qmp: QmpConnection, bus?: string): Promise<string> {
  const devices = await userDevices(qmp);
  const places = [...(await ports(qmp, devices)), ...(await conventionalBuses(qmp, devices))];
  if (bus !== undefined) return checkChoice(places, bus);
  const free = places.find(({ obstacle }) => obstacle === undefined);
  if (free !== undefined) return free.bus;
  throw await noPlace(qmp, places);
}

interface Place {
  /** The bus's name. */
  readonly bus: string;
  readonly kind: 'port' | 'conventional';
  /** Why it takes no device; undefined where it does. */
  readonly obstacle: string | undefined;
}

async function ports(qmp: QmpConnection, devices: readonly QomDevice[]): Promise<Place[]> {
  const places: Place[] = [];
  for (const { path, type } of devices) {
    if (!PORT_TYPES.has(type)) continue;
    const bus = await busOf(qmp, path);
    if (bus === undefined) continue;
    const hotplug = await getProperty(qmp, path, 'hotplug');
    const used = (await occupants(qmp, `${path}/${bus}`)).length > 0;
    places.push({ bus, kind: 'port', obstacle: used ? 'in use' : hotplug === false ? 'made with hotplug=off' : undefined });
  }
  return places;
}

async function conventionalBuses(qmp: QmpConnection, devices: readonly QomDevice[]): Promise<Place[]> {
  const buses = [{ path: CONVENTIONAL_ROOT, bus: 'pci.0', slots: ROOT_SLOTS }];
  for (const { path, type } of devices) {
    const bus = BRIDGE_TYPES.has(type) ? await busOf(qmp, path) : undefined;
    if (bus !== undefined) buses.push({ path: `${path}/${bus}`, bus, slots: BRIDGE_SLOTS });
  }
  // A bridge of a PCIe machine stands behind its ports, and guests are told of its slots by another way, which not all of them know.
  if ((await listProperties(qmp, CONVENTIONAL_ROOT)) === undefined) return [];
  const places: Place[] = [];
  for (const { path, bus, slots } of buses) {
    const taken = new Set<unknown>();
    // "02.1" is function 1 of slot 2.
    for (const occupant of await occupants(qmp, path)) {
      const address = await getProperty(qmp, occupant, 'legacy-addr');
      taken.add(typeof address === 'string' ? address.split('.')[0] : occupant);
    }
    places.push({ bus, kind: 'conventional', obstacle: taken.size < slots ? undefined : 'full' });
  }
  return places;
}

/** The name of the PCI bus that a port or bridge has behind it. */
async function busOf(qmp: QmpConnection, path: string): Promise<string | undefined> {
  const properties = (await listProperties(qmp, path)) ?? [];
  return properties.find(({ type }) => ['PCIE', 'PCI'].includes(childType(type) ?? ''))?.name;
}

/** Paths of the devices on a bus. */
async function occupants(qmp: QmpConnection, bus: string): Promise<string[]> {
  const links = ((await listProperties(qmp, bus)) ?? []).filter(({ name }) => /^child\[\d+\]$/.test(name));
  const paths: string[] = [];
  for (const { name } of links) {
    const path = await getProperty(qmp, bus, name);
    // What has no path is in the way as well.
    paths.push(typeof path === 'string' ? path : `${bus}/${name}`);
  }
  return paths;
}

function checkChoice(places: readonly Place[], bus: string): string {
  const place = places.find((candidate) => candidate.bus === bus);
  const free = places.filter(({ obstacle }) => obstacle === undefined).map((candidate) => candidate.bus);
  const others = free.length === 0 ? 'the VM has no other place' : `free: ${free.slice(0, 8).join(', ')}`;
  if (place === undefined)
    throw new NetbusError('not_found', `the VM has no PCI bus "${bus}" that takes devices while it runs; ${others}`);
  if (place.obstacle !== undefined) throw new NetbusError('in_use', `PCI bus ${bus} is ${place.obstacle}; ${others}`);
  return bus;
}

async function noPlace(qmp: QmpConnection, places: readonly Place[]): Promise<NetbusError> {
  const type = await machineType(qmp);
  if (places.some(({ kind }) => kind === 'conventional')) {
    return new NetbusError(
      'limit',
      `the VM (machine ${type}) has no free PCI slot: start QEMU with one more bus, -device pci-bridge,id=nb-bridge,chassis_nr=1`,
    );
  }
  const off = places.filter(({ obstacle }) => obstacle !== 'in use').map(({ bus }) => bus);
  const found =
    places.length === 0
      ? 'it has none'
      : `${places.length} in all${off.length > 0 ? `; made with hotplug=off: ${off.join(', ')}` : ', all in use'}`;
  return new NetbusError(
    'limit',
    `the VM (machine ${type}) has no free hot-pluggable PCIe port (${found}): start QEMU with one more, -device pcie-root-port,id=nb-port,chassis=${places.length + 1}`,
  );
}
