/** The same with today's tools: the guest's QEMU is an NBD client of nbdkit, with TLS, and its blockdev-mirror copies the disk. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Guest } from '../../test/guest/guest.ts';
import type { Cluster } from '../../test/support/cluster.ts';
import { makePeerCertificates } from '../../test/support/peer-certificates.ts';
import { waitForPort } from '../../test/support/port.ts';
import type { RunningProcess } from '../../test/support/process.ts';
import { TLS_PRIORITY } from '../../test/support/storage-daemon.ts';
import { HOSTS, type HostName, type Step, VM_HOST } from './plan.ts';
import type { Images, Swapped, Swapper } from './swapper.ts';

const PORT_FIRST = 10_900;
/** Requests of one connection that nbdkit serves at a time. */
const THREADS = 16;
/** Generous: it ends what hangs. In milliseconds. */
const MIRROR_MS_MAX = 30 * 60_000;
const JOB = 'swap';

let instances = 0;

export class QemuSwapper implements Swapper {
  readonly #cluster: Cluster;
  readonly #images: Images;
  readonly #servers = new Map<HostName, RunningProcess>();
  /** Of nbdkit's certificates, by host. */
  readonly #serverFolders = new Map<HostName, string>();
  #node = '';

  constructor(cluster: Cluster, images: Images) {
    this.#cluster = cluster;
    this.#images = images;
  }

  async begin(host: HostName): Promise<string[]> {
    const credentials: string[] = [];
    for (const remote of HOSTS.filter((name) => name !== VM_HOST)) {
      const { address, folder } = this.#cluster.host(remote);
      const place = join(folder, `nbd-${instances++}`);
      mkdirSync(place);
      const { serverDirectory, clientDirectory } = await makePeerCertificates(place, address);
      this.#serverFolders.set(remote, serverDirectory);
      const options = `id=${credentialsOf(remote)},endpoint=client,dir=${clientDirectory},priority=${TLS_PRIORITY}`;
      credentials.push('-object', `tls-creds-x509,${options}`);
    }
    const node = await this.#serve(host);
    this.#node = String(node['node-name']);
    return [...credentials, '-blockdev', JSON.stringify(node), '-device', `virtio-blk-pci,drive=${this.#node}`];
  }

  async swap({ qmp }: Guest, { from, to }: Step): Promise<Swapped> {
    const node = await this.#serve(to);
    const target = String(node['node-name']);
    await qmp.execute('blockdev-add', node);
    const events = qmp.events();
    try {
      const until = async (wanted: string) => {
        const { name, data } = await events.find(({ name }) => name.startsWith('BLOCK_JOB_'), { timeoutMs: MIRROR_MS_MAX });
        if (name !== wanted || data.error !== undefined)
          throw new Error(`the mirror to ${to}: ${name} ${data.error ?? ''}`.trim());
      };
      const beganAt = performance.now();
      await qmp.execute('blockdev-mirror', { 'job-id': JOB, device: this.#node, target, sync: 'full' });
      await until('BLOCK_JOB_READY');
      await qmp.execute('block-job-complete', { device: JOB });
      await until('BLOCK_JOB_COMPLETED');
      const wholeMs = performance.now() - beganAt;
      await qmp.execute('blockdev-del', { 'node-name': this.#node });
      this.#node = target;
      await this.end(from);
      return { wholeMs };
    } finally {
      events.close();
    }
  }

  async end(host: HostName): Promise<void> {
    await this.#servers.get(host)?.stop();
    this.#servers.delete(host);
  }

  /** Begins to serve the image of a host, where that is another one. Returns QEMU's block device on it. */
  async #serve(name: HostName): Promise<Record<string, string | object>> {
    const host = this.#cluster.host(name);
    const image = this.#images.path(name);
    const common = { 'node-name': `disk${instances++}`, discard: 'unmap' };
    if (name === VM_HOST) return { ...common, driver: 'file', filename: image };
    const port = String(PORT_FIRST + instances);
    const tls = ['--tls=require', `--tls-certificates=${this.#serverFolders.get(name)}`, '--tls-verify-peer'];
    const server = host.spawn(['nbdkit', '-f', '-t', String(THREADS), '-i', host.address, '-p', port, ...tls, 'file', image]);
    this.#servers.set(name, server);
    await waitForPort(server.pid, host.address, Number(port));
    const at = { type: 'inet', host: host.address, port };
    return { ...common, driver: 'nbd', server: at, 'tls-creds': credentialsOf(name) };
  }
}

function credentialsOf(host: HostName): string {
  return `tls-${host}`;
}
