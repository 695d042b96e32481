/** Who has a guest's disk and brings it to another host: Netbus, or what it is compared with. */
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Guest } from '../../test/guest/guest.ts';
import { makeEmptyDisk } from '../../test/guest/root-disk.ts';
import type { Cluster } from '../../test/support/cluster.ts';
import type { SeededRandom } from '../../test/support/random.ts';
import type { Content, HostName, Step } from './plan.ts';

const MIB = 1024 * 1024;

export interface Swapped {
  /** From the command to the end of it, in milliseconds. */
  readonly wholeMs: number;
  /** From the pause to the answer of what waited, in milliseconds; left out by who does not say it. */
  readonly stallMs?: number;
}

export interface Swapper {
  /** Serves the image of a host. Returns QEMU's arguments for a guest that has it as its first disk. */
  begin(host: HostName): Promise<string[]>;
  /** Replaces it by the image of another host, which is empty; the guest works meanwhile. */
  swap(guest: Guest, step: Step): Promise<Swapped>;
  /** The guest has ended. */
  end(host: HostName): Promise<void>;
}

/** The images of one disk, of which one counts. */
export class Images {
  readonly name: string;
  readonly #cluster: Cluster;
  readonly #sizeMiB: number;

  constructor(cluster: Cluster, name: string, sizeGiB: number) {
    this.#cluster = cluster;
    this.name = name;
    this.#sizeMiB = Math.round(sizeGiB * 1024);
  }

  path(host: HostName): string {
    return join(this.#cluster.host(host).folder, `${this.name}.img`);
  }

  makeEmpty(host: HostName): void {
    makeEmptyDisk(this.path(host), this.#sizeMiB);
  }

  /** The first of them; what the guest works on stays empty. */
  async make(host: HostName, content: Content, workMiB: number, random: SeededRandom): Promise<void> {
    this.makeEmpty(host);
    if (content === 'sparse') return;
    const data = Buffer.alloc(MIB);
    for (let at = 0; at < data.length; at += 4) data.writeUInt32LE(random.below(2 ** 32), at);
    const file = await open(this.path(host), 'r+');
    try {
      for (let place = workMiB; place < this.#sizeMiB; place++) {
        data.writeUInt32LE(place, 0);
        await file.write(data, 0, data.length, place * MIB);
      }
    } finally {
      await file.close();
    }
  }

  remove(host: HostName): Promise<void> {
    return rm(this.path(host), { force: true });
  }
}
