/** The disk of a guest by Netbus, and `netbus swap`. */
import type { AttachmentEntry } from '../../src/api/types.ts';
import type { Guest } from '../../test/guest/guest.ts';
import type { Cluster } from '../../test/support/cluster.ts';
import { waitFor } from '../../test/support/wait.ts';
import { HOSTS, type HostName, type Step, VM_HOST } from './plan.ts';
import type { Images, Swapped, Swapper } from './swapper.ts';

/** Generous: they end what hangs. In milliseconds. */
const SWAP_MS_MAX = 30 * 60_000;
const SETTLE_MS_MAX = 60_000;

export class NetbusSwapper implements Swapper {
  readonly #cluster: Cluster;
  readonly #vm: string;
  readonly #images: Images;

  constructor(cluster: Cluster, vm: string, images: Images) {
    this.#cluster = cluster;
    this.#vm = vm;
    this.#images = images;
  }

  async begin(host: HostName): Promise<string[]> {
    await this.#export(host);
    const entry = await this.#cluster.ask<AttachmentEntry>(VM_HOST, 'attach', this.#device(host), '--vm', this.#vm);
    return entry.qemuArguments;
  }

  async swap(_guest: Guest, { from, to }: Step): Promise<Swapped> {
    await this.#export(to);
    const client = this.#cluster.client(VM_HOST);
    const { id } = await client.swap(this.#vm, this.#images.name, { to: this.#device(to) });
    const job = await waitFor(
      `the swap to ${to}`,
      async () => {
        const entry = await client.job(id);
        return entry.endedAt !== undefined && entry;
      },
      SWAP_MS_MAX,
    );
    if (job.state !== 'done') throw new Error(`the swap to ${to} ${job.state}: ${job.reason}`);
    await this.#cluster.ask(from, 'unexport', this.#images.name);
    const stallMs = job.progress?.stallMs;
    return { wholeMs: Date.parse(job.endedAt!) - Date.parse(job.createdAt), ...(stallMs !== undefined && { stallMs }) };
  }

  async end(host: HostName): Promise<void> {
    const attachment = `${this.#vm}/${this.#images.name}`;
    await this.#cluster.waitForAttachment(VM_HOST, attachment, ({ connected }) => !connected, SETTLE_MS_MAX);
    await this.#cluster.ask(VM_HOST, 'detach', attachment);
    await this.#cluster.ask(host, 'unexport', this.#images.name);
  }

  #export(host: HostName): Promise<unknown> {
    const { name } = this.#images;
    return this.#cluster.ask(host, 'export', name, '--disk', this.#images.path(host), '--allow', HOSTS.join(','));
  }

  #device(host: HostName): string {
    return `${host}/${this.#images.name}`;
  }
}
