/**
 * The part of the daemon that a VM leaves by a live migration: it checks whether the VM's devices can go along, has them made ready at the
 * destination, and tells whether they came to rest here. The VM itself is moved by whoever drives its VMM.
 */
import type { z } from 'zod';
import type {
  MigratingDevice,
  MigrationPhase,
  MigrationPreparation,
  MigrationProgressEntry,
  MigrationReport,
  Switchover,
} from '../api/migration.ts';
import type { AttachmentEntry } from '../api/types.ts';
import type { JsonObject } from '../bus/control-link.ts';
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { HAND_OVER_FEATURE } from '../protocols/netbus/limits.ts';
import { preparedSchema, reportedSchema } from './migration-calls.ts';

/** The destination asks each device's host. */
const PREPARE_MS_MAX = 30_000;
const REPORT_MS_MAX = 5_000;
/** A command that has not said anything for so long was killed. */
export const COMMAND_SILENT_MS_MAX = 15_000;

/** Control links; `Links` of src/bus. */
export interface MigrationLinks {
  call(host: string, method: string, params: object, options: { timeoutMs: number }): Promise<JsonObject>;
  /** What a host runs, over a link that is opened for it where there is none. */
  welcomeOf(host: string, options: { timeoutMs: number }): Promise<{ release: string; features: readonly string[] }>;
}

export interface MigrationDeskOptions {
  /** This host. */
  readonly host: string;
  readonly entries: () => AttachmentEntry[];
  readonly isMember: (host: string) => boolean;
  readonly links: MigrationLinks;
  readonly clock: Clock;
  readonly log: Log;
}

interface Running {
  readonly to: string;
  readonly since: number;
  phase: MigrationPhase;
  cancel: boolean;
  /** When its command was heard of last, by the clock that only goes forward. */
  heardAt: number;
}

export class MigrationDesk {
  readonly #options: MigrationDeskOptions;
  /** By VM. */
  readonly #running = new Map<string, Running>();

  constructor(options: MigrationDeskOptions) {
    this.#options = options;
  }

  /**
   * Checks whether VM's devices can go to host `to`, and has them made ready there unless `check` is set. Throws with the reason, and has changed
   * nothing then: `not_found`, `in_use`, `device`, `unreachable`, `denied`, `protocol`, `usage`.
   */
  async begin(vm: string, { to, check }: { to: string; check: boolean }): Promise<MigrationPreparation> {
    const { host, isMember, clock, log } = this.#options;
    if (to === host) throw new NetbusError('usage', `host ${to} is this host: the VM is here already`);
    if (!isMember(to))
      throw new NetbusError('not_found', `there is no host ${to} in the cluster: "netbus members" lists the hosts`);
    const other = this.#find(vm);
    if (other !== undefined) {
      throw new NetbusError('in_use', `VM ${vm} is being migrated to ${other.to} already, by another command (${other.phase})`);
    }
    const entries = this.#devicesOf(vm);
    checkDevices(vm, entries);
    const devices = entries.map(
      ({ name, device, socket, connected }): MigratingDevice => ({ name, device, socket, connected }),
    );
    if (check) {
      await this.#checkReleases(to, entries);
      await this.#prepare(vm, to, devices, true);
      return { to, devices, prepared: false };
    }
    const since = clock.wallTime();
    this.#running.set(vm, { to, since, phase: 'preparing', cancel: false, heardAt: clock.now() });
    try {
      await this.#checkReleases(to, entries);
      const prepared = await this.#prepare(vm, to, devices, false);
      log.info(
        { vm, to, devices: devices.map(({ name }) => name) },
        'a migration begins: its devices are ready at the destination',
      );
      return { to, devices, prepared };
    } catch (thrown) {
      this.#running.delete(vm);
      throw thrown;
    }
  }

  /** The command is done with it. `undo`: the VM stays, so what this host had made ready at host `to` is taken back there. */
  async end(vm: string, { to, undo }: { to: string; undo: boolean }): Promise<void> {
    if (this.#running.get(vm)?.to === to) this.#running.delete(vm);
    this.#options.log.info({ vm, to }, undo ? 'a migration did not happen' : 'a migration has ended');
    if (undo) await this.#options.links.call(to, 'vm.unprepare', { vm }, { timeoutMs: PREPARE_MS_MAX });
  }

  /** The command says where it is; the answer has whether somebody wants it cancelled. Throws `not_found` where there is none. */
  progress(vm: string, phase?: MigrationPhase): MigrationProgressEntry {
    const running = this.#find(vm);
    if (running === undefined) throw notRunning(vm);
    if (phase !== undefined) {
      running.phase = phase;
      running.heardAt = this.#options.clock.now();
    }
    const { to, since, cancel } = running;
    return { vm, to, phase: running.phase, since: new Date(since).toISOString(), cancel };
  }

  /** Asks the command that migrates VM to cancel. Throws `not_found` where there is none. */
  cancel(vm: string): MigrationProgressEntry {
    const running = this.#find(vm);
    if (running === undefined) throw notRunning(vm);
    running.cancel = true;
    return this.progress(vm);
  }

  /** To be asked when the VMM has stopped the guest and waits. Throws `not_found` where the VM has no device here. */
  switchover(vm: string): Switchover {
    const reasons = this.#devicesOf(vm).flatMap((entry) => whyNotStopped(entry) ?? []);
    return { stopped: reasons.length === 0, reasons };
  }

  /** How the devices left, and how they arrived at host `to`. */
  async report(vm: string, to: string): Promise<MigrationReport> {
    const entries = this.#options.entries().filter((entry) => entry.vm === vm);
    const stop = entries.map(({ name, device, lastStop }) => ({ name, device, ...lastStop }));
    try {
      const { devices } = await this.#ask(to, 'vm.report', { vm }, reportedSchema, REPORT_MS_MAX);
      return { stop, start: devices.map(({ name, state, reason, lastStart }) => ({ name, state, reason, ...lastStart })) };
    } catch (thrown) {
      return { stop, start: [], reason: NetbusError.from(thrown).message };
    }
  }

  #devicesOf(vm: string): AttachmentEntry[] {
    const entries = this.#options.entries().filter((entry) => entry.vm === vm);
    if (entries.length > 0) return entries;
    throw new NetbusError('not_found', `VM ${vm} has no device on this host: "netbus status" lists those that there are`);
  }

  /** A command that was killed is forgotten. */
  #find(vm: string): Running | undefined {
    const running = this.#running.get(vm);
    if (running === undefined || this.#options.clock.now() - running.heardAt < COMMAND_SILENT_MS_MAX) return running;
    this.#running.delete(vm);
    return undefined;
  }

  /** A release that knows nothing of hand-overs would end a VM's I/O half-way, as its destination and as its devices' host. */
  async #checkReleases(to: string, entries: readonly AttachmentEntry[]): Promise<void> {
    const { host, links } = this.#options;
    const others = new Set([to, ...entries.map(({ device }) => device.split('/')[0])]);
    others.delete(host);
    await Promise.all(
      [...others].map(async (name) => {
        const { release, features } = await links.welcomeOf(name, { timeoutMs: REPORT_MS_MAX });
        if (features.includes(HAND_OVER_FEATURE)) return;
        throw new NetbusError(
          'protocol',
          `host ${name} runs netbus ${release}, which does not know live migration: upgrade it`,
        );
      }),
    );
  }

  /** True where the destination was not prepared before. */
  async #prepare(vm: string, to: string, devices: readonly MigratingDevice[], check: boolean): Promise<boolean> {
    let answer: z.infer<typeof preparedSchema>;
    try {
      answer = await this.#ask(to, 'vm.prepare', { vm, check }, preparedSchema, PREPARE_MS_MAX);
    } catch (thrown) {
      const { code, message } = NetbusError.from(thrown);
      // It may have been carried out all the same; where it was not, there is nothing to take back.
      if (!check) await this.#takeBack(vm, to).catch(() => undefined);
      throw new NetbusError(code, `host ${to} cannot take VM ${vm}: ${message}`, { cause: thrown });
    }
    // A check makes nothing that could be compared.
    if (check) return false;
    const there = new Set(answer.devices.map(({ name }) => name));
    const missing = devices.filter(({ name }) => !there.has(name)).map(({ name }) => `${vm}/${name}`);
    if (missing.length === 0) return answer.prepared;
    if (answer.prepared) await this.#takeBack(vm, to).catch(() => undefined);
    throw new NetbusError('device', `host ${to} cannot take VM ${vm}: ${missing.join(', ')} would not be there`);
  }

  #takeBack(vm: string, to: string): Promise<JsonObject> {
    return this.#options.links.call(to, 'vm.unprepare', { vm }, { timeoutMs: REPORT_MS_MAX });
  }

  /** The peer is outside: what it answers is checked before anything is made of it. */
  async #ask<Schema extends z.ZodType>(
    host: string,
    method: string,
    params: object,
    schema: Schema,
    timeoutMs: number,
  ): Promise<z.output<Schema>> {
    const result = schema.safeParse(await this.#options.links.call(host, method, params, { timeoutMs }));
    if (result.success) return result.data as z.output<Schema>;
    throw new NetbusError('protocol', `host ${host} answered ${method} with something else`);
  }
}

/** Throws where a device is in no state to go. */
function checkDevices(vm: string, entries: readonly AttachmentEntry[]): void {
  for (const { name, device, state, reason } of entries) {
    const which = `${vm}/${name} (${device})`;
    const why = reason === undefined ? '' : `: ${reason}`;
    switch (state) {
      case 'standby':
        throw new NetbusError('in_use', `VM ${vm} is not here yet: ${which} stands by for it to come from another host`);
      case 'moved':
        throw new NetbusError('not_found', `VM ${vm} is not here any more: ${which} went to another host with it`);
      case 'connecting':
        throw new NetbusError('unreachable', `the device of ${which} is away${why}: migrate when it is back`);
      case 'failed':
      case 'closed':
        throw new NetbusError('device', `${which} is out of use${why}`);
      case 'idle':
      case 'active':
        break;
    }
  }
  if (!entries.some(({ connected }) => connected)) {
    throw new NetbusError('device', `VM ${vm} does not run here: no VMM is connected to its devices`);
  }
}

/** A device whose rings never began has nothing to hand over. */
function whyNotStopped({ vm, name, connected, lastStop, lastStart }: AttachmentEntry): string | undefined {
  // A daemon that was started again knows of no start, and its VMM has yet to come back.
  if (!connected) return `${vm}/${name} was not brought to rest by its VMM, which is not connected`;
  if (lastStart === undefined) return undefined;
  if (lastStop !== undefined && Date.parse(lastStop.at) >= Date.parse(lastStart.at)) return undefined;
  return `${vm}/${name} was not brought to rest by its VMM: their connection was lost, or a ring still runs`;
}

function notRunning(vm: string): NetbusError {
  return new NetbusError(
    'not_found',
    `no command of this host migrates VM ${vm}; where it was killed, cancel at QEMU's monitor: netbus migrate ${vm} --cancel --qmp SOCKET`,
  );
}
