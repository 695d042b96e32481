/** `netbus migrate`: a VM and its devices go to another host, or everything stays as it was. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ControlClient } from '../api/client.ts';
import type { Follow, Followed } from '../api/jobs.ts';
import type { MigratingDevice, MigrationPhase, MigrationReport } from '../api/migration.ts';
import { NetbusError } from '../device/errors.ts';
import { DEFAULT_PORT, formatAddress, parseAddress } from '../lib/address.ts';
import { systemClock } from '../lib/clock.ts';
import { findPlugged } from '../vmm/hot-plug.ts';
import { liveMigrate, type MigrationResult, mayHaveGone } from '../vmm/live-migration.ts';
import { machineName } from '../vmm/machine.ts';
import { checkMigratable } from '../vmm/migratable.ts';
import { QmpConnection } from '../vmm/qmp-connection.ts';
import type { Context } from './context.ts';
import { DestinationCommand } from './destination-command.ts';
import { arrival, describeProgress, type Migrated, summarize } from './migrate-report.ts';

/** Where the destination's QEMU listens unless --uri says it. */
export const MIGRATION_PORT = 4444;
/** Between two words to the daemon, which tells whether another command wants it cancelled. */
const TELL_MS = 1_000;
/** How long the devices have at the destination before the report is made without them. */
const ARRIVAL_MS_MAX = 3_000;
const ARRIVAL_POLL_MS = 100;
const DISCONNECT_MS_MAX = 5_000;
const DISCONNECT_POLL_MS = 100;
/** QEMU's end after `quit`. */
const QUIT_MS_MAX = 10_000;

export interface MigrateRequest {
  readonly vm: string;
  readonly to: string;
  /** QEMU's QMP socket. */
  readonly path: string;
  readonly uri: string | undefined;
  /** The command that starts the destination's QEMU. */
  readonly start: string | undefined;
  readonly keepSource: boolean;
  readonly follow: readonly Follow[];
}

/** All that can be checked is checked before anything is changed; what fails or is interrupted later is undone, and the VM goes on here. */
export async function migrateVm(context: Context, request: MigrateRequest): Promise<Migrated> {
  const interrupted = context.interruptible();
  let qmp: QmpConnection | undefined;
  try {
    qmp = await QmpConnection.open({ path: request.path, clock: systemClock, signal: interrupted });
    const warnings = await check(context.client, qmp, request);
    interrupted.throwIfAborted();
    return await new Migration(context, qmp, request, interrupted, warnings).run();
  } catch (thrown) {
    if (!interrupted.aborted) throw thrown;
    // Before anything was begun there is nothing more to say.
    const { code, message } = NetbusError.from(thrown);
    const told = thrown instanceof NetbusError && qmp !== undefined;
    return context.endInterrupted(new NetbusError(code, told ? `interrupted: ${message}` : 'interrupted'));
  } finally {
    qmp?.close();
  }
}

/** Throws the reason where it cannot be done. Returns what the user should know. */
async function check(client: ControlClient, qmp: QmpConnection, { vm, to, follow }: MigrateRequest): Promise<string[]> {
  const warnings: string[] = [];
  await checkMigratable(qmp);
  const { devices } = await client.beginMigration(vm, {
    ...{ to, check: true },
    // A daemon that knows nothing of it need not be told that there is nothing.
    ...(follow.length > 0 && { follow: [...follow] }),
  });
  await checkPlugged(qmp, vm, devices);
  const name = await machineName(qmp);
  if (name !== undefined && name !== vm) warnings.push(`the QEMU at ${qmp.path} calls its VM "${name}", not "${vm}"`);
  return warnings;
}

/** The VM of another QEMU would be moved, and this one's devices with it. */
async function checkPlugged(qmp: QmpConnection, vm: string, devices: readonly MigratingDevice[]): Promise<void> {
  for (const { name, socket, connected } of devices) {
    if (!connected || (await findPlugged(qmp, socket)) !== undefined) continue;
    throw new NetbusError(
      'usage',
      `the QEMU at ${qmp.path} is not VM ${vm}, or not with all its devices: ${vm}/${name} (${socket}) is connected to another VMM`,
    );
  }
}

class Migration {
  readonly #context: Context;
  readonly #client: ControlClient;
  readonly #qmp: QmpConnection;
  readonly #request: MigrateRequest;
  readonly #warnings: string[];
  /** Aborts by Ctrl-C, by another command, and where the command of --start fails. */
  readonly #giveUp = new AbortController();
  readonly #over = new AbortController();
  #phase: MigrationPhase = 'preparing';
  /** Why it is given up, where that is not by Ctrl-C. */
  #reason: NetbusError | undefined;

  constructor(context: Context, qmp: QmpConnection, request: MigrateRequest, interrupted: AbortSignal, warnings: string[]) {
    this.#context = context;
    this.#client = context.client;
    this.#qmp = qmp;
    this.#request = request;
    this.#warnings = warnings;
    interrupted.addEventListener('abort', () => this.#giveUp.abort());
    if (interrupted.aborted) this.#giveUp.abort();
  }

  async run(): Promise<Migrated> {
    const { vm, to, start, uri = await this.#defaultUri() } = this.#request;
    const { devices } = await this.#client.beginMigration(vm, { to });
    let command: DestinationCommand | undefined;
    let result: MigrationResult;
    void this.#tell();
    try {
      if (start !== undefined) command = this.#start(start);
      result = await this.#migrate(uri);
    } catch (thrown) {
      this.#over.abort();
      // The reason of a cancellation stands before what became of it.
      const error = NetbusError.from(thrown);
      const told =
        this.#reason === undefined ? error : new NetbusError(this.#reason.code, `${this.#reason.message}; ${error.message}`);
      throw await this.#undo(told, command, mayHaveGone(thrown));
    }
    this.#over.abort();
    command?.release();
    const report = await this.#report(devices);
    const sourceEnded = this.#request.keepSource ? false : await this.#quit();
    await this.#client.endMigration(vm, to, { undo: false }).catch(() => undefined);
    const follows = await this.#follow();
    const { major, minor, micro } = this.#qmp.greeting.version;
    const place = { vm, to, uri, qemu: `${major}.${minor}.${micro}` };
    return summarize(place, result, report, { sourceEnded, follows, warnings: this.#warnings });
  }

  /** The destination's address in the member list, and a port that people use for this. */
  async #defaultUri(): Promise<string> {
    const { to } = this.#request;
    const { members } = await this.#client.members();
    const address = parseAddress(members.find(({ host }) => host === to)?.address ?? to) ?? { host: to, port: DEFAULT_PORT };
    return `tcp:${formatAddress({ host: address.host, port: MIGRATION_PORT })}`;
  }

  #start(line: string): DestinationCommand {
    const command = new DestinationCommand(line);
    void command.failed.then((error) => {
      // Once the guest's memory is on its way, the migration itself says what is wrong.
      if (this.#phase === 'preparing' || this.#phase === 'connecting') this.#abandon(error);
    });
    return command;
  }

  async #migrate(uri: string): Promise<MigrationResult> {
    const progress = this.#context.progress();
    const begun = systemClock.now();
    try {
      return await liveMigrate(this.#qmp, {
        uri,
        clock: systemClock,
        signal: this.#giveUp.signal,
        onProgress: (step) => {
          this.#phase = step.phase;
          progress?.at(step.phase, describeProgress(step, this.#request.to), systemClock.now() - begun);
        },
        atSwitchover: async () => {
          const { stopped, reasons } = await this.#client.switchover(this.#request.vm);
          if (!stopped) throw new NetbusError('device', reasons.join('; '));
        },
      });
    } finally {
      progress?.end();
    }
  }

  /** Tells the daemon that this command is alive, and hears whether another one wants it cancelled. */
  async #tell(): Promise<void> {
    const { signal } = this.#over;
    while (!signal.aborted) {
      try {
        const { cancel } = await this.#client.tellMigration(this.#request.vm, this.#phase);
        if (cancel) this.#abandon(new NetbusError('ended', 'cancelled by another command'));
      } catch {
        // A daemon that was restarted knows nothing of it: the switch-over asks it again.
      }
      await sleep(TELL_MS, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  #abandon(reason: NetbusError): void {
    if (this.#giveUp.signal.aborted) return;
    this.#reason = reason;
    this.#giveUp.abort();
  }

  /** Returns the error with what could not be undone. `gone`: the guest may be at the destination, where everything stays as it is. */
  async #undo(error: NetbusError, command: DestinationCommand | undefined, gone: boolean): Promise<NetbusError> {
    const { to } = this.#request;
    if (command !== undefined) {
      const output = command.output.trim();
      if (output !== '') this.#context.note(`netbus: the command of --start said:\n${output}\n`);
      if (gone) command.release();
      else await command.kill();
    }
    try {
      await this.#end(!gone);
      return error;
    } catch (thrown) {
      const left = `what was made ready at host ${to} may still be (${NetbusError.from(thrown).message}): see netbus status there`;
      return new NetbusError(error.code, `${error.message}; ${left}`, { cause: thrown });
    }
  }

  /** The destination's QEMU, which still has our sockets, ends a little after its migration did. */
  async #end(undo: boolean): Promise<void> {
    const { vm, to } = this.#request;
    const end = systemClock.now() + DISCONNECT_MS_MAX;
    for (;;) {
      try {
        return await this.#client.endMigration(vm, to, { undo });
      } catch (thrown) {
        if (NetbusError.from(thrown).code !== 'in_use' || systemClock.now() >= end) throw thrown;
      }
      await sleep(DISCONNECT_POLL_MS);
    }
  }

  /** Waits a little for the guest's first requests at the destination. */
  async #report(devices: readonly MigratingDevice[]): Promise<MigrationReport> {
    const { vm, to } = this.#request;
    const end = systemClock.now() + ARRIVAL_MS_MAX;
    let report: MigrationReport;
    for (;;) {
      // Not at once: what the daemons are asked now, the guest would wait for.
      await sleep(ARRIVAL_POLL_MS);
      try {
        report = await this.#client.migrationReport(vm, to);
      } catch (thrown) {
        report = {
          stop: devices.map(({ name, device }) => ({ name, device })),
          start: [],
          reason: NetbusError.from(thrown).message,
        };
      }
      const used = report.stop.filter(({ at }) => at !== undefined).map(({ name }) => name);
      const arrived = used.every((name) => arrival(report, name)?.stallMs !== undefined);
      if (arrived || report.reason !== undefined || systemClock.now() >= end) break;
    }
    if (report.reason !== undefined) this.#warnings.push(`how the devices are at host ${to} is not known: ${report.reason}`);
    for (const { name, state, reason, at } of report.start) {
      if (at === undefined && reason !== undefined) this.#warnings.push(`${vm}/${name} is ${state} at host ${to}: ${reason}`);
    }
    return report;
  }

  /** The VM has moved, whatever becomes of this. */
  async #follow(): Promise<readonly Followed[]> {
    const { vm, to, follow } = this.#request;
    if (follow.length === 0) return [];
    let follows: readonly Followed[];
    try {
      ({ follows } = await this.#client.followMigration(vm, { to, follow: [...follow] }));
    } catch (thrown) {
      follows = follow.map((each) => ({ ...each, reason: NetbusError.from(thrown).message }));
    }
    for (const { name, to: device, reason } of follows) {
      if (reason === undefined) continue;
      const command = `netbus swap ${vm}/${name} --to ${device}`;
      this.#warnings.push(`${vm}/${name} does not go to ${device} (${reason}): to have it do so, type "${command}" on ${to}`);
    }
    return follows;
  }

  /** True where QEMU has ended. */
  async #quit(): Promise<boolean> {
    const events = this.#qmp.events();
    try {
      await this.#qmp.execute('quit');
      await events.find(() => false, { timeoutMs: QUIT_MS_MAX });
    } catch (thrown) {
      const { code, message } = NetbusError.from(thrown);
      if (code === 'ended') return true;
      this.#warnings.push(`the QEMU at ${this.#qmp.path} was not ended (${message}): end it, and never let it go on`);
    } finally {
      events.close();
    }
    return false;
  }
}
