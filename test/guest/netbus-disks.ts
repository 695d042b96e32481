/** The disk of a guest that moves, by Netbus: attached where it boots, prepared where it goes. */

import type { AttachmentEntry } from '../../src/api/types.ts';
import type { Cluster } from '../support/cluster.ts';
import type { Host } from '../support/hosts.ts';
import { waitFor } from '../support/wait.ts';
import type { Disks } from './traveller.ts';

/** Generous: it ends a wait that hangs, and says nothing about speed. */
const SETTLE_MS_MAX = 60_000;

/** What one move cost a device, by the clocks of the daemons on both sides. */
export interface Stalls {
  readonly drainMs: number;
  /** What the host that it left added, and the one that it came to. */
  readonly stopMs: number;
  readonly startMs: number;
  readonly outcome: 'clean' | 'cut';
}

/** An export, attached to the VM wherever it is. */
export class NetbusDisks implements Disks {
  readonly #cluster: Cluster;
  readonly #vm: string;
  /** `host/export`. */
  readonly #device: string;
  readonly #netbus: (host: string, ...argv: readonly string[]) => Promise<unknown>;

  /** `netbus` runs a command of a user's on a host, in the caller's own way. */
  constructor(
    cluster: Cluster,
    vm: string,
    device: string,
    netbus?: (host: string, ...argv: readonly string[]) => Promise<unknown>,
  ) {
    this.#cluster = cluster;
    this.#vm = vm;
    this.#device = device;
    this.#netbus = netbus ?? ((host, ...argv) => cluster.ask(host, ...argv));
  }

  async ready(host: Host, from?: Host): Promise<string[]> {
    const verb = from === undefined ? ['attach', this.#device, '--vm', this.#vm] : ['prepare', this.#vm, '--from', from.name];
    await this.#netbus(host.name, ...verb);
    return (await this.entry(host))!.qemuArguments;
  }

  async unready(host: Host): Promise<void> {
    await waitFor('the VMM to be gone', async () => !(await this.entry(host))?.connected, SETTLE_MS_MAX);
    await this.#netbus(host.name, 'prepare', this.#vm, '--cancel');
  }

  async left(host: Host): Promise<void> {
    await waitFor(
      `${host.name} to be rid of ${this.#vm}`,
      async () => {
        const entry = await this.entry(host);
        return entry === undefined || entry.state === 'idle';
      },
      SETTLE_MS_MAX,
    );
  }

  /** Of the latest move; the device has served the guest again. */
  async stalls(from: Host, to: Host): Promise<Stalls> {
    const stop = (await this.entry(from))?.lastStop;
    if (stop === undefined) throw new Error(`${from.name} does not say how the rings of ${this.#vm} were stopped`);
    const startMs = await waitFor(
      'the first request at the new place',
      async () => (await this.entry(to))?.lastStart?.stallMs,
      SETTLE_MS_MAX,
    );
    return { drainMs: stop.drainMs, stopMs: Math.max(0, stop.stallMs), startMs: Math.max(0, startMs), outcome: stop.outcome };
  }

  /** What the host's daemon says of it. */
  async entry(host: Host): Promise<AttachmentEntry | undefined> {
    const { attachments } = await this.#cluster.client(host.name).status();
    return attachments.find(({ vm }) => vm === this.#vm);
  }
}
