/**
 * A host of the namespaces that loses its power without being a machine of its own. What its programs flushed outlives that, and nothing else: its images
 * and the state of its daemon are on a file system of their own, of which a loss leaves what had reached the block device below it (an image of that
 * moment, as a disk is found when the power is back). All kernels are this machine's, which goes on, so the boot id is a file of ours.
 */
import { randomUUID } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Cluster } from './cluster.ts';
import type { Host } from './hosts.ts';
import { runOk } from './process.ts';
import { waitFor } from './wait.ts';

const STORAGE_MIB = 64;
/** Generous: it ends a wait that hangs and says nothing about speed. */
const END_MS_MAX = 60_000;

export class PoweredHost {
  readonly host: Host;
  readonly #cluster: Cluster;
  #losses = 0;

  /** Before its daemon is started for the first time. */
  static async make(cluster: Cluster, host: Host): Promise<PoweredHost> {
    const powered = new PoweredHost(cluster, host);
    mkdirSync(powered.#storage);
    writeFileSync(powered.#bootId, `${randomUUID()}\n`);
    await runOk(['truncate', '-s', `${STORAGE_MIB}M`, powered.#disk]);
    await runOk(['mkfs.ext4', '-q', '-F', powered.#disk]);
    await powered.#inside(`
      mount --bind ${powered.#bootId} /proc/sys/kernel/random/boot_id
      ${powered.#mount}
      mkdir ${powered.#storage}/state`);
    await powered.#inside(powered.#mountState);
    return powered;
  }

  private constructor(cluster: Cluster, host: Host) {
    this.#cluster = cluster;
    this.host = host;
  }

  /** For images: the path is the host's own. */
  imagePath(name: string): string {
    return join(this.#storage, name);
  }

  /** Everything that runs there is gone at once. `silently`: others hear nothing of it, as the network is gone, too. */
  async losePower({ silently = false } = {}): Promise<void> {
    const { name } = this.host;
    if (silently) await this.#inside('ip link set eth0 down');
    const daemon = this.#cluster.daemon(name);
    daemon.signal('SIGKILL');
    await daemon.exited;
    const before = this.#disk;
    this.#losses++;
    // Before anything else can make the old one write what it has in memory.
    await runOk(['cp', '--sparse=always', before, this.#disk]);
    writeFileSync(this.#bootId, `${randomUUID()}\n`);
    // A descriptor of a program that was killed may be closed a moment later.
    await waitFor(
      `the file systems of ${name} to be let go`,
      () =>
        this.#inside(`umount ${this.host.stateDir} && umount ${this.#storage}`).then(
          () => true,
          () => false,
        ),
      END_MS_MAX,
    );
    rmSync(before);
    await this.#inside(`rm -rf ${this.host.runDir}/* && ${this.#mount} && ${this.#mountState}`);
  }

  /** Its daemon starts. */
  async boot(): Promise<void> {
    await this.#inside('ip link set eth0 up');
    await this.#cluster.startDaemon(this.host);
  }

  get #disk(): string {
    return join(this.host.folder, `disk-${this.#losses}`);
  }

  get #storage(): string {
    return join(this.host.folder, 'storage');
  }

  get #bootId(): string {
    return join(this.host.folder, 'boot-id');
  }

  get #mount(): string {
    return `mount -o loop ${this.#disk} ${this.#storage}`;
  }

  get #mountState(): string {
    return `mount --bind ${this.#storage}/state ${this.host.stateDir}`;
  }

  async #inside(commands: string): Promise<void> {
    await runOk(this.host.command(['sh', '-ec', commands]));
  }
}
