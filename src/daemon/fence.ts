/** `netbus fence`: whoever asks has made sure that a host is dead, and all hosts that have devices take from it what it had there. */
import type { FenceCheck, FenceResult, LinkEntry } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import type { DeviceHost } from './device-host.ts';

export interface FenceOptions {
  /** This one. */
  readonly own: string;
  /** All that may have devices, this one, too. */
  readonly hosts: ReadonlyMap<string, DeviceHost>;
  readonly links: readonly LinkEntry[];
}

/** Throws as `fenceHost` would at once, and changes nothing. */
export function checkFence(host: string, { own, hosts, links }: FenceOptions): FenceCheck {
  if (host === own) throw new NetbusError('usage', `host ${host} is this one, and it is alive: fence it from another host`);
  if (!hosts.has(host)) {
    throw new NetbusError('not_found', `there is no host ${host}: the members are ${[...hosts.keys()].join(', ')}`);
  }
  return { host, answers: links.some((link) => link.host === host && link.state === 'up') };
}

/** All hosts are asked at once; each answers, or is given up, within the time of a call. */
export async function fenceHost(host: string, options: FenceOptions): Promise<FenceResult> {
  checkFence(host, options);
  const result: FenceResult = { host, fenced: [], untold: [] };
  const others = [...options.hosts].filter(([name]) => name !== host);
  const answers = await Promise.allSettled(others.map(([, deviceHost]) => deviceHost.fence(host)));
  for (const [i, answer] of answers.entries()) {
    const [name] = others[i];
    if (answer.status === 'rejected') result.untold.push({ host: name, reason: NetbusError.from(answer.reason).message });
    else if (answer.value.length > 0) result.fenced.push({ by: name, attachments: [...answer.value] });
  }
  return result;
}
