/**
 * A device that follows its VM: when the VM has moved, its new host starts a job that swaps the device, because the VM's old host asked for that, which checked
 * before the migration whether it can be (docs/protocol.md, 7).
 */
import { z } from 'zod';
import type { Follow, Followed } from '../api/jobs.ts';
import { type AttachmentEntry, nameSchema } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import { formatBytes } from '../lib/format.ts';
import { SWAP_FEATURE } from '../protocols/netbus/limits.ts';
import type { DeviceHost } from './device-host.ts';
import { deviceName, parseDevice } from './job-record.ts';
import type { Jobs } from './jobs.ts';
import type { MigrationLinks } from './migration-desk.ts';

/** The destination asks the new device's host. */
const CHECK_MS_MAX = 15_000;
const WELCOME_MS_MAX = 5_000;

/** What the destination is asked for. */
export const startJobSchema = z.object({
  vm: nameSchema,
  name: nameSchema,
  host: nameSchema,
  export: nameSchema,
  /** Only says whether it could be done, for a virtual device of so many bytes. */
  check: z.object({ capacityBytes: z.number().int().min(0) }).optional(),
});
export type StartJob = z.output<typeof startJobSchema>;
const startedSchema = z.object({ job: z.string().max(64).optional() });

export interface FollowOptions {
  /** This host. */
  readonly host: string;
  readonly entries: () => AttachmentEntry[];
  readonly isMember: (host: string) => boolean;
  readonly links: MigrationLinks;
}

/** At the host that the VM leaves. */
export class Follows {
  readonly #options: FollowOptions;

  constructor(options: FollowOptions) {
    this.#options = options;
  }

  /** Before anything is touched: whether these can follow VM to host `to`, as far as that can be known. Throws why not. */
  async check(vm: string, to: string, follows: readonly Follow[]): Promise<void> {
    const { host, isMember, links } = this.#options;
    const entries = follows.map((follow) => this.#entryOf(vm, follow));
    const twice = follows.find((follow, index) => follows.some((other, i) => i < index && clash(follow, other)));
    if (twice !== undefined) throw new NetbusError('usage', `${vm}/${twice.name} or ${twice.to} is there twice`);
    for (const device of follows.map(({ to: device }) => parseDevice(device))) {
      if (device.host === host || isMember(device.host)) continue;
      throw new NetbusError('not_found', `there is no host ${device.host} in the cluster: "netbus members" lists the hosts`);
    }
    const { release, features } = await links.welcomeOf(to, { timeoutMs: WELCOME_MS_MAX });
    if (!features.includes(SWAP_FEATURE)) {
      throw new NetbusError('protocol', `host ${to} runs netbus ${release}, which does not know hot-swapping: upgrade it`);
    }
    for (const [index, { capacityBytes }] of entries.entries()) await this.#ask(vm, to, follows[index], { capacityBytes });
  }

  /** The VM is at host `to` now, and nothing of it need be left here. Never rejects. */
  async start(vm: string, to: string, follows: readonly Follow[]): Promise<Followed[]> {
    const followed: Followed[] = [];
    for (const follow of follows) {
      try {
        followed.push({ ...follow, job: await this.#ask(vm, to, follow) });
      } catch (thrown) {
        followed.push({ ...follow, reason: NetbusError.from(thrown).message });
      }
    }
    return followed;
  }

  #entryOf(vm: string, { name, to }: Follow): AttachmentEntry {
    const own = this.#options.entries().filter((entry) => entry.vm === vm);
    const entry = own.find((candidate) => candidate.name === name);
    if (entry === undefined) {
      const names = own.map((candidate) => candidate.name).join(', ');
      const has = names === '' ? '' : `: it has ${names}`;
      throw new NetbusError('not_found', `VM ${vm} has no device ${name} on this host${has}`);
    }
    if (entry.device === to) throw new NetbusError('usage', `${vm}/${name} is at ${to} already`);
    if (entry.readOnly) throw new NetbusError('usage', `${vm}/${name} is read-only: such a device is not swapped`);
    return entry;
  }

  async #ask(vm: string, to: string, follow: Follow, check?: StartJob['check']): Promise<string | undefined> {
    const params: StartJob = { vm, name: follow.name, ...parseDevice(follow.to), ...(check && { check }) };
    const answer = startedSchema.safeParse(
      await this.#options.links.call(to, 'job.start', params, { timeoutMs: CHECK_MS_MAX }),
    );
    if (answer.success) return answer.data.job;
    throw new NetbusError('protocol', `host ${to} answered job.start with something else`);
  }
}

/** Of one virtual device, or to one device. */
function clash(a: Follow, b: Follow): boolean {
  return a.name === b.name || a.to === b.to;
}

export interface StartFollowOptions {
  /** This host. */
  readonly host: string;
  readonly jobs: () => Pick<Jobs, 'start' | 'jobOf'>;
  readonly isMember: (host: string) => boolean;
  readonly deviceHost: (host: string) => Pick<DeviceHost, 'list'>;
}

/** At the host that the VM goes to: answers with the job, or with `check` whether there could be one. Again gives the same job. */
export async function startFollow(options: StartFollowOptions, request: StartJob): Promise<{ job?: string }> {
  const { vm, name, check } = request;
  const to = { host: request.host, export: request.export };
  if (check !== undefined) {
    await checkTarget(options, `${vm}/${name}`, to, check.capacityBytes);
    return {};
  }
  const jobs = options.jobs();
  const before = jobs.jobOf(vm, name);
  if (before?.to === deviceName(to)) return { job: before.id };
  return { job: (await jobs.start({ vm, name, to, overwrite: false, whenSettled: true })).id };
}

/** What can be seen of a device without touching it. The rest, such as whether there is data on it, is found when the job begins. */
async function checkTarget(
  { host, isMember, deviceHost }: StartFollowOptions,
  attachment: string,
  to: { host: string; export: string },
  capacityBytes: number,
): Promise<void> {
  const device = deviceName(to);
  if (to.host !== host && !isMember(to.host)) {
    throw new NetbusError('not_found', `host ${host} knows no host ${to.host}: see "netbus members" there`);
  }
  const listed = await deviceHost(to.host).list({ details: true });
  const target = listed.find((listing) => listing.name === to.export);
  if (target === undefined) {
    throw new NetbusError(
      'not_found',
      `there is no ${device} that host ${host} may use: type "netbus export ${to.export} --disk PATH --allow ${host}" on ${to.host}`,
    );
  }
  const { readOnly, inUseBy, state, details } = target;
  // Of its own exports a host sees all; of another host's those that it may use.
  if (details !== undefined && details.allow.length === details.allowCount && !details.allow.includes(host)) {
    throw new NetbusError('denied', `host ${host} may not use ${device}: export it with --allow ${host}`);
  }
  if (readOnly) throw new NetbusError('usage', `${device} is read-only: nothing can be copied to it`);
  if (inUseBy.length > 0) throw new NetbusError('in_use', `${device} is in use by ${inUseBy.join(', ')}`);
  if (state !== 'ready') throw new NetbusError('device', `${device} is ${state}: see "netbus status" on ${to.host}`);
  if (target.capacityBytes < capacityBytes) {
    const sizes = `${formatBytes(target.capacityBytes)}, ${attachment} has ${formatBytes(capacityBytes)}`;
    throw new NetbusError('usage', `${device} is too small: it has ${sizes}`);
  }
}
