/**
 * A virtual device of a VM on this host: its record, the socket that the VMM plugs into, and the virtual device behind it. All that the guest
 * sees comes from the record, so it can be there while the device's host is away.
 */
import { rmSync } from 'node:fs';
import type { AttachmentEntry, GrowResult } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import type { QueueHandOver } from '../device/hand-over.ts';
import type { OpenSession, Source } from '../device/source.ts';
import { VirtualDevice, type VirtualDeviceState } from '../device/virtual-device.ts';
import { WriteLog } from '../filters/write-log/write-log.ts';
import type { DiskStatistics } from '../frontends/vhost-user/disk-statistics.ts';
import { readInflightHandOver } from '../frontends/vhost-user/inflight-hand-over.ts';
import type { Left } from '../frontends/vhost-user/left-requests.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { AttachedDevice, type AttachedPlace } from './attached-device.ts';
import { describeAttachment, type FrontendStatus } from './attachment-entry.ts';
import { AttachmentEvents } from './attachment-events.ts';
import type { WriteLogChoice } from './attachment-log.ts';
import { DeviceFiles, SOCKET_MODE } from './device-files.ts';
import type { DeviceHost } from './device-host.ts';
import type { EventRecorder } from './events.ts';
import { GuestGuard } from './guest-guard.ts';
import { bindFields } from './log.ts';
import { checkDeviceSocketPath, deviceSocketPath, inflightPath, writeLogPath } from './paths.ts';
import type { StoredRecord } from './record.ts';
import type { VirtualDeviceRecord } from './records.ts';
import type { HandOverPeers } from './successors.ts';
import { Turns } from './turns.ts';

/** Between two questions to a device's host that is away. */
const ASK_AGAIN_MS = 1_000;

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

/** Makes sessions of sessions. */
export type SessionFilter = (open: OpenSession) => OpenSession;

export interface AttachmentOptions {
  readonly record: StoredRecord<VirtualDeviceRecord>;
  readonly runDir: string;
  readonly socketGroup: number | undefined;
  /** This host: an attachment is local where it has the device. */
  readonly host: string;
  readonly deviceHost: (host: string) => DeviceHost;
  readonly createFrontend: CreateFrontend;
  /** The guest is on another host for good. */
  readonly onMoved?: () => Promise<void>;
  /** Where it is left out nothing goes past the device's host. */
  readonly handOverPeers?: HandOverPeers | undefined;
  /** Why this host's attachment is nobody's any more. */
  readonly whyFenced?: (record: VirtualDeviceRecord) => string | undefined;
  /** Tells one VMM's process from all others: see GuestGuard. */
  readonly identifyProcess?: (pid: number) => string;
  /** What comes between the sessions of a virtual device and its guest; asked for each session. */
  readonly filterOf?: ((vm: string, name: string) => SessionFilter | undefined) | undefined;
  /** For devices of other hosts, and those that forget; undefined: none. */
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
  readonly #files: DeviceFiles;
  readonly #turns = new Turns();
  readonly #log: Log;
  #behind: AttachedDevice;
  #frontend: Frontend | undefined;
  #state: VirtualDeviceState = { name: 'idle' };
  #since: number;
  /** Why nobody knows yet which device is the guest's: a swap was cut off in the middle. */
  #undecided: string | undefined;
  /** Why there is no socket. */
  #openFailure: NetbusError | undefined;

  constructor(options: AttachmentOptions) {
    const { record, identifyProcess, whyFenced, clock, log, events } = options;
    this.#options = options;
    this.events = new AttachmentEvents(record.value, events, clock);
    this.#log = log;
    this.#since = clock.wallTime();
    this.#guard = new GuestGuard(record, { identify: identifyProcess, whyFenced });
    const { vm, profile, depth, holdMs, guest, arriving = false } = record.value;
    this.#files = new DeviceFiles({
      runDir: options.runDir,
      vm,
      group: options.socketGroup,
      onNotGiven: (reason) =>
        log.warn({ ...this.#fields(), reason }, 'the socket was not given to the group of the devices: only root may use it'),
    });
    this.#behind = this.#attached(record.value);
    if (record.value.swap !== undefined) this.#undecided = 'a daemon before this one ended in the middle of a swap';
    this.#device = new VirtualDevice({
      profile,
      depth,
      holdMs,
      arriving,
      before: (guest === null && !arriving) || profile.readOnly ? 'nothing' : 'unknown',
      openSession: (onEnded) => this.#openSession(onEnded),
      unflushed: (byReplay) => this.#behind.unflushed(byReplay),
      writeCache: () => this.record.writeCache ?? undefined,
      onWriteCache: (enabled) => {
        this.#frontend?.chooseWriteCache(enabled);
        if (enabled !== this.record.writeCache) this.#keep(record.change((value) => ({ ...value, writeCache: enabled })));
      },
      onArrived: () => this.#behind.place.arrived(),
      onMayLeave: (expected) => this.#behind.mayLeave(expected),
      onTaken: () => this.#behind.place.taken(),
      onUntold: () => this.#behind.place.untold(),
      onLeft: (how) => this.#keep(this.#behind.place.left(how)),
      onUndelivered: (undelivered, over) => this.#behind.undelivered(undelivered, over),
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
    return this.#behind.writeLog?.describe();
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
    this.#behind.place.opened();
    const { guest, arriving } = this.record;
    if (guest?.left !== 'unknown' || !this.#guard.isGone) return;
    const queues = this.#readQueues();
    if (arriving) this.#keep(this.#leaveBehindArrived());
    else if (queues === undefined) this.#keep(this.#leaveBehindUnknown());
    else await this.#leaveBehind(queues);
  }

  /** What stands behind it now; a hot-swap changes that. */
  get behind(): AttachedDevice {
    return this.#behind;
  }

  /** See VirtualDevice.renew. */
  renew(between: () => Promise<void>): Promise<number | undefined> {
    return this.#device.renew(between);
  }

  /** A device that could take the place of the present one. Nothing uses it before `replace`; whoever has it and does not use it stops it. */
  candidate(place: AttachedPlace, { isStable }: { isStable: boolean }): AttachedDevice {
    return this.#attached(place, isStable);
  }

  /** Puts another device behind it, from the next session on: `change` says so in the record, and is stored first. Returns the one before it. */
  async replace(by: AttachedDevice, change: (record: VirtualDeviceRecord) => VirtualDeviceRecord): Promise<AttachedDevice> {
    await this.#options.record.change(change);
    const before = this.#behind;
    before.stop();
    before.close();
    this.#behind = by;
    this.#guard.replaced();
    this.events.replaced(this.record);
    this.#undecided = undefined;
    if (this.connected) by.place.vmm(true);
    return before;
  }

  /** Which device is the guest's is known: the one in the record. */
  async decided(): Promise<void> {
    const { runDir, record } = this.#options;
    const { vm, name, swap } = record.value;
    if (swap !== undefined) WriteLog.remove(writeLogPath(runDir, vm, name, swap.old.generation));
    await record.change((value) => (value.swap === undefined ? value : withoutSwap(value)));
    this.#undecided = undefined;
  }

  /** From now on no session is opened, until it is known which device is the guest's. */
  holds(reason: string): void {
    this.#undecided = reason;
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
      return (await this.#behind.deviceHost.whereabouts(attachment)).host === this.#options.host;
    } catch (thrown) {
      // Where the device's host does not say, the guest may be here.
      const { code } = NetbusError.from(thrown);
      return code === 'unreachable' || code === 'timeout';
    }
  }

  /** Ends it for the guest: a guest that still uses it finds its requests unanswered. The record stays. */
  async close(): Promise<void> {
    await this.#frontend?.close();
    this.#behind.stop();
    await this.#device.close();
    this.#behind.close();
    await this.#options.record.settled();
    if (this.#frontend !== undefined) this.#files.removeFolder();
  }

  /** Takes the device's present size, in the record first, then for the guest. */
  grow(): Promise<GrowResult> {
    return this.#turns.run(async () => {
      const { record } = this.#options;
      const { profile } = await this.#behind.deviceHost.grow(this.record.attachment);
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
    this.#behind.writeLog?.remove();
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
    const { place, trouble } = this.#behind.place;
    const failure = this.#guard.fenced ?? this.#openFailure?.message;
    const state = this.#state;
    return describeAttachment({ host, record, socket, state, since: this.#since, frontend, writeLog, place, trouble, failure });
  }

  #openSession: OpenSession = async (onEnded) => {
    if (this.#undecided !== undefined) {
      throw new NetbusError(
        'unreachable',
        `which device is its guest's is not known yet (${this.#undecided}): their hosts are asked`,
      );
    }
    const { open } = this.#behind;
    const { vm, name } = this.record;
    return (this.#options.filterOf?.(vm, name)?.(open) ?? open)(onEnded);
  };

  #attached(place: AttachedPlace, isStable = false): AttachedDevice {
    const { onMoved = async () => {}, writeLog, handOverPeers, deviceHost, log, ...options } = this.#options;
    return new AttachedDevice({
      ...options,
      place,
      isStable,
      deviceHost: deviceHost(place.host),
      guard: this.#guard,
      writeLog,
      handOverPeers,
      events: this.events,
      log,
      epoch: () => (this.#state.name === 'active' ? this.#state.epoch : undefined),
      isOver: () => this.#guard.isGone && this.#state.name === 'idle',
      onSettled: () => this.#device.settled(),
      onMoved,
      onFenced: (reason) => this.#keep(this.#guard.fence(reason)),
    });
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
        onWriteCache: (enabled) => void this.#behind.writeCache.keep(enabled),
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
        void this.#behind.writeCache.tell();
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
      this.#behind.place.vmm(false);
      this.#keep(this.#guard.disconnected(frontend.left));
      return;
    }
    // Another start of the VM: for its guest, all that was before was one power cut.
    if (vmm !== undefined && this.#guard.connected(vmm.pid)) this.#device.newGuest();
    // Only now: what is opened for a guest says which one it is.
    this.#behind.place.vmm(true);
  }

  #readQueues(): QueueHandOver[] | undefined {
    const { vm, name, profile } = this.record;
    return readInflightHandOver(inflightPath(this.#options.runDir, vm, name), profile.queues);
  }

  /** As below, of a guest that is still expected by the record: where its queues have begun here, it had come. */
  async #leaveBehindArrived(): Promise<void> {
    const queues = this.#readQueues();
    if (queues === undefined) return;
    const { host } = await this.#behind.deviceHost.whereabouts(this.record.attachment);
    if (host === this.#options.host && !this.connected && !this.#behind.isStopped) await this.#leaveBehind(queues);
  }

  /**
   * As below, where nothing is known of the guest's queues, mostly because this whole host was started anew. What the guest left before that may have been heard, so
   * only a lease that is still this host's is given back.
   */
  async #leaveBehindUnknown(): Promise<void> {
    const { host, clock } = this.#options;
    if (this.connected || this.#behind.isStopped) return;
    try {
      const { holder } = await this.#behind.deviceHost.whereabouts(this.record.attachment);
      if (holder === host && !this.connected && !this.#behind.isStopped) await this.#leaveBehind([]);
    } catch (thrown) {
      const { code } = NetbusError.from(thrown);
      if (code !== 'unreachable' && code !== 'timeout') throw thrown;
      clock.after(ASK_AGAIN_MS, () => this.#keep(this.#leaveBehindUnknown()));
    }
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

function withoutSwap({ swap: _, ...value }: VirtualDeviceRecord): VirtualDeviceRecord {
  return value;
}

function sameCause(before: VirtualDeviceState, state: VirtualDeviceState): boolean {
  const of = (candidate: VirtualDeviceState) => ('cause' in candidate ? candidate.cause?.message : undefined);
  return of(before) === of(state);
}
