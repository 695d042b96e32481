/** What can stand behind the disk of the guest that migrates: Netbus, the C program that does the local half of it today, and nothing. */
import { join } from 'node:path';
import type { AttachmentEntry } from '../../src/api/types.ts';
import { vhostUserDisk } from '../../test/guest/disks.ts';
import type { Disks } from '../../test/guest/traveller.ts';
import type { Cleanup } from '../../test/support/cleanup.ts';
import type { Cluster } from '../../test/support/cluster.ts';
import type { Host } from '../../test/support/hosts.ts';
import type { RunningProcess } from '../../test/support/process.ts';
import { startStorageDaemon } from '../../test/support/storage-daemon.ts';
import { waitFor } from '../../test/support/wait.ts';

/** Generous: it ends a wait that hangs, and says nothing about speed. */
const SETTLE_MS_MAX = 60_000;

/** What one move cost a device, by the clocks of the daemons on both sides. */
export interface Stalls {
  readonly drainMs: number;
  /** At the stop and at the start together. */
  readonly addedMs: number;
  readonly outcome: 'clean' | 'cut';
}

/** An export, attached to the VM wherever it is. */
export class NetbusDisks implements Disks {
  readonly #cluster: Cluster;
  readonly #vm: string;
  /** `host/export`. */
  readonly #device: string;

  constructor(cluster: Cluster, vm: string, device: string) {
    this.#cluster = cluster;
    this.#vm = vm;
    this.#device = device;
  }

  async ready(host: Host, from?: Host): Promise<string[]> {
    if (from === undefined) {
      const entry = await this.#cluster.ask<AttachmentEntry>(host.name, 'attach', this.#device, '--vm', this.#vm);
      return entry.qemuArguments;
    }
    await this.#cluster.ask(host.name, 'prepare', this.#vm, '--from', from.name);
    return (await this.#entry(host))!.qemuArguments;
  }

  async unready(host: Host): Promise<void> {
    await waitFor('the VMM to be gone', async () => !(await this.#entry(host))?.connected, SETTLE_MS_MAX);
    await this.#cluster.ask(host.name, 'prepare', this.#vm, '--cancel');
  }

  async left(host: Host): Promise<void> {
    await waitFor(
      `${host.name} to be rid of ${this.#vm}`,
      async () => {
        const entry = await this.#entry(host);
        return entry === undefined || entry.state === 'idle';
      },
      SETTLE_MS_MAX,
    );
  }

  /** Of the latest move; the device has served the guest again. */
  async stalls(from: Host, to: Host): Promise<Stalls> {
    const stop = (await this.#entry(from))?.lastStop;
    if (stop === undefined) throw new Error(`${from.name} does not say how the rings of ${this.#vm} were stopped`);
    const startMs = await waitFor(
      'the first request at the new place',
      async () => (await this.#entry(to))?.lastStart?.stallMs,
      SETTLE_MS_MAX,
    );
    return { drainMs: stop.drainMs, addedMs: Math.max(0, stop.stallMs + startMs), outcome: stop.outcome };
  }

  async #entry(host: Host): Promise<AttachmentEntry | undefined> {
    const { attachments } = await this.#cluster.client(host.name).status();
    return attachments.find(({ vm }) => vm === this.#vm);
  }
}

/** A storage daemon of QEMU's on each host, all on one image that all of them see. */
export class StorageDaemonDisks implements Disks {
  readonly #cleanup: Cleanup;
  readonly #imagePath: string;
  readonly #daemons = new Map<string, RunningProcess>();

  constructor(cleanup: Cleanup, imagePath: string) {
    this.#cleanup = cleanup;
    this.#imagePath = imagePath;
  }

  async ready(host: Host): Promise<string[]> {
    const socketPath = join(host.runDir, 'peer.sock');
    const backend = { kind: 'file', imagePath: this.#imagePath, shared: true } as const;
    this.#daemons.set(host.name, await startStorageDaemon({ cleanup: this.#cleanup, socketPath, queues: 1, backend, host }));
    return vhostUserDisk({ id: 'disk0', socket: socketPath });
  }

  unready(host: Host): Promise<void> {
    return this.left(host);
  }

  async left(host: Host): Promise<void> {
    await this.#daemons.get(host.name)?.stop();
    this.#daemons.delete(host.name);
  }
}

/** None: what the migration costs by itself. */
export class NoDisks implements Disks {
  async ready(): Promise<string[]> {
    return [];
  }

  async unready(): Promise<void> {}

  async left(): Promise<void> {}
}
