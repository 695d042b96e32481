/** QEMU's object model (QOM), as far as it tells what a machine is made of. Whatever comes back is checked before it is used. */
import { isObject } from '../protocols/qmp/message.ts';
import { type QmpConnection, refusalOf } from './qmp-connection.ts';

/** Where QEMU keeps the devices that users made: with an id, and without one. */
const DEVICE_FOLDERS = ['/machine/peripheral', '/machine/peripheral-anon'];

/** Properties of one object. A machine with more devices than this has no place for another one. */
const PROPERTIES_MAX = 4096;

export interface QomProperty {
  readonly name: string;
  /** Such as bool, child<pcie-root-port>, link<virtio-net-pci>. */
  readonly type: string;
}

export interface QomDevice {
  readonly path: string;
  /** The last part of the path: the id, or "device[N]". */
  readonly name: string;
  readonly type: string;
}

/** The properties of an object; undefined where there is none of that path. */
export async function listProperties(qmp: QmpConnection, path: string): Promise<QomProperty[] | undefined> {
  const answer = await unlessRefused(qmp.execute('qom-list', { path }));
  if (!Array.isArray(answer)) return undefined;
  return answer.slice(0, PROPERTIES_MAX).flatMap((property: unknown) => {
    if (!isObject(property) || typeof property.name !== 'string' || typeof property.type !== 'string') return [];
    return [{ name: property.name, type: property.type }];
  });
}

/** A property's value; undefined where the object or the property is not there, or has no value to show. */
export function getProperty(qmp: QmpConnection, path: string, property: string): Promise<unknown> {
  return unlessRefused(qmp.execute('qom-get', { path, property }));
}

/** The devices that users made (-device, device_add), in a stable order. */
export async function userDevices(qmp: QmpConnection): Promise<QomDevice[]> {
  const devices: QomDevice[] = [];
  for (const folder of DEVICE_FOLDERS) {
    for (const { name, type } of (await listProperties(qmp, folder)) ?? []) {
      const child = childType(type);
      if (child !== undefined) devices.push({ path: `${folder}/${name}`, name, type: child });
    }
  }
  return devices.sort((a, b) => a.path.localeCompare(b.path, 'en', { numeric: true }));
}

/** "pcie-root-port" of "child<pcie-root-port>". */
export function childType(type: string): string | undefined {
  return /^child<(.+)>$/.exec(type)?.[1];
}

async function unlessRefused(answer: Promise<unknown>): Promise<unknown> {
  try {
    return await answer;
  } catch (thrown) {
    if (refusalOf(thrown) !== undefined) return undefined;
    throw thrown;
  }
}
