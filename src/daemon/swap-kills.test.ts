/** The five steps of a hot-swap under kills and cuts: whoever goes away, at whatever moment, the guest goes on with exactly one disk that has all that it wrote. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Cluster, type ClusterHost, proxyBetween } from '../../test/support/daemon/cluster.ts';
import { DiskWriter } from '../../test/support/daemon/disk-writer.ts';
import { type StoredStep, StoreFaults } from '../../test/support/daemon/store-faults.ts';
import { CLEAR_WIRE, type TcpProxy } from '../../test/support/tcp-proxy.ts';
import { VhostUserFrontend } from '../../test/support/vhost-user/frontend.ts';
import { waitFor as waitForWithin } from '../../test/support/wait.ts';
import type { JobEntry } from '../api/jobs.ts';

const BYTES = 1024 * 1024;
const SEED = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
/** Generous: it ends a test that hangs and says nothing about speed. */
const WAIT_MS_MAX = 120_000;
const TEST = { timeout: 600_000 };
const waitFor = <T>(what: string, probe: () => T | undefined | false | Promise<T | undefined | false>) =>
  waitForWithin(what, probe, WAIT_MS_MAX);

/** A guest of `vm` whose disk goes from `old` to `next`; all that these two say to each other can be cut. */
class World {
  faults!: StoreFaults;
  cluster!: Cluster;
  old!: ClusterHost;
  vm!: ClusterHost;
  next!: ClusterHost;
  guest!: DiskWriter;
  readonly #proxies = new Map<ClusterHost, TcpProxy>();

  async open(): Promise<void> {
    this.cluster = await Cluster.make('m1', 'm2', 'm3');
    this.faults = new StoreFaults(this.cluster.folder);
    [this.old, this.vm, this.next] = ['m1', 'm2', 'm3'].map((name) => this.cluster.host(name));
    for (const host of [this.old, this.next]) this.#proxies.set(host, await proxyBetween(this.vm, host.name));
    for (const host of this.hosts) {
      await host.start();
      await host.client.export({ name: 'data', disk: host.image('data.img', BYTES), allow: ['m1', 'm2', 'm3'] });
    }
    const { socket } = await this.vm.client.attach({ device: `${this.old.name}/data`, vm: 'web', name: 'disk' });
    const frontend = await VhostUserFrontend.connect(socket, { reconnects: true });
    this.guest = new DiskWriter(frontend, { bytes: BYTES, seed: SEED });
    await this.guest.write(20);
    this.guest.run();
  }

  async close(): Promise<void> {
    this.faults?.close();
    this.guest?.kill();
    await this.cluster.close();
    for (const proxy of this.#proxies.values()) await proxy.close();
  }

  get hosts(): ClusterHost[] {
    return [...this.cluster.hosts.values()];
  }

  /** Between the VM's host and `host`; all of the VM's host where it is that one. */
  cut(host: ClusterHost, isCut: boolean): void {
    for (const [peer, proxy] of this.#proxies) {
      if (host === peer || host === this.vm) proxy.set({ ...CLEAR_WIRE, cut: isCut });
    }
  }

  /** What it stores and says from this moment on never was. */
  kill(host: ClusterHost): void {
    this.faults.kill(host);
    this.cut(host, true);
  }

  async startAgain(host: ClusterHost, bootId?: string): Promise<void> {
    await host.stop();
    this.faults.revive(host);
    this.cut(host, false);
    await host.start(bootId);
    if (host === this.vm) await this.guest.reconnect();
  }

  device(): Promise<string> {
    return this.vm.client.status().then(({ attachments }) => attachments[0].device);
  }

  swap(): Promise<JobEntry> {
    return this.vm.client.swap('web', 'disk', { to: `${this.next.name}/data`, overwrite: true });
  }

  /** However the first one was answered, there is a job, or another one is begun. */
  async done(asked: Promise<JobEntry | Error>): Promise<JobEntry> {
    const answer = await asked;
    let last: unknown = answer;
    return waitFor('the swap is done', async () => {
      if ((await this.device()) === `${this.old.name}/data` && (await this.running()) === undefined) {
        last = await this.swap().catch((thrown: unknown) => thrown);
        return undefined;
      }
      const { jobs } = await this.vm.client.jobs();
      const job = jobs.reduce((newest, other) => (Number(other.id.slice(1)) > Number(newest.id.slice(1)) ? other : newest));
      last = job;
      return job.state !== 'running' && job;
    }).catch((thrown: unknown) => assert.fail(`${thrown}: ${JSON.stringify(last)}`));
  }

  async running(): Promise<JobEntry | undefined> {
    return (await this.vm.client.jobs()).jobs.find(({ state }) => state === 'running');
  }

  /** The guest is with the new disk, which has everything, and the old one is nobody's. The next swap goes the other way. */
  async checkSwapped(): Promise<void> {
    await this.guest.write(10);
    await this.checkOne(this.next, this.old);
    [this.old, this.next] = [this.next, this.old];
  }

  async checkOne(used: ClusterHost, stale: ClusterHost): Promise<void> {
    await this.guest.pause();
    assert.equal(await this.device(), `${used.name}/data`);
    const image = readFileSync(join(used.folder, 'data.img'));
    assert.ok(image.equals(this.guest.model), 'what the guest was told is written is on its disk');
    const attach = (host: ClusterHost) => host.client.attach({ device: `${host.name}/data`, vm: 'other', name: 'disk' });
    await assert.rejects(attach(stale), { code: 'in_use', message: /--force-stale/ });
    await assert.rejects(attach(used), { code: 'in_use' });
    this.guest.run();
  }
}

const steps: readonly [StoredStep, 'old' | 'next' | 'vm'][] = [
  ['copied', 'old'],
  ['filling', 'next'],
  ['complete', 'next'],
  ['swap', 'vm'],
  ['handing-over', 'old'],
  ['decided', 'next'],
  ['finishing', 'vm'],
  ['superseded', 'old'],
];

const whats = { wire: 'the wire is cut', host: 'its daemon is killed', vm: 'the VM’s daemon is killed' };

/** As many as are looked at at the same time: most of what they do is to wait. */
describe(`a hot-swap (SEED=${SEED})`, { concurrency: 3 }, () => {
  for (const when of ['before', 'after'] as const) {
    for (const who of ['wire', 'host', 'vm'] as const) {
      describe(`${whats[who]} ${when} each step`, { concurrency: 1 }, () => {
        const world = new World();
        before(() => world.open());
        after(() => world.close());
        for (const [step, at] of steps) {
          if (at === 'vm' && who !== 'host') continue;
          test(`${when} ${step}: ${whats[who]}`, TEST, async () => {
            const host = world[at];
            const gone = who === 'vm' ? world.vm : host;
            const hit = world.faults.at({ host, step, when }, () => {
              if (who === 'wire') world.cut(host, true);
              else world.kill(gone);
            });
            const asked = world.swap().catch((thrown: Error) => thrown);
            await hit;
            if (who === 'wire') world.cut(host, false);
            else await world.startAgain(gone);
            const job = await world.done(asked);
            assert.equal(job.state, 'done', JSON.stringify(job));
            await world.checkSwapped();
          });
        }
      });
    }
  }
});
