/** What the migration with Netbus is compared with: the C program that does the local half of it today, and no disk at all. */
import { join } from 'node:path';
import { vhostUserDisk } from '../../test/guest/disks.ts';
import type { Disks } from '../../test/guest/traveller.ts';
import type { Cleanup } from '../../test/support/cleanup.ts';
import type { Host } from '../../test/support/hosts.ts';
import type { RunningProcess } from '../../test/support/process.ts';
import { startStorageDaemon } from '../../test/support/storage-daemon.ts';

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
