/** The virtual devices of the VMs on this host. */
import type { z } from 'zod';
import { type AttachmentEntry, type attachRequestSchema, type GrowResult, nameSchema } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { Attachment, type CreateFrontend, type SessionFilter } from './attachment.ts';
import type { WriteLogChoice } from './attachment-log.ts';
import type { AttachToExport, DeviceHost, PreparedDevice } from './device-host.ts';
import type { EventRecorder } from './events.ts';
import { checkDeviceSocketPath } from './paths.ts';
import type { VmDevice } from './preparation.ts';
import { StoredRecord } from './record.ts';
import type { VirtualDeviceRecord } from './records.ts';
import type { RecordStore } from './store.ts';
import type { HandOverPeers } from './successors.ts';

export const ATTACHMENTS_MAX = 1024;

export interface AttachmentsOptions {
  /** This host. */
  readonly host: string;
  readonly runDir: string;
  /** Number of the group that the sockets are given to; undefined: they stay the daemon's own group's. */
  readonly socketGroup: number | undefined;
  readonly records: RecordStore<VirtualDeviceRecord>;
  /** The hosts that are in the cluster now. */
  readonly hosts: () => readonly string[];
  /** A host that is not in the cluster (any more) answers `unreachable`: a device of it waits, as for one that is down. */
  readonly deviceHost: (host: string) => DeviceHost;
  readonly createFrontend: CreateFrontend;
  /** This host's present membership, for devices of other hosts; undefined where the cluster has no member list. */
  readonly membership?: () => string | undefined;
  /** Why an attachment of this host is nobody's any more. */
  readonly whyFenced?: (record: VirtualDeviceRecord) => string | undefined;
  /** Where it is left out the system's processes are looked at. */
  readonly identifyProcess?: (pid: number) => string;
  readonly writeLog?: WriteLogChoice;
  /** A job that works on a virtual device: its name, and what it puts between the sessions and the guest. */
  readonly jobOf?: (vm: string, name: string) => { readonly id: string; readonly filter: SessionFilter } | undefined;
  readonly handOverPeers?: HandOverPeers;
  readonly clock: Clock;
  readonly log: Log;
  readonly events: EventRecorder;
}

export class Attachments {
  readonly #options: AttachmentsOptions;
  readonly #attachments = new Map<string, Attachment>();
  /** Those that are being made or taken away: their names are taken. */
  readonly #busy = new Set<string>();
  #closed = false;

  constructor(options: AttachmentsOptions) {
    this.#options = options;
  }

  get all(): Iterable<Attachment> {
    return this.#attachments.values();
  }

  entries(): AttachmentEntry[] {
    return [...this.#attachments.values()].map((attachment) => attachment.describe());
  }

  /** Puts a virtual device back from its record, with or without the device's host. One that cannot be opened stays in the list, with the reason. */
  async restore(record: VirtualDeviceRecord): Promise<void> {
    const { log } = this.#options;
    const attachment = this.#make(record);
    const key = recordKey(record);
    this.#attachments.set(key, attachment);
    const fields = { attachment: key, device: `${record.host}/${record.export}` };
    try {
      await attachment.open();
      log.info({ ...fields, socket: attachment.socket }, 'attachment restored');
    } catch (thrown) {
      log.error({ ...fields, reason: NetbusError.from(thrown).message }, 'attachment failed: it has no socket');
      attachment.events.noSocket(NetbusError.from(thrown));
    }
  }

  /**
   * Attaches a device: first all that can be checked here, then the record at the device's host, then the record here, then the socket. What
   * failed half-way is undone.
   */
  async attach(request: z.output<typeof attachRequestSchema>): Promise<AttachmentEntry> {
    const hosts = this.#options.hosts();
    const { host, exported } = parseDevice(request.device);
    const { vm, name = exported, holdMs, fenceAfterMs, takeover, forceStale } = request;
    checkDeviceSocketPath(this.#options.runDir, vm, name);
    if (!hosts.includes(host)) {
      throw new NetbusError('not_found', `there is no host ${host}: the members are ${hosts.join(', ')}`);
    }
    const deviceHost = this.#options.deviceHost(host);
    return this.#alone(vm, name, async (key) => {
      const other = this.#attachments.get(key);
      if (other !== undefined) {
        const device = `${other.record.host}/${other.record.export}`;
        throw new NetbusError(
          'in_use',
          `VM ${vm} has a device ${name} already (${device}, at ${other.socket}): choose another name with --as`,
        );
      }
      this.#checkRoom();
      const made = await this.#attach(
        deviceHost,
        { vm, name, host, export: exported },
        {
          ...{ holdMs, fenceAfterMs, takeover, forceStale },
        },
      );
      this.#attachments.set(key, made);
      this.#options.log.info({ attachment: key, device: request.device, socket: made.socket }, 'attachment added');
      made.events.added();
      return made.describe();
    });
  }

  /**
   * Takes a device from a VM. `force`: although a VMM is connected, or the device's host does not answer; what went wrong then is told in the
   * warnings. Throws `not_found`, `in_use`, `unreachable`.
   */
  detach(vm: string, name: string, force: boolean): Promise<string[]> {
    return this.#alone(vm, name, async (key) => {
      const attachment = this.find(vm, name);
      const { host, attachment: id, export: exported, arriving } = attachment.record;
      const job = this.#options.jobOf?.(vm, name);
      if (job !== undefined) {
        throw new NetbusError('in_use', `job ${job.id} swaps ${key}: cancel it first, with "netbus job ${job.id} --cancel"`);
      }
      if (attachment.connected && !force) {
        throw new NetbusError('in_use', `VM ${vm} is connected to ${name}: stop the VM, or take it away with --force`);
      }
      const warnings: string[] = [];
      // A guest that loses its device must not be able to write any more before somebody else may.
      if (force) await attachment.close();
      try {
        const deviceHost = this.#options.deviceHost(host);
        await (arriving ? deviceHost.unprepare(id) : deviceHost.detach(id));
      } catch (thrown) {
        const { code, message } = NetbusError.from(thrown);
        if (!force) throw new NetbusError(code, `${message}; --force takes it away here alone`);
        warnings.push(
          `host ${host} was not told (${message}): there, export ${exported} stays in use by ${vm}/${name} until it is attached and detached once more`,
        );
      }
      if (!force) await attachment.close();
      await attachment.forget();
      this.#attachments.delete(key);
      this.#options.log.info(
        { attachment: key, device: `${host}/${exported}`, ...(warnings.length > 0 && { warnings }) },
        'attachment removed',
      );
      attachment.events.removed(warnings);
      return warnings;
    });
  }

  grow(vm: string, name: string): Promise<GrowResult> {
    return this.#alone(vm, name, () => this.find(vm, name).grow());
  }

  /**
   * Makes a device stand ready for a guest that comes from host `from`; `check`: only looks whether it could. Throws what is in the way; nothing is left
   * then.
   */
  expect(
    vm: string,
    from: string,
    device: VmDevice,
    { check, preparedBy }: { check: boolean; preparedBy?: string | undefined },
  ): Promise<{ entry?: AttachmentEntry; isNew: boolean }> {
    const { name, host, attachment } = device;
    return this.#alone(vm, name, async (key) => {
      checkDeviceSocketPath(this.#options.runDir, vm, name);
      const other = this.#attachments.get(key);
      const deviceHost = this.#options.deviceHost(host);
      const isSame = other?.record.attachment === attachment;
      const isReady = isSame && other.record.arriving === true;
      if (other !== undefined && !isReady) await checkGone(other, isSame);
      if (other === undefined) this.#checkRoom();
      const request = { attachment, vm, name, from };
      const prepared = await deviceHost.prepare({ ...request, check: check || !isReady });
      if (check) return { isNew: false };
      if (isReady) {
        await other.comesFrom(from);
        this.#tellExpected(other, true);
        return { entry: other.describe(), isNew: false };
      }
      if (other !== undefined) await this.#remove(key, other);
      const by = preparedBy === undefined ? {} : { preparedBy };
      const made = await this.#expect(deviceHost, { vm, name, host, export: device.export, from, ...by }, prepared);
      this.#attachments.set(key, made);
      this.#options.log.info({ attachment: key, from, socket: made.socket }, 'attachment stands ready');
      made.events.expected(from);
      this.#tellExpected(made, true);
      return { entry: made.describe(), isNew: true };
    });
  }

  /** Takes back what `expect` made; what it cannot tell the device's host does no harm there. */
  unexpect(vm: string, name: string): Promise<void> {
    return this.#alone(vm, name, async (key) => {
      const attachment = this.#attachments.get(key);
      if (!attachment?.record.arriving) return;
      const { host, attachment: id } = attachment.record;
      this.#tellExpected(attachment, false);
      // In this order: what it still gives back makes this host the one where the VM is expected; and a daemon that is killed can be asked once more.
      await attachment.close();
      await this.#options
        .deviceHost(host)
        .unprepare(id)
        .catch((thrown: unknown) => {
          const reason = NetbusError.from(thrown).message;
          this.#options.log.warn({ attachment: key, reason }, "the device's host was not told that the VM does not come");
        });
      await attachment.forget();
      this.#attachments.delete(key);
      attachment.events.removed([]);
    });
  }

  /** Lets the VMMs go and closes the sessions; the records stay. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#attachments.values()].map((attachment) => attachment.close()));
  }

  async #attach(
    deviceHost: DeviceHost,
    place: Pick<VirtualDeviceRecord, 'vm' | 'name' | 'host' | 'export'>,
    { holdMs, ...more }: Pick<AttachToExport, 'holdMs' | 'fenceAfterMs' | 'takeover' | 'forceStale'>,
  ): Promise<Attachment> {
    const { clock, log } = this.#options;
    const hold = holdMs === undefined ? {} : { holdMs };
    const created = await deviceHost.attach({ export: place.export, vm: place.vm, name: place.name, ...hold, ...more });
    const createdAt = new Date(clock.wallTime()).toISOString();
    const membership = place.host === this.#options.host ? undefined : this.#options.membership?.();
    const attachment = this.#make({
      ...{ version: 1, ...place, ...created, guest: null, writeCache: null, ...hold, createdAt },
      ...(membership !== undefined && { membership }),
    });
    try {
      await attachment.save();
      await attachment.open();
      return attachment;
    } catch (thrown) {
      const undone = await Promise.allSettled([attachment.close(), attachment.forget(), deviceHost.detach(created.attachment)]);
      for (const result of undone) {
        if (result.status === 'rejected') {
          const reason = NetbusError.from(result.reason).message;
          log.warn({ attachment: recordKey(place), reason }, 'an attachment that failed was not undone completely');
        }
      }
      throw thrown;
    }
  }

  async #expect(
    deviceHost: DeviceHost,
    place: Pick<VirtualDeviceRecord, 'vm' | 'name' | 'host' | 'export' | 'preparedBy'> & { from: string },
    { attachment, profile, depth, writeCache, holdMs, forgets }: PreparedDevice,
  ): Promise<Attachment> {
    const { clock, membership, host } = this.#options;
    const createdAt = new Date(clock.wallTime()).toISOString();
    const number = place.host === host ? undefined : membership?.();
    const made = this.#make({
      ...{ version: 1, ...place, attachment, profile, depth, guest: null, writeCache, arriving: true, createdAt },
      ...(holdMs !== undefined && { holdMs }),
      ...(forgets && { forgets }),
      ...(number !== undefined && { membership: number }),
    });
    try {
      // Before the device's host is told: a daemon that is killed in between knows afterwards what there is to take back.
      await made.save();
      await deviceHost.prepare({ attachment, vm: place.vm, name: place.name, from: place.from });
      await made.open();
      return made;
    } catch (thrown) {
      // What does not come about is told by the first reason.
      await made.close().catch(() => undefined);
      await deviceHost.unprepare(attachment).catch(() => undefined);
      await made.forget().catch(() => undefined);
      throw thrown;
    }
  }

  /** The host that the guest comes from, where that answers: it may have something to say that it cannot tell the device's host. */
  #tellExpected({ record: { attachment, host, from } }: Attachment, expected: boolean): void {
    const { handOverPeers, log } = this.#options;
    if (handOverPeers === undefined || from === undefined || from === host) return;
    handOverPeers.expect(from, attachment, expected).catch((thrown: unknown) => {
      const reason = NetbusError.from(thrown).message;
      log.debug({ attachment, from, reason }, 'the host that a guest comes from was not told where it is expected');
    });
  }

  #make(record: VirtualDeviceRecord): Attachment {
    const { records, jobOf, ...rest } = this.#options;
    const stored = new StoredRecord(records, recordFile(record), record);
    const onMoved = () => this.#moved(recordKey(record));
    return new Attachment({ ...rest, record: stored, onMoved, filterOf: (vm, name) => jobOf?.(vm, name)?.filter });
  }

  /** The guest is on another host for good. */
  #moved(key: string): Promise<void> {
    const attachment = this.#attachments.get(key);
    if (attachment === undefined) return Promise.resolve();
    const { vm, name } = attachment.record;
    return this.#alone(vm, name, async () => {
      // It may have been made ready once more since it was looked at.
      if (attachment.connected || !(await attachment.behind.place.hasMoved()))
        throw new NetbusError('in_use', `${key} is expected here again`);
      await this.#remove(key, attachment);
      this.#options.log.info({ attachment: key }, 'attachment has moved to another host with its guest');
      attachment.events.moved();
    });
  }

  async #remove(key: string, attachment: Attachment): Promise<void> {
    await attachment.close();
    await attachment.forget();
    this.#attachments.delete(key);
  }

  /** For one more, which is busy already. */
  #checkRoom(): void {
    if (this.#attachments.size + this.#busy.size > ATTACHMENTS_MAX)
      throw new NetbusError('limit', `this host has ${ATTACHMENTS_MAX} attachments, which is the most`);
  }

  /** One change of an attachment at a time; a second one is refused, not queued. */
  async #alone<T>(vm: string, name: string, work: (key: string) => Promise<T>): Promise<T> {
    const key = recordKey({ vm, name });
    if (this.#closed) throw new NetbusError('ended', 'the daemon is stopping');
    if (this.#busy.has(key))
      throw new NetbusError('in_use', `${key} is being changed by another command: try again when that is done`);
    this.#busy.add(key);
    try {
      return await work(key);
    } finally {
      this.#busy.delete(key);
    }
  }

  /** Throws `not_found`. */
  find(vm: string, name: string): Attachment {
    const found = this.#attachments.get(recordKey({ vm, name }));
    if (found !== undefined) return found;
    // People also type the device's name, as at `attach`.
    const meant = [...this.#attachments.values()].filter(({ record }) => record.host === vm && record.export === name);
    const advice =
      meant.length === 0
        ? '"netbus status" lists them'
        : `${vm}/${name} is attached as ${meant.map(({ record }) => recordKey(record)).join(', ')}`;
    throw new NetbusError('not_found', `VM ${vm} has no device ${name} on this host: ${advice}`);
  }
}

/** A device of that name is here: it is in the way, unless its guest has left for good. */
async function checkGone(other: Attachment, isSame: boolean): Promise<void> {
  const { vm, name, host, export: exported } = other.record;
  if (isSame && !other.connected && (await other.behind.place.hasMoved())) return;
  const why = isSame ? 'its guest is here, or has left something that is still needed' : `it is ${host}/${exported}`;
  throw new NetbusError('in_use', `VM ${vm} has a device ${name} on this host already (${why})`);
}

function parseDevice(device: string): { host: string; exported: string } {
  const parts = device.split('/');
  const valid = parts.length === 2 && parts.every((part) => nameSchema.safeParse(part).success);
  if (!valid) throw new NetbusError('usage', `"${device}" is no device: it is HOST/EXPORT, as "netbus ls" shows them`);
  return { host: parts[0], exported: parts[1] };
}

/** As people write it. */
function recordKey({ vm, name }: { vm: string; name: string }): string {
  return `${vm}/${name}`;
}

/** No name has a tilde, so no two devices have the same file. */
function recordFile({ vm, name }: { vm: string; name: string }): string {
  return `${vm}~${name}`;
}
