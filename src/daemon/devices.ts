/** `netbus ls`: the exports of all hosts that this one may use, as seen from here. */
import type { AwayHost, DeviceEntry, Devices, LinkEntry } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import { abortAfter, type Clock } from '../lib/clock.ts';
import type { DeviceHost } from './device-host.ts';

/** A host that does not answer in time is told in a warning; the list does not wait for it. */
export const LIST_MS_MAX = 3_000;
/** One whose link is down already: most likely it is away, and whoever asks is not made to wait for it. */
export const LIST_DOWN_MS_MAX = 1_000;

export interface ListOptions {
  readonly hosts: ReadonlyMap<string, DeviceHost>;
  /** Of all other hosts. */
  readonly links: readonly LinkEntry[];
  /** What only `ls -o wide` shows, too. */
  readonly details: boolean;
  /** How long a host is waited for, where that is less than the bounds. */
  readonly withinMs?: number;
  readonly clock: Clock;
}

/** All hosts are asked at once. */
export async function listDevices({ hosts, links, details, withinMs = LIST_MS_MAX, clock }: ListOptions): Promise<Devices> {
  const linkOf = new Map(links.map((link) => [link.host, link]));
  const asked = [...hosts].map(async ([host, deviceHost]) => {
    const link = linkOf.get(host);
    const boundMs = Math.min(withinMs, link?.state === 'down' ? LIST_DOWN_MS_MAX : LIST_MS_MAX);
    const { signal, cancel } = abortAfter(clock, boundMs);
    const late = new Promise<never>((_, reject) => {
      const error = new NetbusError('timeout', `it did not answer within ${boundMs / 1000} s`);
      signal.addEventListener('abort', () => reject(error), { once: true });
    });
    try {
      const listings = await Promise.race([deviceHost.list({ details }), late]);
      return {
        devices: listings.map(({ inUseBy, ...rest }): DeviceEntry => {
          return { host, ...rest, usedBy: inUseBy, ...(link !== undefined && { address: link.address }) };
        }),
      };
    } catch (thrown) {
      return { away: awayHost(host, NetbusError.from(thrown).message, link) };
    } finally {
      cancel();
    }
  });
  const devices: DeviceEntry[] = [];
  const away: AwayHost[] = [];
  for (const answer of await Promise.all(asked)) {
    if (answer.devices !== undefined) devices.push(...answer.devices);
    else away.push(answer.away);
  }
  return { devices, away, warnings: away.map(({ host, reason }) => `${host}: ${reason}`) };
}

function awayHost(host: string, reason: string, link: LinkEntry | undefined): AwayHost {
  const { address, lastSeen } = link ?? {};
  return { host, reason, ...(address !== undefined && { address }), ...(lastSeen !== undefined && { lastSeen }) };
}
