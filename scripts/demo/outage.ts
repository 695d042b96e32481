/** The outage demo's story: a guest copies files and verifies them while everything below its disk fails, one after the other. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { AttachmentEntry } from '../../src/api/types.ts';
import { formatTable } from '../../src/lib/format.ts';
import { DebugPort } from '../../test/guest/debug-port.ts';
import type { DeviceHost } from '../../test/guest/device-host.ts';
import { type Guest, startGuest } from '../../test/guest/guest.ts';
import type { Cleanup } from '../../test/support/cleanup.ts';
import type { Cluster } from '../../test/support/cluster.ts';
import { hostKind } from '../../test/support/hosts.ts';
import { CLEAR_WIRE } from '../../test/support/tcp-proxy.ts';
import { waitFor } from '../../test/support/wait.ts';
import type { Wire } from '../../test/support/wire.ts';
import { pathBetween, wireCluster } from '../../test/support/wired-cluster.ts';
import { CopyWork } from './copy-work.ts';
import { netbus } from './disk.ts';
import type { Story } from './story.ts';
import { type Happening, pauseMs, textTimeline, writePicture } from './timeline.ts';

/** How long the network is cut and a killed daemon is away, in milliseconds. */
const CUT_MS = 3_000;
const AWAY_MS = 1_000;
/** Undisturbed work between two outages, in milliseconds. */
const CALM_MS = 1_500;
/** An attachment has to be in use again within this time after an outage: it bounds a hang and says nothing about speed. */
const BACK_MS_MAX = 60_000;
const DISK_MIB = 128;

export interface OutageResult {
  /** Files that were copied, read back and found equal. */
  copies: number;
  /** Copies that failed or came back different, and complaints of the guest's kernel. */
  errors: number;
  /** The guest's longest pause at each outage, in milliseconds. */
  pausesMs: Record<string, number>;
  /** The picture. */
  svg: string;
}

export interface OutageStory {
  readonly cluster: Cluster;
  readonly result: OutageResult;
}

export async function tellOutageStory(story: Story, cleanup: Cleanup): Promise<OutageStory> {
  const { kind, reason } = await hostKind();
  if (kind !== 'namespace') throw new Error(`the hosts of this demo are namespaces: ${reason}`);
  const program = process.env.NETBUS_PROGRAM;
  if (!program || !existsSync(program)) throw new Error('the built program is missing: run this by "npm run demo -- outage"');

  story.step('A host with a disk that can lose its power, and a host for a virtual machine');
  const { cluster, wire, machines } = await wireCluster(['m1', 'm2'], { cleanup, machines: ['m1'], program });
  const [m1, m2] = [machines.get('m1')!, cluster.host('m2')];
  story.say('m1 is a machine of its own (QEMU), with its own kernel, memory and disk. The network between the two is ours.');
  await Promise.all([m1.boot(), cluster.startDaemon(m2)]);
  await inMachine(story, m1, `truncate -s ${DISK_MIB}M /srv/data.img`);
  story.command('m1', 'netbus export data --disk /srv/data.img --allow m2');
  story.output(await m1.netbus('export', 'data', '--disk', '/srv/data.img', '--allow', 'm2'));
  await netbus(story, cluster, 'm2', 'attach', 'm1/data', '--vm', 'web');

  story.step('A guest on m2 copies files to the disk of m1 and verifies each');
  const work = new CopyWork();
  const guest = await boot(cluster, 'm2', work.port, cleanup);
  await work.start(guest);
  await rest(CALM_MS);
  story.good(`${work.copies} files copied so far`);

  const outages = new Outages(story, work);
  await outages.happens('the network is cut', () => cut(story, wire));
  await outages.happens('the daemon of m2 is killed', () => killOwn(story, cluster));
  await outages.happens('the daemon of m1 is killed', () => killFar(story, m1));
  await outages.happens('m1 loses its power', () => losePower(story, m1, wire));

  story.step('The guest stops, and its kernel is asked');
  const errors = await work.finish(guest);
  const status = await cluster.client('m2').status();
  const entry = status.attachments.find(({ vm }) => vm === 'web');
  if (entry?.state !== 'active') throw new Error(`web/data is ${entry?.state}: ${entry?.reason}`);
  if (errors.length > 0) throw new Error(`the guest noticed: ${errors.join('; ')}`);
  story.good(`${work.copies} files copied and verified, none was wrong, and the kernel has nothing to say of its disk`);
  return { cluster, result: outages.tell(errors.length) };
}

/** The outages, one after the other, and what came of them. */
class Outages {
  readonly #story: Story;
  readonly #work: CopyWork;
  readonly #happenings: Happening[] = [];

  constructor(story: Story, work: CopyWork) {
    this.#story = story;
    this.#work = work;
  }

  async happens(what: string, body: () => Promise<void>): Promise<void> {
    this.#story.step(`${what.charAt(0).toUpperCase()}${what.slice(1)}`);
    const fromMs = this.#work.now;
    await body();
    const toMs = this.#work.now;
    const before = this.#work.copies;
    await waitFor('the guest to go on', () => this.#work.copies > before + 1, BACK_MS_MAX);
    const backMs = this.#work.now - toMs;
    this.#happenings.push({ what, fromMs, toMs });
    this.#story.good(`the guest goes on, ${(backMs / 1000).toFixed(1)} s after the cause was gone`);
    await rest(CALM_MS);
  }

  tell(errors: number): OutageResult {
    const timeline = { doneAtMs: this.#work.doneAtMs, happenings: this.#happenings, endMs: this.#work.now };
    const pauses = this.#happenings.map((happening) => ({
      ...happening,
      pausedMs: Math.round(pauseMs(timeline, happening)),
    }));
    const title = 'Files that a guest copied and verified, while everything below its disk failed';
    const svg = writePicture('outage', timeline, title);
    const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
    this.#story.title('\nWhat the guest noticed:');
    this.#story.say(textTimeline(timeline));
    this.#story.say(
      `\n${formatTable(
        ['', 'IT LASTED', 'THE GUEST PAUSED', 'ERRORS'],
        pauses.map(({ what, fromMs, toMs, pausedMs }) => [what, seconds(toMs - fromMs), seconds(pausedMs), '0']),
      )}`,
    );
    this.#story.say(`\nAs a picture: ${svg}`);
    const pausesMs = Object.fromEntries(pauses.map(({ what, pausedMs }) => [what, pausedMs]));
    return { copies: this.#work.copies, errors, pausesMs, svg };
  }
}

/** A guest with all that is attached on a host. */
async function boot(cluster: Cluster, hostName: string, port: DebugPort, cleanup: Cleanup): Promise<Guest> {
  const host = cluster.host(hostName);
  const { attachments } = await cluster.client(hostName).status();
  const disks = attachments.flatMap(({ qemuArguments }: AttachmentEntry) => qemuArguments);
  const socket = join(host.folder, 'copies');
  const serial = DebugPort.arguments('copies', 'serial', socket);
  const guest = await startGuest({ name: 'web', cleanup, host, arguments: [...disks, ...serial] });
  cleanup.add('the line to the guest', () => port.close());
  await port.connect(socket);
  return guest;
}

async function cut(story: Story, wire: Wire): Promise<void> {
  await wire.set(pathBetween('m1', 'm2'), { ...CLEAR_WIRE, cut: true });
  story.say(`Every connection between m1 and m2 is reset, and none comes about, for ${CUT_MS / 1000} s.`);
  await rest(CUT_MS);
  await wire.set(pathBetween('m1', 'm2'), CLEAR_WIRE);
}

async function killOwn(story: Story, cluster: Cluster): Promise<void> {
  const daemon = cluster.daemon('m2');
  story.command('m2', `kill -9 ${daemon.pid}`);
  daemon.signal('SIGKILL');
  await daemon.exited;
  await rest(AWAY_MS);
  story.command('m2', 'netbus daemon');
  await cluster.startDaemon(cluster.host('m2'));
}

async function killFar(story: Story, m1: DeviceHost): Promise<void> {
  story.command('m1', 'kill -9 $(pidof netbusd)');
  await m1.killDaemon();
  story.command('m1', 'netbus daemon');
  await m1.startDaemon();
}

/** A host without power answers nobody. */
async function losePower(story: Story, m1: DeviceHost, wire: Wire): Promise<void> {
  await wire.set(pathBetween('m1', 'm2'), { ...CLEAR_WIRE, cut: true });
  await m1.losePower();
  story.say('The power of m1 is gone, with what its memory held. It is switched on again, boots, and starts its daemon.');
  await m1.boot();
  await wire.set(pathBetween('m1', 'm2'), CLEAR_WIRE);
}

async function inMachine(story: Story, machine: DeviceHost, commands: string): Promise<void> {
  story.command(machine.name, commands);
  story.output(await machine.guest.succeed(commands));
}

function rest(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
