/** What the campaign plays on: hosts, the wire between them, disks, and the guests that use them. */
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { AttachmentEntry } from '../../src/api/types.ts';
import type { DeviceHost } from '../../test/guest/device-host.ts';
import { makeEmptyDisk } from '../../test/guest/root-disk.ts';
import type { Cleanup } from '../../test/support/cleanup.ts';
import type { Cluster } from '../../test/support/cluster.ts';
import { runOk } from '../../test/support/process.ts';
import type { Wire } from '../../test/support/wire.ts';
import { wireCluster } from '../../test/support/wired-cluster.ts';
import { BLOCK_BYTES } from './block-ledger.ts';
import { BlockWriter } from './block-writer.ts';
import { type FioDisk, FioGuest } from './fio-guest.ts';
import { type FaultKind, needsMachine } from './kinds.ts';

/** The device's host, the VM's host, and the device's host that can lose its power. */
export const DEVICE_HOST = 'm1';
export const VM_HOST = 'm2';
export const MACHINE_HOST = 'm3';

const LEDGER_BLOCKS = 1024;
const WORK_MIB = 32;
/** An emulated processor encrypts and serves: more than this would take a processor from all others. */
const MACHINE_BLOCKS = 256;
const MACHINE_PACE_MS = 80;
const MACHINE_WORK_IOPS = 20;
const WORK_IOPS = 150;
/** A filesystem for a disk that can be full, and the disk on it, which fits with room to spare. */
const SMALL_FILESYSTEM_MIB = 24;
const SMALL_DISK_BLOCKS = 1024;

export interface StageOptions {
  readonly cleanup: Cleanup;
  readonly kinds: readonly FaultKind[];
  readonly seed: number;
  /** Whether a real guest takes part. */
  readonly guest: boolean;
  /** Size of the disk on m1 whose every write is known; LEDGER_BLOCKS by default. With few, each is soon overwritten. */
  readonly ledgerBlocks?: number;
  /** The built program, for a machine of its own. */
  readonly program: string;
  /** Command lines to run instead of the daemon's program, by host: tests break one on purpose. */
  readonly programs?: ReadonlyMap<string, readonly string[]>;
}

/** A disk on a filesystem that can be filled up. */
export interface SmallDisk {
  readonly writer: BlockWriter;
  /** Takes all space that is left. */
  fill(): Promise<void>;
  /** Gives it back. */
  clear(): Promise<void>;
}

export class Stage {
  readonly cluster: Cluster;
  readonly wire: Wire;
  readonly machine: DeviceHost | undefined;
  /** On m1, for everything that befalls it, the wire and the daemons. */
  readonly writer: BlockWriter;
  readonly imagePath: string;
  /** On the machine that can lose its power. */
  readonly machineWriter: BlockWriter | undefined;
  readonly smallDisks: ReadonlyMap<FaultKind, SmallDisk>;
  readonly guest: FioGuest | undefined;
  readonly #programs: ReadonlyMap<string, readonly string[]>;

  static async set(options: StageOptions, say: (text: string) => void): Promise<Stage> {
    const { cleanup, kinds, seed } = options;
    const machines = needsMachine(kinds) ? [MACHINE_HOST] : [];
    say(`hosts ${[DEVICE_HOST, VM_HOST, ...machines].join(', ')}, and the wire between them`);
    const names = [DEVICE_HOST, VM_HOST, ...machines];
    const wired = await wireCluster(names, { cleanup, machines, program: options.program });
    const { cluster, wire } = wired;
    const programs = options.programs ?? new Map();
    const start = (name: string) => cluster.startDaemon(cluster.host(name), programs.get(name));
    await Promise.all([start(DEVICE_HOST), start(VM_HOST)]);
    const machine = wired.machines.get(MACHINE_HOST);
    if (machine !== undefined) say(`${MACHINE_HOST} is a machine of its own and boots`);
    const booting = machine?.boot();
    // It is awaited below.
    booting?.catch(() => {});
    const writers = new Writers(cluster, cleanup, seed);

    const ledgerBlocks = options.ledgerBlocks ?? LEDGER_BLOCKS;
    const imagePath = join(cluster.host(DEVICE_HOST).folder, 'ledger.img');
    makeImage(imagePath, ledgerBlocks);
    await exportDisk(cluster, 'ledger', imagePath);
    const writer = await writers.connect(`${DEVICE_HOST}/ledger`, ledgerBlocks, 8, 1);

    const smallDisks = new Map<FaultKind, SmallDisk>();
    for (const kind of ['disk-full', 'io-error'] as const) {
      if (kinds.includes(kind)) smallDisks.set(kind, await makeSmallDisk(kind, cluster, writers, cleanup));
    }
    let machineWriter: BlockWriter | undefined;
    const guestDisks: FioDisk[] = [];
    if (machine !== undefined) {
      await booting;
      const disks = ['ledger3', 'work3'].map((name) => ({ name, disk: `/srv/${name}.img`, allow: [VM_HOST] }));
      for (const { disk } of disks) await machine.guest.succeed(`truncate -s ${WORK_MIB}M ${disk}`);
      await machine.post('/v1/exports', disks);
      machineWriter = await writers.connect(`${MACHINE_HOST}/ledger3`, MACHINE_BLOCKS, 4, MACHINE_PACE_MS);
      guestDisks.push({ device: `${MACHINE_HOST}/work3`, iops: MACHINE_WORK_IOPS });
    }
    let guest: FioGuest | undefined;
    if (options.guest) {
      const path = join(cluster.host(DEVICE_HOST).folder, 'work.img');
      makeEmptyDisk(path, WORK_MIB);
      await exportDisk(cluster, 'work', path);
      say('a guest boots, and works under fio --verify');
      guest = await FioGuest.boot(
        cluster,
        VM_HOST,
        [{ device: `${DEVICE_HOST}/work`, iops: WORK_IOPS }, ...guestDisks],
        cleanup,
        seed,
      );
    }
    return new Stage({ cluster, wire, machine, writer, imagePath, machineWriter, smallDisks, guest }, programs);
  }

  private constructor(
    parts: Pick<Stage, 'cluster' | 'wire' | 'machine' | 'writer' | 'imagePath' | 'machineWriter' | 'smallDisks' | 'guest'>,
    programs: ReadonlyMap<string, readonly string[]>,
  ) {
    this.cluster = parts.cluster;
    this.wire = parts.wire;
    this.machine = parts.machine;
    this.writer = parts.writer;
    this.imagePath = parts.imagePath;
    this.machineWriter = parts.machineWriter;
    this.smallDisks = parts.smallDisks;
    this.guest = parts.guest;
    this.#programs = programs;
  }

  get writers(): BlockWriter[] {
    const small = [...this.smallDisks.values()].map(({ writer }) => writer);
    return [this.writer, ...small, ...(this.machineWriter === undefined ? [] : [this.machineWriter])];
  }

  /** The writer that a fault of this kind befalls first. */
  writerOf(kind: FaultKind): BlockWriter {
    if (kind === 'device-host-power-loss') return this.machineWriter!;
    return this.smallDisks.get(kind)?.writer ?? this.writer;
  }

  /** Starts a host's daemon again; resolves when it listens. */
  async startDaemon(name: string): Promise<void> {
    await this.cluster.startDaemon(this.cluster.host(name), this.#programs.get(name));
  }
}

/** Writers on disks that are attached for them. */
class Writers {
  readonly #cluster: Cluster;
  readonly #cleanup: Cleanup;
  #seed: number;

  constructor(cluster: Cluster, cleanup: Cleanup, seed: number) {
    this.#cluster = cluster;
    this.#cleanup = cleanup;
    this.#seed = seed;
  }

  async connect(device: string, blocks: number, depth: number, paceMs: number): Promise<BlockWriter> {
    const entry = await this.#cluster.ask<AttachmentEntry>(VM_HOST, 'attach', device, '--vm', 'writer');
    const socketPath = this.#cluster.host(VM_HOST).path(entry.socket);
    const queues = Math.min(entry.queues, 2);
    const writer = await BlockWriter.connect({ name: device, socketPath, blocks, seed: this.#seed++, queues, depth, paceMs });
    this.#cleanup.add(device, () => writer.close());
    return writer;
  }
}

function exportDisk(cluster: Cluster, name: string, path: string, ...more: string[]): Promise<unknown> {
  return cluster.ask(DEVICE_HOST, 'export', name, '--disk', path, '--allow', VM_HOST, ...more);
}

function makeImage(path: string, blocks: number): void {
  writeFileSync(path, '');
  truncateSync(path, blocks * BLOCK_BYTES);
}

/**
 * A sparse image on a filesystem of its own. For `disk-full` the image is exported, so that a write without room is ENOSPC; for
 * `io-error` a block device is made of it, whose writes fail with EIO then, as those of a broken disk.
 */
async function makeSmallDisk(
  kind: 'disk-full' | 'io-error',
  cluster: Cluster,
  writers: Writers,
  cleanup: Cleanup,
): Promise<SmallDisk> {
  const host = cluster.host(DEVICE_HOST);
  const folder = join(host.folder, kind);
  mkdirSync(folder);
  // On the harness's side, where a loop device finds it, and below the folder that the host sees too.
  await runOk(host.command(['mount', '-t', 'tmpfs', '-o', `size=${SMALL_FILESYSTEM_MIB}m`, kind, folder]));
  const inside = (path: string) => host.path(join(folder, path));
  makeImage(inside('disk.img'), SMALL_DISK_BLOCKS);
  if (kind === 'disk-full') await exportDisk(cluster, kind, join(folder, 'disk.img'));
  else {
    const device = (await runOk(host.command(['losetup', '--find', '--show', join(folder, 'disk.img')]))).trim();
    cleanup.add(device, async () => void (await runOk(['losetup', '--detach', device])));
    await exportDisk(cluster, kind, device, '--direct');
  }
  const ballast = join(folder, 'ballast');
  return {
    writer: await writers.connect(`${DEVICE_HOST}/${kind}`, SMALL_DISK_BLOCKS, 2, 5),
    // It ends with an error when the filesystem is full: that is what is wanted.
    fill: async () => void (await runOk(host.command(['sh', '-c', `cat /dev/zero >${ballast} 2>/dev/null || true`]))),
    clear: async () => void (await runOk(host.command(['rm', '-f', ballast]))),
  };
}
