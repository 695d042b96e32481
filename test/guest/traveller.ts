/**
 * A guest that moves from host to host while it works, and what stands behind its disk on each of them.
 *
 * Its memory is a file that both QEMUs have, and is not copied. An emulated processor's writes are not all noted while memory is copied: with QEMU 7.2
 * guests without any disk came out of it with a broken kernel now and then. A disk's part in a migration is the same either way: what it writes to
 * guest memory is noted (src/frontends/vhost-user/dirty-log.ts has the tests of that).
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from '../support/hosts.ts';
import { DebugPort, type PortPlace, Ticks } from './debug-port.ts';
import { type Guest, type GuestOptions, startGuest } from './guest.ts';
import { type GuestMigration, keepMemory, type MigrateOptions, migrateGuest } from './migrate.ts';

/** Where incoming QEMUs listen; each takes the next. */
const PORT_FIRST = 7470;
/** Guests' memory: all hosts see it, and it is no disk. */
const MEMORY_FOLDER = '/dev/shm';

/** The disks of a guest at any host. */
export interface Disks {
  /** Makes them ready for the guest's start, or for its arrival from another host. Returns QEMU's arguments. */
  ready(host: Host, from?: Host): Promise<string[]>;
  /** The guest did not come: takes back what `ready` did. */
  unready(host: Host): Promise<void>;
  /** The guest has gone, and its QEMU there too. */
  left(host: Host): Promise<void>;
}

export interface TravellerOptions extends Omit<GuestOptions, 'host' | 'incoming' | 'arguments'> {
  readonly disks: Disks;
  /** Lines from the guest, by the port that they come at. */
  readonly ports?: readonly { readonly place: PortPlace; readonly port: DebugPort }[];
}

export interface MoveOptions {
  /** A QEMU that `expect` gave, instead of a new one. */
  readonly there?: Guest;
  /** As that of `migrateGuest`, with the QEMU that waits. */
  readonly atSwitchover?: (there: Guest) => Promise<boolean>;
  /** Looks at both places before the old QEMU ends. */
  readonly arrived?: (from: Host, to: Host) => Promise<void>;
}

let instances = 0;

export class Traveller {
  readonly ticks = new Ticks();
  readonly #options: TravellerOptions;
  readonly #memoryFile: string;
  #host: Host;
  #guest: Guest | undefined;
  readonly #monitors = new WeakMap<Guest, string>();

  /** Boots it on a host; with the kernel of the test guests it ticks from then on. */
  static async boot(host: Host, options: TravellerOptions): Promise<Traveller> {
    const traveller = new Traveller(host, options);
    traveller.#guest = await traveller.#start(host, await options.disks.ready(host), false);
    if (options.boot !== 'disk') await traveller.guest.succeed('/sbin/ticker </dev/null >/dev/null 2>&1 &');
    return traveller;
  }

  private constructor(host: Host, options: TravellerOptions) {
    this.#host = host;
    this.#options = options;
    const folder = mkdtempSync(join(MEMORY_FOLDER, 'nb-memory-'));
    options.cleanup.add(folder, () => rmSync(folder, { recursive: true, force: true }));
    this.#memoryFile = join(folder, 'memory');
    options.cleanup.add(`the ports of guest ${options.name}`, () => this.#closePorts());
  }

  /** Where it is. */
  get host(): Host {
    return this.#host;
  }

  get guest(): Guest {
    return this.#guest!;
  }

  /** A second monitor of its QEMU, for whoever else drives it. */
  get monitorPath(): string {
    return this.#monitors.get(this.guest)!;
  }

  /** A QEMU that waits for it at another host. */
  async expect(to: Host): Promise<Guest> {
    const disks = await this.#options.disks.ready(to, this.#host);
    try {
      return await this.#start(to, disks, true);
    } catch (thrown) {
      await this.#options.disks.unready(to);
      throw thrown;
    }
  }

  /** Moves to another host. Rejects where it did not, with the guest at its old place. */
  move(to: Host, options: MoveOptions = {}): Promise<GuestMigration> {
    return this.moveBy(migrateGuest, to, options);
  }

  /** The same, driven by somebody else. */
  async moveBy<Result>(
    migrate: (here: Guest, there: Guest, options: MigrateOptions) => Promise<Result>,
    to: Host,
    options: MoveOptions = {},
  ): Promise<Result> {
    const from = this.#host;
    const here = this.guest;
    const there = options.there ?? (await this.expect(to));
    const { atSwitchover } = options;
    let migration: Result;
    try {
      await keepMemory(here, there);
      const uri = `tcp:${to.address}:${PORT_FIRST + instances++}`;
      migration = await migrate(here, there, { uri, ...(atSwitchover && { atSwitchover: () => atSwitchover(there) }) });
    } catch (thrown) {
      await this.giveUp(to, there);
      throw thrown;
    }
    this.#host = to;
    this.#guest = there;
    await options.arrived?.(from, to);
    await here.quit();
    await this.#options.disks.left(from);
    return migration;
  }

  /** It is not going there. */
  async giveUp(to: Host, there: Guest): Promise<void> {
    await there.kill();
    await this.#options.disks.unready(to);
  }

  /** Switches it on again where it was, after its QEMU has ended. */
  async restart(): Promise<Guest> {
    rmSync(this.#memoryFile);
    this.#guest = await this.#start(this.#host, await this.#options.disks.ready(this.#host), false);
    return this.#guest;
  }

  async powerOff(): Promise<void> {
    await this.guest.powerOff();
    this.#closePorts();
    await this.#options.disks.left(this.#host);
  }

  async #start(host: Host, disks: readonly string[], incoming: boolean): Promise<Guest> {
    const { ports = [], ...options } = this.#options;
    const ticks = join(host.folder, `ticks-${instances}`);
    const monitor = join(host.folder, `qmp-${instances}`);
    const others = ports.map(({ place, port }, i) => ({ place, port, path: join(host.folder, `port-${instances}-${i}`) }));
    instances++;
    const debugPorts = others.flatMap(({ place, path }, i) => DebugPort.arguments(`port${i}`, place, path));
    const guest = await startGuest({
      ...options,
      host,
      incoming,
      memoryFile: this.#memoryFile,
      arguments: [...disks, ...Ticks.arguments(ticks), ...debugPorts, '-qmp', `unix:${monitor},server=on,wait=off`],
    });
    this.#monitors.set(guest, monitor);
    await this.ticks.connect(ticks);
    for (const { port, path } of others) await port.connect(path);
    return guest;
  }

  #closePorts(): void {
    this.ticks.close();
    for (const { port } of this.#options.ports ?? []) port.close();
  }
}
