/** `netbus ls`: the exports of all hosts that this one may use, as seen from here. */
import type { DeviceEntry, Devices } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import { abortAfter, type Clock } from '../lib/clock.ts';
import type { DeviceHost } from './device-host.ts';

/** A host that does not answer in time is told in a warning; the list does not wait for it. */
const LIST_MS_MAX = 3_000;

/** All hosts are asked at once, and waited for `withinMs` at most, where that is less than the bound. */
export async function listDevices(
  hosts: ReadonlyMap<string, DeviceHost>,
  clock: Clock,
  withinMs = LIST_MS_MAX,
): Promise<Devices> {
  const boundMs = Math.min(withinMs, LIST_MS_MAX);
  const asked = [...hosts].map(async ([host, deviceHost]) => {
    const { signal, cancel } = abortAfter(clock, boundMs);
    const late = new Promise<never>((_, reject) => {
      const error = new NetbusError('timeout', `host ${host} did not answer within ${boundMs / 1000} s`);
      signal.addEventListener('abort', () => reject(error), { once: true });
    });
    try {
      const listings = await Promise.race([deviceHost.list(), late]);
      return { devices: listings.map(({ inUseBy, ...rest }): DeviceEntry => ({ host, ...rest, usedBy: inUseBy })) };
    } catch (thrown) {
      return { warning: `${host}: ${NetbusError.from(thrown).message}` };
    } finally {
      cancel();
    }
  });
  const devices: DeviceEntry[] = [];
  const warnings: string[] = [];
  for (const answer of await Promise.all(asked)) {
    if (answer.devices !== undefined) devices.push(...answer.devices);
    else warnings.push(answer.warning);
  }
  return { devices, warnings };
}
