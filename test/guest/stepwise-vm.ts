/**
 * A VM that is moved step by step, standing still meanwhile, so that a test can do something at each step. Each of its QEMUs has a memory of its own: one
 * that goes on where it was stopped finds nothing that another one did. Nothing of it changes while it is copied, so an emulated processor does no
 * harm there (see Traveller).
 */
import { join } from 'node:path';
import type { Cleanup } from '../support/cleanup.ts';
import type { Host } from '../support/hosts.ts';
import { waitFor } from '../support/wait.ts';
import { DebugPort, type PortPlace } from './debug-port.ts';
import { type Guest, startGuest } from './guest.ts';
import type { NetbusDisks } from './netbus-disks.ts';

/** Generous: they end what hangs, and say nothing about speed. */
const STEP_MS_MAX = 120_000;
const BANDWIDTH_BYTES_MAX = 4 * 1024 ** 3;

export interface StepwiseVmOptions {
  readonly name: string;
  readonly cleanup: Cleanup;
  readonly disks: NetbusDisks;
  /** What the guest says at this place. */
  readonly port: { readonly place: PortPlace; readonly port: DebugPort };
}

export class StepwiseVm {
  readonly #options: StepwiseVmOptions;
  #instances = 0;
  #host: Host;
  #guest!: Guest;

  static async boot(host: Host, options: StepwiseVmOptions): Promise<StepwiseVm> {
    const vm = new StepwiseVm(host, options);
    vm.#guest = await vm.#start(host, await options.disks.ready(host), false);
    options.cleanup.add(`the port of ${options.name}`, () => options.port.port.close());
    return vm;
  }

  private constructor(host: Host, options: StepwiseVmOptions) {
    this.#host = host;
    this.#options = options;
  }

  get host(): Host {
    return this.#host;
  }

  get guest(): Guest {
    return this.#guest;
  }

  /** It stands still, and its queues with it. */
  async stop(): Promise<void> {
    await this.#guest.qmp.execute('stop', {}, { timeoutMs: STEP_MS_MAX });
  }

  /** Here, or where a copy of it stands still. */
  async goOn(guest = this.#guest): Promise<void> {
    await guest.qmp.execute('cont', {}, { timeoutMs: STEP_MS_MAX });
  }

  /** A QEMU that waits for it. */
  async expect(to: Host): Promise<Guest> {
    return this.#start(to, await this.#options.disks.ready(to, this.#host), true);
  }

  /** One that stands still is there, too, and would go on there or here. */
  async copyTo(to: Host, expected?: Guest): Promise<Guest> {
    const there = expected ?? (await this.expect(to));
    const uri = `unix:${join(to.folder, `incoming-${this.#instances}`)}`;
    const { qmp } = this.#guest;
    await there.qmp.execute('migrate-incoming', { uri });
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': BANDWIDTH_BYTES_MAX });
    await qmp.execute('migrate', { uri });
    await waitFor('the state to be there', async () => (await statusOf(there)) === 'paused', STEP_MS_MAX);
    await waitFor('QEMU to be done with it here', async () => (await statusOf(this.#guest)) === 'postmigrate', STEP_MS_MAX);
    return there;
  }

  /** It is there for good. */
  async becomes(there: Guest, to: Host): Promise<void> {
    const from = this.#host;
    await this.#guest.quit();
    this.#guest = there;
    this.#host = to;
    await this.#options.disks.left(from);
  }

  async #start(host: Host, disks: readonly string[], incoming: boolean): Promise<Guest> {
    const { name, cleanup, port } = this.#options;
    const path = join(host.folder, `${name}-port-${++this.#instances}`);
    const argv = [...disks, ...DebugPort.arguments('witness', port.place, path)];
    const guest = await startGuest({ name, cleanup, host, incoming, arguments: argv });
    await port.port.connect(path);
    return guest;
  }
}

async function statusOf({ qmp }: Guest): Promise<string> {
  return ((await qmp.execute('query-status')) as { status: string }).status;
}
