/** Two disk frontends, as of two hosts, before the same disk: a guest leaves one for the other. What stands between them is a record, by hand. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { QueueHandOver } from '../../../src/device/hand-over.ts';
import type { Passage } from '../../../src/device/source.ts';
import { createDiskFrontend, type DiskFrontend } from '../../../src/frontends/vhost-user/disk-frontend.ts';
import { MemoryDisk } from '../memory-disk.ts';
import { waitFor, withDeadline } from '../wait.ts';
import { TestClock } from './disk-bench.ts';
import { VhostUserFrontend } from './frontend.ts';
import { FRONTEND_PROTOCOL_FEATURES } from './handshake.ts';

const DEPTH = 64;

/** The passage of one host, as the test wants it. */
export class TestPassage implements Passage {
  /** What `arrival` gives: undefined = the guest is here. */
  expected: Promise<readonly QueueHandOver[] | null> | undefined;
  /** All that was handed over, and whether the device was open then. */
  readonly left: { queues: readonly QueueHandOver[]; open: boolean; aborted: boolean }[] = [];
  /** `leave` waits for this, and its signal. */
  storing: Promise<void> = Promise.resolve();
  /** How often all that was left was noted. */
  arrivedCount = 0;
  readonly mayLeaveTold: boolean[] = [];
  readonly #disk: MemoryDisk;
  #tell: (queues: readonly QueueHandOver[] | null) => void = () => {};

  constructor(disk: MemoryDisk) {
    this.#disk = disk;
  }

  arrival(): Promise<readonly QueueHandOver[] | null> | undefined {
    return this.expected;
  }

  arrivalAgain(): Promise<readonly QueueHandOver[] | null> {
    return new Promise((resolve) => {
      this.#tell = resolve;
    });
  }

  /** From here on the guest is expected; `arrive` ends that, also where it is asked again. */
  expect(): void {
    this.expected = new Promise((resolve) => {
      this.#tell = resolve;
    });
  }

  arrive(queues: readonly QueueHandOver[] | null): void {
    this.#tell(queues);
  }

  arrived(): void {
    this.arrivedCount++;
  }

  mayLeave(expected: boolean): void {
    this.mayLeaveTold.push(expected);
  }

  async leave(queues: readonly QueueHandOver[], signal: AbortSignal): Promise<void> {
    this.left.push({ queues, open: this.#disk.device?.closed === false, aborted: signal.aborted });
    this.expected = undefined;
    const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
    if (!signal.aborted) await Promise.race([this.storing, aborted]);
  }

  get last(): readonly QueueHandOver[] {
    return this.left[this.left.length - 1].queues;
  }
}

export interface TestHost {
  readonly disk: MemoryDisk;
  readonly passage: TestPassage;
  readonly frontend: DiskFrontend;
  readonly path: string;
  readonly inflightPath: string;
  readonly complaints: string[];
}

export interface TwoHosts {
  readonly m1: TestHost;
  readonly m2: TestHost;
  readonly clock: TestClock;
  /** A guest that lives at m1. */
  connect(options?: { queues?: number; queueSize?: number; protocolFeatures?: bigint }): Promise<VhostUserFrontend>;
}

/** Runs `body`; both disks have the same content. */
export async function withTwoHosts(
  body: (hosts: TwoHosts) => Promise<void>,
  options: { depth?: number; quiesceMsMax?: number; queues?: number } = {},
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'netbus-hosts-'));
  const clock = new TestClock();
  const hosts = ['m1', 'm2'].map((name): TestHost => {
    const disk = new MemoryDisk({ queues: options.queues ?? 2 });
    const passage = new TestPassage(disk);
    const complaints: string[] = [];
    const complain = (_fields: object, message: string) => void complaints.push(message);
    const path = join(folder, name);
    const inflightPath = `${path}.inflight`;
    const frontend = createDiskFrontend({
      path,
      inflightPath,
      source: { profile: disk.profile, open: () => disk.open(), passage },
      depth: options.depth ?? DEPTH,
      clock,
      log: { debug() {}, info() {}, warn: complain, error: complain },
      migratable: true,
      ...(options.quiesceMsMax !== undefined && { quiesceMsMax: options.quiesceMsMax }),
    });
    return { disk, passage, frontend, path, inflightPath, complaints };
  });
  const [m1, m2] = hosts;
  m2.disk.storage = m1.disk.storage;
  const vms: VhostUserFrontend[] = [];
  const connect: TwoHosts['connect'] = async (vmOptions) => {
    const vm = await VhostUserFrontend.connect(m1.path, {
      reconnects: true,
      protocolFeatures: FRONTEND_PROTOCOL_FEATURES,
      ...vmOptions,
    });
    vms.push(vm);
    return vm;
  };
  try {
    await body({ m1, m2, clock, connect });
  } finally {
    for (const vm of vms) vm.close();
    for (const { disk } of hosts) {
      disk.holding = false;
      disk.device?.release();
    }
    const closed = Promise.all(hosts.map(({ frontend }) => frontend.close()));
    const ticking = setInterval(() => clock.advance(1_000), 10);
    await withDeadline('both frontends to close', 5_000, closed).finally(() => clearInterval(ticking));
    rmSync(folder, { recursive: true });
  }
}

/** Places of the requests that a disk has seen, in sectors. */
export const sectors = ({ disk }: TestHost) => disk.seen.map(({ argument }) => argument / 512);
/** Of each ring: its state, or what it waits for. */
export const states = ({ frontend }: TestHost) => frontend.status().rings?.map(({ state, waitsFor }) => waitsFor ?? state);
/** By the device that is open now: the one before it may have been cut off with as many. */
export const held = ({ disk }: TestHost, count: number) =>
  waitFor(`${count} to be held`, () => disk.openNow > 0 && disk.device?.held === count);

/** As QEMU does it: all rings are disabled, then stopped one after the other. */
export async function stop(vm: VhostUserFrontend): Promise<number[]> {
  for (const index of vm.queues.keys()) await vm.enableRing(index, false);
  const bases: number[] = [];
  for (const index of vm.queues.keys()) bases.push(await vm.stopRing(index));
  return bases;
}

/** The same where the disk of m1 holds requests: the bound is what ends it. */
export async function cut(vm: VhostUserFrontend, clock: TwoHosts['clock']): Promise<number[]> {
  const before = clock.waiting;
  const stopped = stop(vm);
  let done = false;
  void stopped.finally(() => {
    done = true;
  });
  await waitFor('the stop to begin', () => clock.waiting > before);
  await waitFor('the stop to end', () => {
    if (!done) clock.advance(1_000);
    return done;
  });
  return stopped;
}

/** The guest is expected at m2, its VMM connects there, and what m1 handed over arrives. */
export async function move(vm: VhostUserFrontend, { m1, m2 }: TwoHosts, known = true): Promise<void> {
  m2.passage.expect();
  await vm.moveTo(m2.path, known);
  await waitFor('the rings to wait', () => states(m2)?.includes('hand-over'));
  m2.passage.arrive(m1.passage.last);
}
