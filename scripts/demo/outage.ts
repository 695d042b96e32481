/** The outage demo's story: a guest copies files and verifies them while everything below its disk fails, one after the other. */

import { existsSync, mkdtempSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AttachmentEntry } from '../../src/api/types.ts';
import { formatTable } from '../../src/lib/format.ts';
import type { DeviceHost } from '../../test/guest/device-host.ts';
import { type Guest, startGuest } from '../../test/guest/guest.ts';
import type { Cleanup } from '../../test/support/cleanup.ts';
import type { Cluster } from '../../test/support/cluster.ts';
import { hostKind } from '../../test/support/hosts.ts';
import { CLEAR_WIRE } from '../../test/support/tcp-proxy.ts';
import { waitFor } from '../../test/support/wait.ts';
import type { Wire } from '../../test/support/wire.ts';
import { pathBetween, wireCluster } from '../../test/support/wired-cluster.ts';
import { netbus } from './disk.ts';
import type { Story } from './story.ts';
import { type Happening, pauseMs, svgTimeline, textTimeline } from './timeline.ts';

/** How long the network is cut and a killed daemon is away, in milliseconds. */
const CUT_MS = 3_000;
const AWAY_MS = 1_000;
/** Undisturbed work between two outages, in milliseconds. */
const CALM_MS = 1_500;
/** An attachment has to be in use again within this time after an outage: it bounds a hang and says nothing about speed. */
const BACK_MS_MAX = 60_000;
const DISK_MIB = 128;
const SOURCES = 16;
const SOURCE_KIB = 128;

/**
 * In the guest: copies files from memory to the disk, reads each back past the cache and compares it, for as long as /run/work is there.
 * A line on the second serial port for each: its sum was right (+), or wrong (!).
 */
const WORK = `
  n=0
  while [ -e /run/work ]; do
    i=$((n % ${SOURCES})); n=$((n + 1))
    if dd if=/tmp/source-$i of=/mnt/copy-$i bs=128k oflag=direct 2>/dev/null &&
      dd if=/mnt/copy-$i bs=128k iflag=direct 2>/dev/null | cmp -s - /tmp/source-$i; then echo +; else echo !; fi
  done >/dev/ttyS1
  sync; touch /run/rested`;

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
  const guest = new CopyingGuest(cleanup);
  await guest.boot(cluster, 'm2');
  await guest.start();
  await rest(CALM_MS);
  story.good(`${guest.copies} files copied so far`);

  const outages = new Outages(story, guest);
  await outages.happens('the network is cut', () => cut(story, wire));
  await outages.happens('the daemon of m2 is killed', () => killOwn(story, cluster));
  await outages.happens('the daemon of m1 is killed', () => killFar(story, m1));
  await outages.happens('m1 loses its power', () => losePower(story, m1, wire));

  story.step('The guest stops, and its kernel is asked');
  const errors = await guest.finish();
  const status = await cluster.client('m2').status();
  const entry = status.attachments.find(({ vm }) => vm === 'web');
  if (entry?.state !== 'active') throw new Error(`web/data is ${entry?.state}: ${entry?.reason}`);
  if (errors.length > 0) throw new Error(`the guest noticed: ${errors.join('; ')}`);
  story.good(`${guest.copies} files copied and verified, none was wrong, and the kernel has nothing to say of its disk`);
  return { cluster, result: outages.tell(errors.length) };
}

/** The outages, one after the other, and what came of them. */
class Outages {
  readonly #story: Story;
  readonly #guest: CopyingGuest;
  readonly #happenings: Happening[] = [];

  constructor(story: Story, guest: CopyingGuest) {
    this.#story = story;
    this.#guest = guest;
  }

  async happens(what: string, body: () => Promise<void>): Promise<void> {
    this.#story.step(`${what.charAt(0).toUpperCase()}${what.slice(1)}`);
    const fromMs = this.#guest.now;
    await body();
    const toMs = this.#guest.now;
    const before = this.#guest.copies;
    await waitFor('the guest to go on', () => this.#guest.copies > before + 1, BACK_MS_MAX);
    const backMs = this.#guest.now - toMs;
    this.#happenings.push({ what, fromMs, toMs });
    this.#story.good(`the guest goes on, ${(backMs / 1000).toFixed(1)} s after the cause was gone`);
    await rest(CALM_MS);
  }

  tell(errors: number): OutageResult {
    const timeline = { doneAtMs: this.#guest.doneAtMs, happenings: this.#happenings, endMs: this.#guest.now };
    const pauses = this.#happenings.map((happening) => ({
      ...happening,
      pausedMs: Math.round(pauseMs(timeline, happening)),
    }));
    const svg = join(mkdtempSync(join(tmpdir(), 'netbus-outage-')), 'outage.svg');
    writeFileSync(svg, svgTimeline(timeline, 'Files that a guest copied and verified, while everything below its disk failed'));
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
    return { copies: this.#guest.copies, errors, pausesMs, svg };
  }
}

/** A guest that copies files, and says so as it goes. */
class CopyingGuest {
  readonly #cleanup: Cleanup;
  readonly doneAtMs: number[] = [];
  #wrong = 0;
  #startedAt = 0;
  #guest: Guest | undefined;

  constructor(cleanup: Cleanup) {
    this.#cleanup = cleanup;
  }

  /** Since it began to copy, in milliseconds of the harness's clock: the guest's own may stand still. */
  get now(): number {
    return performance.now() - this.#startedAt;
  }

  get copies(): number {
    return this.doneAtMs.length;
  }

  async boot(cluster: Cluster, hostName: string): Promise<void> {
    const host = cluster.host(hostName);
    const { attachments } = await cluster.client(hostName).status();
    const disks = attachments.flatMap(({ qemuArguments }: AttachmentEntry) => qemuArguments);
    const socket = join(host.folder, 'copies');
    const serial = ['-chardev', `socket,id=copies,path=${socket},server=on,wait=off`, '-serial', 'chardev:copies'];
    this.#guest = await startGuest({ name: 'web', cleanup: this.#cleanup, host, arguments: [...disks, ...serial] });
    const connection = createConnection(socket);
    this.#cleanup.add('the line to the guest', () => void connection.destroy());
    connection.on('error', () => {});
    connection.setEncoding('latin1').on('data', (text: string) => {
      for (const mark of text) {
        if (mark === '+') this.doneAtMs.push(this.now);
        else if (mark === '!') this.#wrong++;
      }
    });
    await this.#guest.succeed(
      `mkfs.ext4 -q /dev/vda && mkdir -p /mnt && mount /dev/vda /mnt
      for i in $(seq 0 ${SOURCES - 1}); do dd if=/dev/urandom of=/tmp/source-$i bs=1k count=${SOURCE_KIB} 2>/dev/null; done`,
    );
  }

  async start(): Promise<void> {
    this.#startedAt = performance.now();
    await this.#guest!.succeed(`touch /run/work; (${WORK}) </dev/null >/dev/null 2>&1 &`);
    await waitFor('the first copies', () => this.copies > 1, BACK_MS_MAX);
  }

  /** Ends the work. What was wrong, in words. */
  async finish(): Promise<string[]> {
    const guest = this.#guest!;
    await guest.succeed('rm /run/work; until [ -e /run/rested ]; do usleep 50000; done');
    const complaints = await guest.run('dmesg | grep -E "I/O error|EXT4-fs (error|warning)|Buffer I/O|blocked for more"');
    const errors = complaints.output.trim() === '' ? [] : complaints.output.trim().split('\n');
    if (this.#wrong > 0) errors.push(`${this.#wrong} copies failed or came back different`);
    return errors;
  }
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
