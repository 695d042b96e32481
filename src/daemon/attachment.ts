/**
 * A virtual device of a VM on this host: its record, the socket that the VMM plugs into, and the virtual device behind it. All that the guest
 * sees comes from the record, so it can be there while the device's host is away.
 */
import { rmSync } from 'node:fs';
import type { AttachmentEntry, GrowResult } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import type { HandOver, QueueHandOver } from '../device/hand-over.ts';
import type { Source } from '../device/source.ts';
import { VirtualDevice, type VirtualDeviceState } from '../device/virtual-device.ts';
import type { SignedHandOver } from '../directory/signed-hand-over.ts';
import type { KeptPage } from '../filters/write-log/kept-blocks.ts';
import type { DiskStatistics } from '../frontends/vhost-user/disk-statistics.ts';
import { readInflightHandOver } from '../frontends/vhost-user/inflight-hand-over.ts';
import type { Left } from '../frontends/vhost-user/left-requests.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { describeAttachment, type FrontendStatus } from './attachment-entry.ts';

import { AttachmentEvents } from './attachment-events.ts';
import { AttachmentLog, type WriteLogChoice } from './attachment-log.ts';
import { BroughtHandOver } from './brought-hand-over.ts';
import { DeviceFiles, SOCKET_MODE } from './device-files.ts';
import type { DeviceHost } from './device-host.ts';
import type { EventRecorder } from './events.ts';
import { GuestGuard } from './guest-guard.ts';
import { GuestPlace } from './guest-place.ts';
import { LocalWrites } from './local-writes.ts';
import { bindFields } from './log.ts';
import { checkDeviceSocketPath, deviceSocketPath, inflightPath, writeLogPath } from './paths.ts';
import type { StoredRecord } from './record.ts';
import type { VirtualDeviceRecord } from './records.ts';
import { type HandOverPeers, Successors } from './successors.ts';
import { Turns } from './turns.ts';
import { WriteCacheChoice } from './write-cache-choice.ts';

/** What stands at the socket. */
export interface Frontend {
  readonly statistics: DiskStatistics;
  /** What connections that have ended left behind. */
  readonly left: Left;
  status(): FrontendStatus;
  /** The driver chose, at the host that it comes from. */
  chooseWriteCache(enabled: boolean): void;
  /** The source's profile has a new capacity: tells the guest. */
  profileChanged(): void;
  /** Takes nothing more, answers what it can within a bound, lets the VMM go, and removes the socket. */
  close(): Promise<void>;
}

export interface FrontendOptions {
  readonly path: string;
  readonly inflightPath: string;
  readonly mode: number;
  readonly source: Source;
  readonly depth: number;
  /** The driver's last choice; left out = it made none. */
  readonly writeCache?: boolean;
  readonly left: Left;
  readonly onWriteCache: (enabled: boolean) => void;
  readonly onConnection: (connected: boolean) => void;
  readonly clock: Clock;
  readonly log: Log;
}

/** Listens on the socket; one that a dead process left is replaced. Throws where that is not possible. */
export type CreateFrontend = (options: FrontendOptions) => Frontend;

export interface AttachmentOptions {
  readonly record: StoredRecord<VirtualDeviceRecord>;
  readonly runDir: string;
  readonly socketGroup: number | undefined;
  /** This host: an attachment is local where it has the device. */
  readonly host: string;
  readonly deviceHost: DeviceHost;
  readonly createFrontend: CreateFrontend;
  /** The guest is on another host for good. */
  readonly onMoved?: () => Promise<void>;
  /** Where it is left out nothing goes past the device's host. */
  readonly handOverPeers?: HandOverPeers | undefined;
  /** Why this host's attachment is nobody's any more. */
  readonly whyFenced?: (record: VirtualDeviceRecord) => string | undefined;
  /** Tells one VMM's process from all others: see GuestGuard. */
  readonly identifyProcess?: (pid: number) => string;
  /** For devices of other hosts; undefined: none. */
  readonly writeLog?: WriteLogChoice | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly events: EventRecorder;
}

export class Attachment {
  readonly events: AttachmentEvents;
  readonly #options: AttachmentOptions;
  readonly #device: VirtualDevice;
  readonly #guard: GuestGuard;
  /** One of the two, unless the device is read-only. */
  readonly #writeLog: AttachmentLog | undefined;
  readonly #local: LocalWrites | undefined;
  readonly #writeCache: WriteCacheChoice;
  readonly #files: DeviceFiles;
  readonly #passage: GuestPlace;
  readonly #brought: BroughtHandOver;
  readonly #successors: Successors | undefined;
  readonly #turns = new Turns();
  readonly #closing = new AbortController();
  readonly #log: Log;
  #frontend: Frontend | undefined;
  #state: VirtualDeviceState = { name: 'idle' };
  #since: number;
  /** Why there is no socket. */
  #openFailure: NetbusError | undefined;

  constructor(options: AttachmentOptions) {
    const { record, deviceHost, identifyProcess, whyFenced, clock, log, events } = options;
    this.#options = options;
    this.events = new AttachmentEvents(record.value, events, clock);
    this.#log = log;
    this.#since = clock.wallTime();
    this.#guard = new GuestGuard(record, { identify: identifyProcess, whyFenced });
    const { vm, name, profile, depth, holdMs, host, attachment, guest, arriving = false } = record.value;
    const open = deviceHost.openSession(attachment, this.#closing.signal);
    this.#files = new DeviceFiles({
      runDir: options.runDir,
      vm,
      group: options.socketGroup,
      onNotGiven: (reason) =>
        log.warn({ ...this.#fields(), reason }, 'the socket was not given to the group of the devices: only root may use it'),
    });
    this.#writeCache = new WriteCacheChoice({
      record,
      deviceHost,
      onNotStored: (reason) => log.error({ ...this.#fields(), reason }, "the driver's write-cache choice was not stored"),
      onNotTold: (reason) =>
        log.warn({ ...this.#fields(), reason }, "the driver's write-cache choice did not reach the device's host yet"),
    });
    if (options.writeLog !== undefined && host !== options.host && !profile.readOnly) {
      const path = writeLogPath(options.runDir, vm, name);
      const onWhole = () => this.#passage.madeGood();
      this.#writeLog = new AttachmentLog({ ...options.writeLog, record, path, clock, log, events: this.events, onWhole });
    }
    if (host === options.host && !profile.readOnly) this.#local = new LocalWrites({ record, logs: options.writeLog, clock });
    const ownLog = bindFields(log, { attachment: `${vm}/${name}` });
    this.#brought = new BroughtHandOver({ record, deviceHost, log: ownLog });
    const { handOverPeers: peers } = options;
    if (peers !== undefined) {
      const onSent = (to: string) => this.events.handOverSent(to);
      this.#successors = new Successors({ attachment, peers, onSent, clock, log: ownLog });
    }
    const presenting = this.#brought.wrap(open);
    this.#passage = new GuestPlace({
      host: options.host,
      record,
      deviceHost,
      open: this.#guard.guard((this.#writeLog ?? this.#local)?.wrap(presenting) ?? presenting),
      epoch: () => (this.#state.name === 'active' ? this.#state.epoch : undefined),
      // What a flush of the write log makes good; other disks have nothing, or nobody who could.
      waitsForFlush: this.#writeLog !== undefined,
      isOver: () => this.#guard.isGone && this.#state.name === 'idle',
      onSettled: () => this.#device.settled(),
      onMoved: options.onMoved ?? (async () => {}),
      onFenced: (reason) => this.#keep(this.#guard.fence(reason)),
      clock,
      log: ownLog,
    });
    this.#device = new VirtualDevice({
      profile,
      depth,
      holdMs,
      arriving,
      before: (guest === null && !arriving) || profile.readOnly ? 'nothing' : 'unknown',
      openSession: this.#passage.open,
      unflushed: (byReplay) => this.#unflushed(byReplay),
      writeCache: () => this.record.writeCache ?? undefined,
      onWriteCache: (enabled) => {
        this.#frontend?.chooseWriteCache(enabled);
        if (enabled !== this.record.writeCache) this.#keep(record.change((value) => ({ ...value, writeCache: enabled })));
      },
      onArrived: () => this.#passage.arrived(),
      onMayLeave: (expected) => this.#local?.mayLeave(expected),
      onTaken: () => this.#passage.taken(),
      onLeft: (how) => this.#keep(this.#passage.left(how)),
      onUndelivered: (undelivered, over) => this.#successors?.send(undelivered, over),
      clock,
      onState: (state) => this.#become(state),
    });
  }

  get record(): VirtualDeviceRecord {
    return this.#options.record.value;
  }

  get connected(): boolean {
    return this.#frontend?.status().connected ?? false;
  }

  get writeLog(): AttachmentEntry['writeLog'] {
    return this.#writeLog?.describe();
  }

  /** Of the guest's requests; undefined where there is no socket. */
  get statistics(): DiskStatistics | undefined {
    return this.#frontend?.statistics;
  }

  get state(): VirtualDeviceState {
    return this.#state;
  }

  get socket(): string {
    return deviceSocketPath(this.#options.runDir, this.record.vm, this.record.name);
  }

  /** Makes the socket. Throws where that is not possible; nothing is left then. */
  async open(): Promise<void> {
    try {
      this.#open();
    } catch (thrown) {
      this.#openFailure = NetbusError.from(thrown, 'device');
      throw this.#openFailure;
    }
    this.#passage.opened();
    const { guest, arriving } = this.record;
    if (guest?.left !== 'unknown' || !this.#guard.isGone) return;
    if (arriving) this.#keep(this.#leaveBehindArrived());
    else await this.#leaveBehind(this.#readQueues() ?? []);
  }

  /** Whether `host` expects the guest, says that host. */
  expectedAt(host: string, expected: boolean): void {
    if (expected) this.#successors?.expected(host);
    else this.#successors?.unexpected(host);
  }

  /** The guest comes from `host`. */
  async comesFrom(host: string): Promise<void> {
    await this.#options.record.change((value) => (value.from === host ? value : { ...value, from: host }));
  }

  /** The guest has come, and its VMM runs, although it is not connected at this moment: this daemon was started again. */
  async mayComeBack(): Promise<boolean> {
    const { guest, attachment } = this.record;
    if (guest?.left !== 'unknown' || this.#guard.isGone) return false;
    try {
      return (await this.#options.deviceHost.whereabouts(attachment)).host === this.#options.host;
    } catch (thrown) {
      // Where the device's host does not say, the guest may be here.
      const { code } = NetbusError.from(thrown);
      return code === 'unreachable' || code === 'timeout';
    }
  }

  /** Whether the guest has come, if it comes from another host. Rejects where the device's host does not say. */
  isHere(): Promise<boolean> {
    return this.#passage.isHere();
  }

  /** What the guest left at `host`, which could not tell the device's host. Rejects with `denied` unless it is expected from there. */
  brought(host: string, signed: SignedHandOver | null): Promise<void> {
    return this.#brought.keep(host, signed);
  }

  /** Whether the guest went to another host, which has made good what was left here. Rejects where the device's host does not say. */
  hasMoved(): Promise<boolean> {
    return this.#passage.hasMoved();
  }

  /** What no flush covers, for `host`, where the guest went. Rejects with `denied` for any other one, `not_found` where it is not here any more. */
  async readKept(host: string, after: number): Promise<KeptPage> {
    const where = await this.#options.deviceHost.whereabouts(this.record.attachment);
    if (where.host !== host || this.#writeLog === undefined)
      throw new NetbusError('denied', `the guest of ${this.record.vm}/${this.record.name} is not on host ${host}`);
    return this.#writeLog.readKept(after);
  }

  /** Ends it for the guest: a guest that still uses it finds its requests unanswered. The record stays. */
  async close(): Promise<void> {
    await this.#frontend?.close();
    this.#passage.close();
    this.#successors?.close();
    this.#closing.abort();
    await this.#device.close();
    this.#writeLog?.close();
    await this.#options.record.settled();
    if (this.#frontend !== undefined) this.#files.removeFolder();
  }

  /** Takes the device's present size, in the record first, then for the guest. */
  grow(): Promise<GrowResult> {
    return this.#turns.run(async () => {
      const { record, deviceHost } = this.#options;
      const { profile } = await deviceHost.grow(this.record.attachment);
      const { capacityBytes } = profile;
      // Compared with what this side has: a first try may have reached the device's host and not come back.
      const grown = capacityBytes > this.record.profile.capacityBytes;
      if (grown) {
        await record.change((value) => ({ ...value, profile: { ...value.profile, capacityBytes } }));
        this.#device.grow(this.record.profile);
        this.#frontend?.profileChanged();
        this.#log.info({ ...this.#fields(), capacityBytes }, 'attachment grown');
        this.events.grown(capacityBytes);
      }
      return { grown, capacityBytes: this.record.profile.capacityBytes };
    });
  }

  /** Stores the record of a new attachment. */
  save(): Promise<void> {
    return this.#options.record.save();
  }

  /** Removes the record, and what was kept for a VMM that comes back. */
  async forget(): Promise<void> {
    const { vm, name } = this.record;
    await this.#options.record.remove();
    this.#writeLog?.remove();
    try {
      rmSync(inflightPath(this.#options.runDir, vm, name), { force: true });
    } catch {
      // There is no folder that it could be in.
    }
    this.#files.removeFolder();
  }

  describe(): AttachmentEntry {
    const { host } = this.#options;
    const frontend = this.#frontend?.status();
    const { record, socket, writeLog } = this;
    const { place, trouble } = this.#passage;
    const failure = this.#guard.fenced ?? this.#openFailure?.message;
    const state = this.#state;
    return describeAttachment({ host, record, socket, state, since: this.#since, frontend, writeLog, place, trouble, failure });
  }

  #open(): void {
    const { runDir, createFrontend, clock } = this.#options;
    const { vm, name, depth, writeCache } = this.record;
    checkDeviceSocketPath(runDir, vm, name);
    const path = this.socket;
    this.#files.makeFolder();
    try {
      this.#frontend = createFrontend({
        path,
        inflightPath: inflightPath(runDir, vm, name),
        mode: SOCKET_MODE,
        source: this.#device,
        depth,
        ...(writeCache !== null && { writeCache }),
        onWriteCache: (enabled) => void this.#writeCache.keep(enabled),
        left: this.#guard.left,
        onConnection: (connected) => this.#connectionChanged(connected),
        clock,
        log: bindFields(this.#log, { attachment: `${vm}/${name}` }),
      });
      // At once, in the same turn: a VMM that is waiting for the socket tries again only after a second.
      this.#files.giveToGroup(path);
    } catch (thrown) {
      this.#files.removeFolder();
      throw thrown;
    }
  }

  #fields(): { attachment: string; device: string } {
    const { vm, name, host, export: exported } = this.record;
    return { attachment: `${vm}/${name}`, device: `${host}/${exported}` };
  }

  #become(state: VirtualDeviceState): void {
    const before = this.#state;
    this.#state = state;
    this.events.became(state);
    // Trying again is no change.
    if (before.name !== state.name) this.#since = this.#options.clock.wallTime();
    switch (state.name) {
      case 'active':
        this.#log.info({ ...this.#fields(), epoch: state.epoch }, 'attachment active');
        this.#keep(this.#guard.accepted());
        void this.#writeCache.tell();
        break;
      case 'connecting':
        if (state.cause !== undefined && !sameCause(before, state)) {
          const { errorsAt } = state;
          const fields = { ...this.#fields(), reason: state.cause.message };
          this.#log.warn(
            { ...fields, ...(errorsAt !== undefined && { errorsAt: new Date(errorsAt).toISOString() }) },
            'attachment waits for the device, and its guest with it',
          );
        }
        break;
      case 'failed': {
        const until = state.returns ? 'until the device is back' : 'until the VM is started again';
        this.#log.error(
          { ...this.#fields(), reason: state.cause.message },
          `attachment failed: its guest gets errors ${until}`,
        );
        if (state.cause.code === 'fenced') this.#keep(this.#guard.fence(state.cause.message));
        break;
      }
      case 'idle':
        this.#log.info(this.#fields(), 'attachment idle');
        break;
    }
  }

  #connectionChanged(connected: boolean): void {
    const frontend = this.#frontend;
    if (frontend === undefined) return;
    const { vmm } = frontend.status();
    this.events.connection(connected ? (vmm?.pid ?? 0) : undefined);
    if (!connected) {
      this.#passage.vmm(false);
      this.#keep(this.#guard.disconnected(frontend.left));
      return;
    }
    // Another start of the VM: for its guest, all that was before was one power cut.
    if (vmm !== undefined && this.#guard.connected(vmm.pid)) this.#device.newGuest();
    // Only now: what is opened for a guest says which one it is.
    this.#passage.vmm(true);
  }

  /** Of a guest that leaves: what it was told is written, and what that went to. */
  #unflushed(byReplay: boolean): HandOver['unflushed'] {
    const device = this.#guard.device;
    if (device === null || this.record.profile.readOnly) return undefined;
    if (this.#writeLog === undefined) return byReplay && !this.#local?.areFlushed ? device : undefined;
    const { isWhole, bytes } = this.#writeLog.content;
    if (!isWhole) return device;
    return bytes === 0 ? undefined : { ...device, log: { host: this.#options.host, bytes } };
  }

  #readQueues(): QueueHandOver[] | undefined {
    const { vm, name, profile } = this.record;
    return readInflightHandOver(inflightPath(this.#options.runDir, vm, name), profile.queues);
  }

  /** As below, of a guest that is still expected by the record: where its queues have begun here, it had come. */
  async #leaveBehindArrived(): Promise<void> {
    const queues = this.#readQueues();
    if (queues === undefined) return;
    const { host } = await this.#options.deviceHost.whereabouts(this.record.attachment);
    if (host === this.#options.host && !this.connected && !this.#closing.signal.aborted) await this.#leaveBehind(queues);
  }

  /** A daemon before this one was killed, and then the VMM went: nobody has said yet that the device is free. */
  async #leaveBehind(queues: readonly QueueHandOver[]): Promise<void> {
    this.#log.info(
      { ...this.#fields(), queues: queues.length },
      'the VMM went while no daemon was here: its device is given back',
    );
    await this.#device.leaveBehind(queues);
  }

  /** What is not in the record errs on the safe side after a restart: the guest waits. */
  #keep(change: Promise<void>): void {
    change.catch((thrown: unknown) => {
      this.#log.warn({ ...this.#fields(), reason: NetbusError.from(thrown).message }, "the guest's state was not stored");
    });
  }
}

function sameCause(before: VirtualDeviceState, state: VirtualDeviceState): boolean {
  const of = (candidate: VirtualDeviceState) => ('cause' in candidate ? candidate.cause?.message : undefined);
  return of(before) === of(state);
}
